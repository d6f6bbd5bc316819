"""One request in four encodings: raw and typed over gRPC, JSON and binary over HTTP. It must not matter which."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from proto import grpc_service_pb2 as pb
from server.frontends.calls import StatusCode, UnaryMethod
from server.frontends.codec import TYPED_FIELDS
from server.frontends.inference_service import SERVICE
from server.frontends.rest.infer_codec import HEADER_LENGTH
from server.tensors import DATATYPES, encode_bytes_elements
from tests.fakes import FakeCall
from tests.fuzz.serving import CONFIGS, FuzzedServer, Taken, as_array
from tests.unit.http_peer import Peer

SERVER = FuzzedServer()
MODELS = {config.name: config for config in CONFIGS if config.preprocessing is None}
RAW_ONLY = frozenset({"FP16", "BF16"})
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@dataclass
class Tensor:
    """One input of a request."""

    name: str
    datatype: str
    values: np.ndarray[Any, Any]
    """BYTES as text."""

    @property
    def raw(self) -> bytes:
        return encode_bytes_elements(self.values) if self.datatype == "BYTES" else self.values.tobytes()


@dataclass
class Request:
    """What a caller means."""

    model: str
    tensors: list[Tensor]
    request_id: str
    parameters: dict[str, Any]
    outputs: list[str]


@st.composite
def requests(draw: st.DrawFn) -> Request:
    config = MODELS[draw(st.sampled_from(sorted(MODELS)))]
    rows = draw(st.integers(1, config.max_batch_size)) if config.max_batch_size else None
    tensors = []
    for tensor in config.inputs:
        dims = tuple(draw(st.integers(1, 3)) if dim < 0 else dim for dim in tensor.dims)
        shape = dims if rows is None else (rows, *dims)
        if tensor.datatype.name == "BYTES":
            values = draw(npst.arrays(object, shape, elements=TEXTS))
        else:
            floats = tensor.datatype.name.startswith("FP")
            elements = {"allow_nan": False, "allow_infinity": False} if floats else None
            values = draw(npst.arrays(tensor.datatype.dtype, shape, elements=elements))
        tensors.append(Tensor(tensor.name, tensor.datatype.name, values))
    order = draw(st.permutations(tensors))
    parameters: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "timeout": st.integers(0, 2**62),
                "priority": st.integers(0, 9),
                "sequence_id": st.integers(1, 2**64 - 1) | st.text("abc", min_size=1),
                "sequence_start": st.booleans(),
                "own": st.floats(allow_nan=False) | st.booleans() | TEXTS,
            },
        )
    )
    outputs = draw(st.lists(st.sampled_from([f"{tensor.name}_out" for tensor in config.inputs]), unique=True))
    return Request(config.name, list(order), draw(st.text("xyz-", max_size=4)), parameters, outputs)


def message(asked: Request, *, typed: bool) -> bytes:
    wire = pb.ModelInferRequest(model_name=asked.model, id=asked.request_id)
    for name, value in asked.parameters.items():
        match value:
            case bool():
                wire.parameters[name].bool_param = value
            case int() if value < 2**63:
                wire.parameters[name].int64_param = value
            case int():
                wire.parameters[name].uint64_param = value
            case float():
                wire.parameters[name].double_param = value
            case _:
                wire.parameters[name].string_param = value
    for tensor in asked.tensors:
        field = wire.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.values.shape)
        if typed:
            values = [v.encode() if isinstance(v, str) else v.item() for v in tensor.values.reshape(-1)]
            getattr(field.contents, TYPED_FIELDS[tensor.datatype]).extend(values)
        else:
            wire.raw_input_contents.append(tensor.raw)
    for name in asked.outputs:
        wire.outputs.add(name=name)
    return wire.SerializeToString()


def over_grpc(asked: Request, *, typed: bool) -> dict[str, bytes]:
    """The answer's outputs, raw, by name."""
    method = SERVER.methods[f"/{SERVICE}/ModelInfer"]
    assert isinstance(method, UnaryMethod)
    call = FakeCall()
    method.handle(call, message(asked, typed=typed))
    assert call.status is StatusCode.OK, call.message
    answer = pb.ModelInferResponse.FromString(call.sent[0])
    assert answer.id == asked.request_id
    return dict(zip([output.name for output in answer.outputs], answer.raw_output_contents, strict=True))


def over_http(asked: Request, *, binary: bool) -> dict[str, bytes]:
    """The answer's outputs, raw, by name."""
    inputs: list[dict[str, Any]] = []
    for tensor in asked.tensors:
        described: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.values.shape}
        if binary:
            described["parameters"] = {"binary_data_size": len(tensor.raw)}
        else:
            described["data"] = tensor.values.tolist()
        inputs.append(described)
    parameters = asked.parameters | ({"binary_data_output": True} if binary else {})
    said: dict[str, Any] = {"inputs": inputs, "parameters": parameters, "id": asked.request_id}
    said["outputs"] = [{"name": name} for name in asked.outputs]
    text = json.dumps(said).encode()
    contents = b"".join(tensor.raw for tensor in asked.tensors) if binary else b""
    length = {HEADER_LENGTH.replace("-", "_"): str(len(text))} if binary else {}
    answer = Peer(SERVER.routes()).ask("POST", f"/v2/models/{asked.model}/infer", text + contents, **length)
    assert answer.status == 200, answer.body
    length_of_answer = int(answer.headers.get(HEADER_LENGTH.lower(), len(answer.body)))
    told, rest = json.loads(answer.body[:length_of_answer]), answer.body[length_of_answer:]
    assert told.get("id", "") == asked.request_id
    outputs: dict[str, bytes] = {}
    for output in told["outputs"]:
        if binary:
            size = output["parameters"]["binary_data_size"]
            outputs[output["name"]], rest = rest[:size], rest[size:]
        else:
            dtype = DATATYPES[output["datatype"]].dtype
            values = np.array(output["data"], dtype)
            outputs[output["name"]] = encode_bytes_elements(values) if dtype.hasobject else values.tobytes()
    assert not rest
    return outputs


def engine_request() -> tuple[Any, ...]:
    """What reached the model: everything about it."""
    taken: Taken
    (taken,) = SERVER.taken()
    request, layouts = taken.request, taken.plan.layout.inputs
    contents = [
        (layout.name, layout.row_shape, as_array(layout.datatype, data).tobytes() if layout.row_bytes else list(data))
        for layout, data in zip(layouts, taken.inputs, strict=True)
    ]
    told = (request.model_name, request.request_id, request.specs, request.outputs)
    return (*told, request.timeout_us, request.priority, request.sequence, taken.plan.rows, contents)


@given(requests())
def test_a_request_is_the_same_in_every_encoding_and_so_is_its_answer(asked: Request) -> None:
    ways = [lambda: over_grpc(asked, typed=False), lambda: over_http(asked, binary=True)]
    if not any(tensor.datatype in RAW_ONLY for tensor in asked.tensors):
        ways += [lambda: over_grpc(asked, typed=True), lambda: over_http(asked, binary=False)]
    seen = []
    for way in ways:
        SERVER.forget()
        answer = way()
        seen.append((engine_request(), answer))
    assert all(other == seen[0] for other in seen)
    wanted = asked.outputs or [f"{tensor.name}_out" for tensor in asked.tensors]
    raw = {f"{tensor.name}_out": tensor.raw for tensor in asked.tensors}
    assert seen[0][1] == {name: raw[name] for name in wanted}
