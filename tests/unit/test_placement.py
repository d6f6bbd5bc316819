"""Where instances run, and with which providers: configurations against machines that are only described."""

from __future__ import annotations

import pytest

from server.backends.base import Devices, SessionOptions
from server.errors import ConfigInvalid
from server.models.config import LoadSettings, load_settings, parse
from server.models.config_accelerators import CPU, CUDA, CUDA_DEFAULTS, TENSORRT, execution_providers
from server.models.config_fields import FieldInvalid
from server.models.placement import place
from server.models.runtime import session_options

LAPTOP = Devices(frozenset({CPU}))
NO_DRIVER = Devices(frozenset({CPU, CUDA, TENSORRT}), 0, "there is no NVIDIA driver (libcuda.so.1: cannot open)")
TWO_GPUS = Devices(frozenset({CPU, CUDA, TENSORRT}), 2)
NO_TENSORRT = Devices(frozenset({CPU, CUDA}), 1)

GPU = "instance_group { kind: KIND_GPU } "
GRAPHS = "optimization { cuda { graphs: true } } "


def settings(text: str = "", **parameters: str) -> LoadSettings:
    for key, value in parameters.items():
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }} '
    return load_settings(parse(text, "config.pbtxt"), "m", "config.pbtxt")


def accelerator(name: str, **parameters: str) -> str:
    pairs = " ".join(f'parameters {{ key: "{key}" value: "{value}" }}' for key, value in parameters.items())
    inner = f'gpu_execution_accelerator {{ name: "{name}" {pairs} }}'
    return f"optimization {{ execution_accelerators {{ {inner} }} }} "


PLACES: dict[str, tuple[str, Devices, tuple[int | None, ...]]] = {
    "nothing said, no GPU": ("", LAPTOP, (None,)),
    "nothing said, no driver": ("", NO_DRIVER, (None,)),
    "nothing said, GPUs": ("", TWO_GPUS, (0, 1)),
    "the CPU, beside GPUs": ("instance_group { kind: KIND_CPU count: 3 }", TWO_GPUS, (None, None, None)),
    "all GPUs": (GPU, TWO_GPUS, (0, 1)),
    "one GPU": ("instance_group { kind: KIND_GPU gpus: 1 }", TWO_GPUS, (1,)),
    "two on each": ("instance_group { kind: KIND_GPU count: 2 gpus: [ 1, 0 ] }", TWO_GPUS, (1, 1, 0, 0)),
    "two groups": ("instance_group { kind: KIND_GPU gpus: 0 } instance_group { kind: KIND_GPU gpus: 0 }",
                   TWO_GPUS, (0, 0)),
    "automatic, by number": ("instance_group { gpus: 1 }", TWO_GPUS, (1,)),
    "automatic, several, no GPU": ("instance_group { count: 2 }", NO_DRIVER, (None, None)),
    "an accelerator, automatic, no GPU": (accelerator("tensorrt"), LAPTOP, (None,)),
}  # fmt: skip


@pytest.mark.parametrize(("text", "devices", "placement"), PLACES.values(), ids=PLACES)
def test_instances_go_where_the_configuration_says(
    text: str, devices: Devices, placement: tuple[int | None, ...]
) -> None:
    assert place(settings(text), devices) == placement


REFUSALS: dict[str, tuple[str, Devices, str]] = {
    "no CUDA provider": (GPU, LAPTOP, "asks for a GPU, and this ONNX Runtime has no CUDA provider; install the extra"),
    "no driver": (GPU, NO_DRIVER, "asks for a GPU, and there is no NVIDIA driver (libcuda.so.1: cannot open); check"),
    "no such GPU": ("instance_group { kind: KIND_GPU gpus: [ 0, 2 ] }", TWO_GPUS, "GPU 2 is not there: this machine"),
    "a number, automatic": ("instance_group { gpus: 0 }", LAPTOP, "asks for a GPU, and this ONNX Runtime has no CUDA"),
    "no TensorRT": (GPU + accelerator("tensorrt"), NO_TENSORRT, "this ONNX Runtime has no TensorRT provider"),
    "an accelerator on the CPU": (
        "instance_group { kind: KIND_CPU } " + accelerator("cuda"), TWO_GPUS,
        "field 'optimization.execution_accelerators.gpu_execution_accelerator' needs a GPU, and instance_group says",
    ),
    "graphs on the CPU": ("instance_group { kind: KIND_CPU } " + GRAPHS, TWO_GPUS, "'optimization.cuda.graphs' needs"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "devices", "problem"), REFUSALS.values(), ids=REFUSALS)
