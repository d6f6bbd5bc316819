"""GPU options of config.pbtxt: `execution_accelerators`, and Triton's older `parameters`, to providers with options.

Triton's names where Triton has one, else ONNX Runtime's. Options that name devices, streams, allocators or files are
left out: instances choose devices, ONNX Runtime streams, and a configuration is no key to the disk. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from proto import model_config_pb2 as pb
from server.models.config_fields import FieldInvalid
from server.models.config_runtime import OLDER_CUDA_PARAMETERS, SHRINKAGE, Form
from server.models.config_types import Accelerator, LoadSettings

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
CPU = "CPUExecutionProvider"

Options = Mapping[str, str]

_FIELD = "optimization.execution_accelerators.gpu_execution_accelerator"

_SWITCH = Form("0|1|[Tt]rue|[Ff]alse", "true or false")
_NUMBER = Form("[0-9]{1,18}", "an integer of at least 0")
_NAMES = Form("[A-Za-z0-9_,;:+-]+", "names with commas between them")
_SHAPES = Form(r"[^:]+:[0-9]+(x[0-9]+)*(,[^:,]+:[0-9]+(x[0-9]+)*)*", "shapes such as x:1x3x224x224,y:1x5")

CUDA_OPTIONS: dict[str, Form] = {
    "arena_extend_strategy": Form("kNextPowerOfTwo|kSameAsRequested", "kNextPowerOfTwo or kSameAsRequested"),
    "cudnn_conv_algo_search": Form("EXHAUSTIVE|HEURISTIC|DEFAULT", "EXHAUSTIVE, HEURISTIC or DEFAULT"),
    "gpu_mem_limit": _NUMBER,
    "sdpa_kernel": _NUMBER,
    "tunable_op_max_tuning_duration_ms": _NUMBER,
    **dict.fromkeys(
        (
            "cudnn_conv1d_pad_to_nc1d",
            "cudnn_conv_use_max_workspace",
            "do_copy_in_default_stream",
            "enable_skip_layer_norm_strict_mode",
            "fuse_conv_bias",
            "prefer_nhwc",
            "tunable_op_enable",
            "tunable_op_tuning_enable",
            "use_ep_level_unified_stream",
            "use_tf32",
        ),
        _SWITCH,
    ),
}
"""Parameters of the accelerator `cuda`."""

CUDA_DEFAULTS: Options = MappingProxyType(
    {
        # The exhaustive search runs for every new shape, and a batch has a new shape whenever its size is new.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Powers of two leave up to half of the memory unused, which other models could have.
        "arena_extend_strategy": "kSameAsRequested",
    }
)

TENSORRT_OPTIONS: dict[str, Form] = {
    "precision_mode": Form("FP32|FP16|BF16|INT8", "FP32, FP16, BF16 or INT8"),
    "max_workspace_size_bytes": _NUMBER,
    "trt_tactic_sources": _NAMES,
    "trt_op_types_to_exclude": _NAMES,
    "trt_profile_min_shapes": _SHAPES,
    "trt_profile_max_shapes": _SHAPES,
    "trt_profile_opt_shapes": _SHAPES,
    **dict.fromkeys(
        (
            "trt_auxiliary_streams",
            "trt_builder_optimization_level",
            "trt_dla_core",
            "trt_max_partition_iterations",
            "trt_min_subgraph_size",
        ),
        _NUMBER,
    ),
    **dict.fromkeys(
        (
            "trt_build_heuristics_enable",
            "trt_context_memory_sharing_enable",
            "trt_detailed_build_log",
            "trt_dla_enable",
            "trt_engine_cache_enable",
            "trt_force_sequential_engine_build",
            "trt_force_timing_cache",
            "trt_layer_norm_fp32_fallback",
            "trt_sparsity_enable",
            "trt_timing_cache_enable",
        ),
        _SWITCH,
    ),
}
"""Parameters of the accelerator `tensorrt`."""

_ACCELERATORS = {"cuda": CUDA_OPTIONS, "tensorrt": TENSORRT_OPTIONS}
_PRECISIONS: dict[str, Options] = {
    "FP32": {},
    "FP16": {"trt_fp16_enable": "1"},
    "BF16": {"trt_bf16_enable": "1"},
    "INT8": {"trt_int8_enable": "1"},
}


def read_accelerators(message: pb.ModelConfig) -> tuple[Accelerator, ...]:
    """The GPU accelerators that a configuration asks for. Raises FieldInvalid."""
    found: list[Accelerator] = []
    for index, accelerator in enumerate(message.optimization.execution_accelerators.gpu_execution_accelerator):
        name, field = accelerator.name, f"{_FIELD}[{index}]"
        known = _ACCELERATORS.get(name)
        if known is None:
            raise FieldInvalid(f"{field}.name", f"is '{name}'; this server knows cuda and tensorrt")
        if any(other.name == name for other in found):
            raise FieldInvalid(f"{field}.name", f"is '{name}', which is given twice; keep one of them")
        for key, value in sorted(accelerator.parameters.items()):
            form = known.get(key)
            if form is None:
                names = ", ".join(sorted(known))
                raise FieldInvalid(f"{field}.parameters['{key}']", f"is not supported for {name}; it knows: {names}")
            if not form.accepts(value):
                raise FieldInvalid(f"{field}.parameters['{key}']", f"must be {form.text}, not '{value}'")
        found.append(Accelerator(name, MappingProxyType(dict(sorted(accelerator.parameters.items())))))
    return tuple(found)


def check_graphs(parameters: Mapping[str, str], instances: int) -> None:
    """Raise FieldInvalid for a parameter that cannot go with `optimization.cuda.graphs`."""
    asked = []
    if instances > 1 and parameters.get("share_session") == "true":
        asked.append("share_session")  # a session records on one stream, for one thread
    if SHRINKAGE in parameters:
        asked.append(SHRINKAGE)  # a recording goes on using the memory that its arena would give back
    for key in asked:
        raise FieldInvalid(f"parameters['{key}']", "cannot go with optimization.cuda.graphs; remove one of them")


def execution_providers(settings: LoadSettings, device: int | None) -> tuple[tuple[str, Options], ...]:
    """The providers of a session on a GPU, or on the CPU where `device` is None, the first one preferred."""
    if device is None:
        return ((CPU, {}),)
    given = {accelerator.name: accelerator.parameters for accelerator in settings.accelerators}
    providers: list[tuple[str, Options]] = []
    if "tensorrt" in given:
        providers.append((TENSORRT, {"device_id": str(device), **_tensorrt(given["tensorrt"])}))
    older = _older(settings.parameters)
    providers.append((CUDA, {"device_id": str(device), **CUDA_DEFAULTS, **older, **_plain(given.get("cuda", {}))}))
    if settings.cuda_graphs:  # of the one that runs the whole graph: others cannot be part of a capture
        name, options = providers[0]
        switch = "trt_cuda_graph_enable" if name == TENSORRT else "enable_cuda_graph"
        providers[0] = name, {**options, switch: "1"}
    if settings.parameters.get("session.disable_cpu_ep_fallback") != "1":  # which ONNX Runtime refuses beside it
        providers.append((CPU, {}))
    return tuple(providers)


def _tensorrt(parameters: Options) -> dict[str, str]:
    options = _plain(parameters)
    options |= _PRECISIONS[options.pop("precision_mode", "FP32")]
    if "max_workspace_size_bytes" in options:
        options["trt_max_workspace_size"] = options.pop("max_workspace_size_bytes")
    return options


def _plain(parameters: Options) -> dict[str, str]:
    """Switches as 0 and 1, which every provider understands."""
    words = {"true": "1", "false": "0"}
    return {key: words.get(value.lower(), value) for key, value in parameters.items()}


def _older(parameters: Options) -> dict[str, str]:
    """Triton's parameters from before `cuda` was an accelerator; some are numbers that stand for words."""
    return {
        key: words[int(parameters[key])] if words else parameters[key]
        for key, words in OLDER_CUDA_PARAMETERS.items()
        if key in parameters
    }
