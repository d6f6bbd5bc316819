"""config.pbtxt's sequence_batching: strategies, controls and states, and what the graph must have for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from proto import model_config_pb2 as pb
from server import tensors
from server.backends.base import GraphTensor
from server.errors import ConfigInvalid, LoadFailed
from server.models.config import ModelConfig, TensorConfig, complete, parse
from server.models.config_types import ControlConfig, ControlKind, SequenceBatching
from server.tensors import BOOL, BYTES, FP32, INT32, UINT64
from tests.unit.test_config import labels

X = GraphTensor("x", FP32, (-1, 4))
Y = GraphTensor("y", FP32, (-1, 2))
START = GraphTensor("start", INT32, (-1, 1))
S_IN = GraphTensor("s_in", FP32, (-1, 3))
S_OUT = GraphTensor("s_out", FP32, (-1, 3))

FILES = {"three.bin": np.array([1, 2, 3], np.float32).tobytes(), "texts.bin": b"\1\0\0\0a\2\0\0\0bc"}


def initial_state(filename: str, most_bytes: int) -> bytes:
    if filename not in FILES:
        raise LoadFailed(f"{filename}: no such file")
    return FILES[filename]


def configure(text: str, *more: GraphTensor, outputs: tuple[GraphTensor, ...] = (Y,)) -> ModelConfig:
    return complete(
        parse(text, "m/config.pbtxt"),
        folder_name="m",
        source="m/config.pbtxt",
        inputs=(X, *more),
        outputs=outputs,
        labels=labels,
        initial_state=initial_state,
    )


def sequence(text: str, *more: GraphTensor, max_batch_size: int = 8, **graph: Any) -> SequenceBatching:
    config = configure(f"max_batch_size: {max_batch_size} sequence_batching {{ {text} }}", *more, **graph)
    assert config.sequence is not None
    return config.sequence


def control(kind: str, values: str) -> str:
    return f'control_input {{ name: "start" control {{ kind: CONTROL_SEQUENCE_{kind} {values} }} }}'


def state(more: str = "", *, datatype: str = "FP32", dims: str = "3") -> str:
    return f'state {{ input_name: "s_in" output_name: "s_out" data_type: TYPE_{datatype} dims: [ {dims} ] {more} }}'


def test_without_a_strategy_it_is_direct_with_a_slot_for_each_row() -> None:
    assert sequence("") == SequenceBatching(1_000_000, (), (), slots=8, fixed_slots=True, min_ready=1)


def test_the_served_configuration_has_the_defaults_filled_in() -> None:
    config = configure("max_batch_size: 8 sequence_batching { oldest { } }")
    served = pb.ModelConfig.FromString(config.serialized).sequence_batching
    assert served.max_sequence_idle_microseconds == 1_000_000
    assert served.oldest.max_candidate_sequences == 8


@pytest.mark.parametrize(
    ("text", "min_ready"), [("0.5", 4), ("0.51", 5), ("1", 8), ("0.125", 1), ("0.375", 3), ("0", 1)]
)
def test_a_share_of_slots_is_a_number_of_requests(text: str, min_ready: int) -> None:
    strategy = f"direct {{ minimum_slot_utilization: {text} max_queue_delay_microseconds: 70 }}"
    batching = sequence(strategy)
    assert (batching.min_ready, batching.max_queue_delay_us) == (min_ready, 70)


def test_a_share_is_no_request_more_for_what_floating_point_makes_of_it() -> None:
    assert sequence("direct { minimum_slot_utilization: 0.2 }", max_batch_size=10).min_ready == 2


def test_oldest_is_read() -> None:
    batching = sequence(
        "max_sequence_idle_microseconds: 5 oldest { max_candidate_sequences: 20 preferred_batch_size: [ 4, 2 ] "
        "max_queue_delay_microseconds: 60 preserve_ordering: true }"
    )
    assert batching == SequenceBatching(
        5, (), (), 20, fixed_slots=False, max_queue_delay_us=60, preferred_batch_sizes=(4, 2), preserve_ordering=True
    )


CONTROLS: dict[str, tuple[str, str, tensors.DataType, tuple[float, ...]]] = {
    "int32": ("START", "int32_false_true: [ 3, 4 ]", INT32, (3, 4)),
    "fp32": ("END", "fp32_false_true: [ 0, 0.5 ]", FP32, (0, 0.5)),
    "bool": ("READY", "bool_false_true: [ false, true ]", BOOL, (False, True)),
    "number": ("CORRID", "data_type: TYPE_UINT64", UINT64, ()),
    "text": ("CORRID", "data_type: TYPE_STRING", BYTES, ()),
}


@pytest.mark.parametrize(("kind", "values", "datatype", "false_true"), CONTROLS.values(), ids=CONTROLS)
@pytest.mark.parametrize("max_batch_size", [8, 0])
def test_a_control_is_an_input_that_is_none_of_the_callers(
    kind: str, values: str, datatype: tensors.DataType, false_true: tuple[float, ...], max_batch_size: int
) -> None:
    shapes = {0: (4,), 8: (-1, 4)}
    batched = (-1,) if max_batch_size else ()
    config = complete(
        parse(f"max_batch_size: {max_batch_size} sequence_batching {{ {control(kind, values)} }}", "s"),
        folder_name="m",
        source="s",
        inputs=[GraphTensor("x", FP32, shapes[max_batch_size]), GraphTensor("start", datatype, (*batched, 1))],
        outputs=[GraphTensor("y", FP32, (*batched, 2))],
        labels=labels,
        initial_state=initial_state,
    )
    assert config.sequence is not None
    (read,) = config.sequence.controls
    assert read == ControlConfig(
        TensorConfig("start", datatype, (1,)), ControlKind(f"CONTROL_SEQUENCE_{kind}"), pytest.approx(false_true)
    )
    assert [tensor.name for tensor in config.inputs] == ["x"]


def test_a_state_is_kept_from_the_callers_and_may_be_shown_to_them() -> None:
    text = f"max_batch_size: 8 sequence_batching {{ {state()} }}"
    config = configure(text, S_IN, outputs=(Y, S_OUT))
    assert [tensor.name for tensor in (*config.inputs, *config.outputs)] == ["x", "y"]
    shown = "".join(
        f'output {{ name: "{name}" data_type: TYPE_FP32 dims: [ {size} ] }}' for name, size in (("y", 2), ("s_out", 3))
    )
    config = configure(text + shown, S_IN, outputs=(Y, S_OUT))
    assert [tensor.name for tensor in config.outputs] == ["y", "s_out"]


INITIAL: dict[str, tuple[str, str, str, Any]] = {
    "nothing said": ("FP32", "3", "", [0, 0, 0]),
    "zeros": ("FP32", "3", "initial_state { data_type: TYPE_FP32 dims: [ 3 ] zero_data: true }", [0, 0, 0]),
    "a file": ("FP32", "3", 'initial_state { data_type: TYPE_FP32 dims: [ 3 ] data_file: "three.bin" }', [1, 2, 3]),
    "texts": (
        "STRING",
        "2",
        'initial_state { data_type: TYPE_STRING dims: [ 2 ] data_file: "texts.bin" }',
        ["a", "bc"],
    ),
    "no text": ("STRING", "2", "", ["", ""]),
    "one buffer": ("FP32", "3", "use_same_buffer_for_input_output: true", [0, 0, 0]),
}


@pytest.mark.parametrize(("datatype", "dims", "more", "expected"), INITIAL.values(), ids=INITIAL)
def test_what_a_state_begins_with_is_read(datatype: str, dims: str, more: str, expected: list[Any]) -> None:
    kind = BYTES if datatype == "STRING" else FP32
    s_in, s_out = (GraphTensor(name, kind, (-1, int(dims))) for name in ("s_in", "s_out"))
    batching = sequence(state(more, datatype=datatype, dims=dims), s_in, outputs=(Y, s_out))
    assert batching.states[0].initial.tolist() == expected


def test_a_state_that_grows_may_begin_with_nothing() -> None:
    text = state("initial_state { data_type: TYPE_FP32 dims: [ 0 ] zero_data: true }", dims="-1")
    s_in, s_out = (GraphTensor(name, FP32, (-1, -1)) for name in ("s_in", "s_out"))
    batching = sequence(text, s_in, outputs=(Y, s_out), max_batch_size=1)
    assert batching.states[0].initial.shape == (0,)


STATE = "'sequence_batching.state[0]"
CONTROL = "'sequence_batching.control_input[0]"
REFUSALS: dict[str, tuple[str, str]] = {
    "requests that come back": (
        "iterative_sequence: true",
        "'sequence_batching.iterative_sequence' is not supported by this server; remove it: a client that wants",
    ),
    "memory that grows": (
        state("use_growable_memory: true"),
        f"{STATE}.use_growable_memory' needs use_same_buffer_for_input_output: true; add it",
    ),
    "a share above one": (
        "direct { minimum_slot_utilization: 1.5 }",
        "'sequence_batching.direct.minimum_slot_utilization' must be 0 to 1, not 1.5",
    ),
    "a share below nothing": (
        "direct { minimum_slot_utilization: -1 }",
        "'sequence_batching.direct.minimum_slot_utilization' must be 0 to 1, not -1",
    ),
    "no candidate": (
        "oldest { max_candidate_sequences: -1 }",
        "'sequence_batching.oldest.max_candidate_sequences' must be at least 1, or 0 for the default, not -1",
    ),
    "a preferred size that is too large": (
        "oldest { preferred_batch_size: [ 9 ] }",
        "'sequence_batching.oldest.preferred_batch_size' must be 1 to max_batch_size, which is 8, not 9",
    ),
    "a control without a name": (
        "control_input { control { int32_false_true: [ 0, 1 ] } }",
        f"{CONTROL}.name' is missing",
    ),
    "two controls in one": (
        'control_input { name: "start" control { int32_false_true: [ 0, 1 ] } control { } }',
        f"{CONTROL}.control' must be one control, not 2",
    ),
    "no values": (control("START", ""), f"{CONTROL}.control' must have exactly one of int32_false_true, fp32"),
    "values of two types": (
        control("START", "int32_false_true: [ 0, 1 ] fp32_false_true: [ 0, 1 ]"),
        f"{CONTROL}.control' must have exactly one of",
    ),
    "one value": (
        control("START", "int32_false_true: [ 0 ]"),
        f"{CONTROL}.control.int32_false_true' must be two values, for false and for true, not 1",
    ),
    "a type beside values": (
        control("START", "int32_false_true: [ 0, 1 ] data_type: TYPE_INT32"),
        f"{CONTROL}.control.data_type' is for CONTROL_SEQUENCE_CORRID",
    ),
    "values of an id": (
        control("CORRID", "int32_false_true: [ 0, 1 ] data_type: TYPE_INT32"),
        f"{CONTROL}.control.int32_false_true' cannot go with CONTROL_SEQUENCE_CORRID",
    ),
    "an id of floating point": (
        control("CORRID", "data_type: TYPE_FP32"),
        f"{CONTROL}.control.data_type' must be TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 or TYPE_STRING",
    ),
    "a control twice": (
        f"{control('START', 'int32_false_true: [ 0, 1 ]')} {control('START', 'int32_false_true: [ 0, 1 ]')}",
        "'sequence_batching.control_input[1].control.kind' CONTROL_SEQUENCE_START is given twice",
    ),
    "a state without an output": (
        'state { input_name: "s_in" data_type: TYPE_FP32 dims: [ 3 ] }',
        f"{STATE}.output_name' is missing",
    ),
    "a state twice": (
        f"{state()} {state()}",
        "'sequence_batching.state[1]' has the input_name or output_name of another",
    ),
    "a state without a type": (
        'state { input_name: "s_in" output_name: "s_out" dims: [ 3 ] }',
        f"{STATE}.data_type' is missing",
    ),
    "a state without a shape": (
        'state { input_name: "s_in" output_name: "s_out" data_type: TYPE_FP32 }',
        f"{STATE}.dims' is missing",
    ),
    "a state of nothing": (state(dims="0"), f"{STATE}.dims' must hold sizes of at least 1, or -1 for any size, not 0"),
    "states of any size in a batch": (
        state(dims="-1"),
        f"{STATE}.dims' may be -1 only with max_batch_size 0 or 1, not 8",
    ),
    "two beginnings": (
        state("initial_state { } initial_state { }"),
        f"{STATE}.initial_state' must be given at most once, not 2 times",
    ),
    "a beginning of another type": (
        state("initial_state { data_type: TYPE_INT32 dims: [ 3 ] zero_data: true }"),
        f"{STATE}.initial_state.data_type' must be that of the state, TYPE_FP32",
    ),
    "a beginning of another shape": (
        state("initial_state { data_type: TYPE_FP32 dims: [ 4 ] zero_data: true }"),
        f"{STATE}.initial_state.dims' must be sizes that fit the state's dims, [3], not [4]",
    ),
    "a beginning without data": (
        state("initial_state { data_type: TYPE_FP32 dims: [ 3 ] }"),
        f"{STATE}.initial_state' has no data; give one of zero_data and data_file",
    ),
    "zeros that are none": (
        state("initial_state { data_type: TYPE_FP32 dims: [ 3 ] zero_data: false }"),
        f"{STATE}.initial_state.zero_data' must be true",
    ),
    "a file that is not there": (
        state('initial_state { data_type: TYPE_FP32 dims: [ 3 ] data_file: "none.bin" }'),
        f"{STATE}.initial_state.data_file' cannot be used: none.bin: no such file",
    ),
    "a file of another size": (
        state('initial_state { data_type: TYPE_FP32 dims: [ 3 ] data_file: "texts.bin" }'),
        f"{STATE}.initial_state.data_file' cannot be used: 'texts.bin' has 11 bytes, but FP32 [3] takes 12",
    ),
    "zeros that no machine has": (
        state(dims="4611686018427387904"),
        "'sequence_batching.state' may take 140737488355328 MiB for 8 sequences",
    ),
    "texts that no machine has": (
        state(datatype="STRING", dims="2147483648"),
        "'sequence_batching.state' may take 1048576 MiB for 8 sequences",
    ),
    "a beginning that no machine has": (
        state("initial_state { data_type: TYPE_FP32 dims: [ 3000000000000 ] zero_data: true }", dims="-1"),
        "'sequence_batching.state' may take 91552734 MiB for 8 sequences",
    ),
    "a state of too many dimensions": (
        state(dims=", ".join(["1"] * 65)),
        f"{STATE}.dims' may have 64 sizes, not 65",
    ),
    "a control of no kind": (
        'control_input { name: "start" control { kind: 18 int32_false_true: [ 0, 1 ] } }',
        "'sequence_batching.control_input.control.kind' is 18, which stands for nothing",
    ),
    "more than a machine has": (
        f"oldest {{ max_candidate_sequences: 1000000 }} {state(dims='5000')}",
        "'sequence_batching.state' may take 19073 MiB for 1000000 sequences at a time, more than 16384",
    ),
    "more sequences than can be meant": (
        "oldest { max_candidate_sequences: 2000000000 }",
        "'sequence_batching.oldest.max_candidate_sequences' comes to 2000000000 sequences at a time, and 1048576 are",
    ),
    "a giant beginning": (
        state(dims="500000000"),
        "'sequence_batching.state[0].initial_state' takes 2000000000 bytes, and 1073741824 are allowed",
    ),
    "a beginning of very many texts": (
        state(datatype="STRING", dims="25000000"),
        "'sequence_batching.state[0].initial_state' takes 1600000000 bytes, and 1073741824 are allowed",
    ),
}


@pytest.mark.parametrize(("text", "problem"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_is_refused_with_its_field(text: str, problem: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        sequence(text, START, S_IN, outputs=(Y, S_OUT))
    assert str(caught.value).startswith(f"m/config.pbtxt: field {problem}")


@pytest.mark.parametrize("growable", ["", "use_growable_memory: true"])
def test_what_is_said_about_a_states_memory_changes_nothing(growable: str) -> None:
    text = state(f"use_same_buffer_for_input_output: true {growable}", dims="-1")
    s_in, s_out = (GraphTensor(name, FP32, (-1, -1)) for name in ("s_in", "s_out"))
    said, unsaid = (sequence(each, s_in, outputs=(Y, s_out), max_batch_size=1) for each in (text, state(dims="-1")))
    assert (said.states[0].input, said.states[0].output) == (unsaid.states[0].input, unsaid.states[0].output)
    assert said.states[0].initial.tolist() == unsaid.states[0].initial.tolist() == [0]


def test_a_model_whose_states_have_all_its_dimensions_is_not_batched() -> None:
    s_in, s_out = (GraphTensor(name, FP32, (-1,)) for name in ("s_in", "s_out"))
    config = configure(f"sequence_batching {{ {state(dims='-1')} }}", s_in, outputs=(Y, s_out))
    assert config.max_batch_size == 0
    assert config.inputs[0].dims == (-1, 4)


def test_a_model_whose_states_have_rows_is_batched() -> None:
    assert configure(f"sequence_batching {{ {state()} }}", S_IN, outputs=(Y, S_OUT)).max_batch_size == 4


@pytest.mark.parametrize(("key", "value"), [("slo_ms", "30"), ("split_oversize", "true"), ("image.resize", "2")])
def test_sequences_cannot_go_with_parameters_that_decide_what_they_decide(key: str, value: str) -> None:
    parameter = f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
    with pytest.raises(ConfigInvalid, match=r"cannot go with sequence_batching"):
        configure(f"max_batch_size: 8 sequence_batching {{ }} {parameter}")


GRAPHS: dict[str, tuple[str, tuple[GraphTensor, ...], tuple[GraphTensor, ...], str]] = {
    "a control that the model has not": (
        control("START", "int32_false_true: [ 0, 1 ]"),
        (),
        (Y,),
        "unexpected inference input 'start', allowed inputs are: x",
    ),
    "a control of another type": (
        control("START", "fp32_false_true: [ 0, 1 ]"),
        (START,),
        (Y,),
        "tensor 'start': the model expects data-type INT32 but the model configuration specifies FP32",
    ),
    "a control of another shape": (
        control("START", "int32_false_true: [ 0, 1 ]"),
        (GraphTensor("start", INT32, (-1, 2)),),
        (Y,),
        "tensor 'start': the model expects shape [-1,2] but the model configuration specifies shape [-1,1]",
    ),
    "a state that is no input": (state(), (), (Y, S_OUT), "unexpected inference input 's_in'"),
    "a state that is no output": (state(), (S_IN,), (Y,), "unexpected inference output 's_out'"),
    "a state of another size": (state(dims="2"), (S_IN,), (Y, S_OUT), "tensor 's_in': the model expects shape [-1,3]"),
    "a name twice": (
        f"{control('START', 'int32_false_true: [ 0, 1 ]').replace('start', 's_in')} {state()}",
        (S_IN,),
        (Y, S_OUT),
        "'s_in'' names two of the inputs, controls and states",
    ),
}


@pytest.mark.parametrize(("text", "inputs", "outputs", "problem"), GRAPHS.values(), ids=GRAPHS)
def test_controls_and_states_are_checked_against_the_graph(
    text: str, inputs: tuple[GraphTensor, ...], outputs: tuple[GraphTensor, ...], problem: str
) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        sequence(text, *inputs, outputs=outputs)
    assert problem in str(caught.value)