def test_a_gpu_that_is_not_there_is_refused_with_the_reason(text: str, devices: Devices, problem: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        place(settings(text), devices)
    assert problem in str(caught.value)


@pytest.mark.parametrize("key", ["gpu_mem_limit", "arena_extend_strategy"])
def test_a_gpu_parameter_on_the_cpu_is_refused(key: str) -> None:
    with pytest.raises(FieldInvalid, match="needs a GPU"):
        place(settings("instance_group { kind: KIND_CPU }", **{key: "1"}), LAPTOP)


@pytest.mark.parametrize(
    ("text", "devices"), [(GPU, NO_TENSORRT), ("instance_group { kind: KIND_CPU }", LAPTOP)], ids=["GPU", "CPU"]
)
def test_an_arena_where_no_instance_runs_is_refused(text: str, devices: Devices) -> None:
    with pytest.raises(FieldInvalid, match="names gpu:1, where no instance runs"):
        place(settings(text, **{"memory.enable_memory_arena_shrinkage": "cpu:0;gpu:1"}), devices)


def options(given: LoadSettings, device: int | None) -> SessionOptions:
    return session_options(given, device=device, instances=1, cores=1, folder=None, op_library=None)  # type: ignore[arg-type]


def test_a_session_shrinks_the_arenas_that_it_has() -> None:
    given = settings(**{"memory.enable_memory_arena_shrinkage": "gpu:0;cpu:0;gpu:1"})
    assert [options(given, device).arena_shrinkage for device in (None, 0, 1)] == [
        "cpu:0",
        "gpu:0;cpu:0",
        "cpu:0;gpu:1",
    ]


def providers(text: str = "", device: int = 0, **parameters: str) -> dict[str, dict[str, str]]:
    return {name: dict(given) for name, given in execution_providers(settings(text, **parameters), device)}


def test_on_the_cpu_there_is_one_provider_and_no_option() -> None:
    assert execution_providers(settings(accelerator("cuda", gpu_mem_limit="5")), None) == ((CPU, {}),)


def test_cuda_searches_quickly_and_takes_no_more_memory_than_it_needs() -> None:
    assert providers(device=1) == {
        CUDA: {
            "device_id": "1", "cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested",
        },
        CPU: {},
    }  # fmt: skip


def test_options_of_cuda_are_handed_on_over_the_defaults() -> None:
    text = accelerator("cuda", gpu_mem_limit="1000000", cudnn_conv_algo_search="EXHAUSTIVE", use_tf32="False")
    assert providers(text)[CUDA] == {
        "device_id": "0", **CUDA_DEFAULTS,
        "gpu_mem_limit": "1000000", "cudnn_conv_algo_search": "EXHAUSTIVE", "use_tf32": "0",
    }  # fmt: skip


def test_tritons_older_parameters_are_understood_and_come_second() -> None:
    older = {
        "cudnn_conv_algo_search": "0", "gpu_mem_limit": "7", "arena_extend_strategy": "0",
        "do_copy_in_default_stream": "1",
    }  # fmt: skip
    assert providers(**older)[CUDA] == {
        "device_id": "0", "cudnn_conv_algo_search": "EXHAUSTIVE", "gpu_mem_limit": "7",
        "arena_extend_strategy": "kNextPowerOfTwo", "do_copy_in_default_stream": "1",
    }  # fmt: skip
    assert providers(accelerator("cuda", gpu_mem_limit="8"), gpu_mem_limit="7")[CUDA]["gpu_mem_limit"] == "8"


def test_tensorrt_comes_before_cuda_and_takes_tritons_names() -> None:
    text = accelerator(
        "tensorrt", precision_mode="FP16", max_workspace_size_bytes="1073741824", trt_engine_cache_enable="true"
    )
    found = providers(text, device=1)
    assert list(found) == [TENSORRT, CUDA, CPU]
    assert found[TENSORRT] == {
        "device_id": "1", "trt_fp16_enable": "1", "trt_max_workspace_size": "1073741824",
        "trt_engine_cache_enable": "1",
    }  # fmt: skip


def test_single_precision_is_tensorrts_own_default() -> None:
    assert providers(accelerator("tensorrt", precision_mode="FP32"))[TENSORRT] == {"device_id": "0"}


def test_the_first_provider_records_cuda_graphs() -> None:
    assert providers(GRAPHS)[CUDA]["enable_cuda_graph"] == "1"
    both = providers(accelerator("tensorrt").replace("optimization {", "optimization { cuda { graphs: true }"))
    assert both[TENSORRT]["trt_cuda_graph_enable"] == "1"
    assert "enable_cuda_graph" not in both[CUDA]


def test_the_cpu_is_left_out_where_it_must_not_help() -> None:
    assert list(providers(**{"session.disable_cpu_ep_fallback": "1"})) == [CUDA]


@pytest.mark.parametrize(
    ("text", "shared"),
    [("", True), (accelerator("cuda"), True), (accelerator("tensorrt"), False), (GRAPHS, False)],
    ids=["plain", "cuda", "tensorrt", "graphs"],
)
def test_instances_share_a_session_where_it_can_run_batches_side_by_side(text: str, shared: bool) -> None:
    assert settings(text).share_session is shared


def test_sessions_of_tensorrt_can_be_shared_all_the_same() -> None:
    assert settings(accelerator("tensorrt"), share_session="true").share_session


@pytest.mark.parametrize(
    ("text", "pinned"),
    [
        ("", True),
        ("optimization { input_pinned_memory { enable: true } }", True),
        ("optimization { input_pinned_memory { enable: false } }", False),
    ],
)
def test_inputs_are_staged_in_pinned_memory_unless_that_is_turned_off(text: str, pinned: bool) -> None:
    assert options(settings(text), 0).pinned_memory is pinned


WRONG = {
    "an unknown accelerator": (accelerator("openvino"), "[0].name' is 'openvino'; this server knows cuda and tensorrt"),
    "one twice": (
        accelerator("cuda").replace("} }", '} gpu_execution_accelerator { name: "cuda" } }', 1),
        "[1].name' is 'cuda', which is given twice",
    ),
    "an unknown option": (accelerator("cuda", fast="1"), "parameters['fast']' is not supported for cuda; it knows: ar"),
    "the device": (accelerator("cuda", device_id="1"), "parameters['device_id']' is not supported for cuda"),
    "a path": (accelerator("tensorrt", trt_engine_cache_path="/etc"), "'trt_engine_cache_path']' is not supported"),
    "no search": (accelerator("cuda", cudnn_conv_algo_search="BEST"), "must be EXHAUSTIVE, HEURISTIC or DEFAULT, not"),
    "no number": (accelerator("cuda", gpu_mem_limit="2GB"), "must be an integer of at least 0, not '2GB'"),
    "no switch": (accelerator("tensorrt", trt_dla_enable="on"), "must be true or false, not 'on'"),
    "no precision": (accelerator("tensorrt", precision_mode="FP8"), "must be FP32, FP16, BF16 or INT8, not 'FP8'"),
    "no shape": (accelerator("tensorrt", trt_profile_min_shapes="x"), "must be shapes such as"),
    "shared recordings": (
        GRAPHS + "instance_group { count: 2 } "
        'parameters { key: "share_session" value { string_value: "true" } }',
        "'parameters['share_session']' cannot go with optimization.cuda.graphs",
    ),
    "memory given back under a recording": (
        GRAPHS + 'parameters { key: "memory.enable_memory_arena_shrinkage" value { string_value: "gpu:0" } }',
        "'parameters['memory.enable_memory_arena_shrinkage']' cannot go with optimization.cuda.graphs",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), WRONG.values(), ids=WRONG)
def test_gpu_options_that_are_unknown_or_impossible_are_refused_by_name(text: str, problem: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        settings(text)
    assert problem in str(caught.value)
