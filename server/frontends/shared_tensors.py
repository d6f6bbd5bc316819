"""Tensors in shared memory, in the words of the wire (Triton's shared memory extensions, for both protocols)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proto import grpc_service_pb2 as pb
from server.errors import InvalidRequest
from server.messages import InferenceResponse, OutputTensor, SharedPlace, SharedPlaces
from server.tensors import BYTES, Array, Buffer, Stored, encode_bytes_elements

REGION, OFFSET, BYTE_SIZE = "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"

KINDS = {REGION: "string_param", OFFSET: "int64_param", BYTE_SIZE: "int64_param"}
"""Parameters of tensors in shared memory, and the kind of value that each must have. The offset may be missing."""


def shared_places(wire: pb.ModelInferRequest) -> SharedPlaces | None:
    """Where those tensors of a request lie that its caller has in shared memory; None where there are none.

    Raises `InvalidRequest`.
    """
    inputs: list[SharedPlace | None] = []
    for tensor in wire.inputs:
        place = _place(tensor.parameters, f"input '{tensor.name}'") if tensor.parameters else None
        if place is not None and tensor.HasField("contents"):
            raise InvalidRequest(
                f"unexpected explicit tensor data for input tensor '{tensor.name}' for model '{wire.model_name}', it "
                "is in shared memory."
            )
        inputs.append(place)
    outputs: list[tuple[str, SharedPlace]] = []
    for output in wire.outputs:
        place = _place(output.parameters, f"output '{output.name}'") if output.parameters else None
        if place is None:
            continue
        if "classification" in output.parameters:
            raise InvalidRequest(f"shared memory can't be set on classification output '{output.name}'")
        outputs.append((output.name, place))
    if outputs or any(place is not None for place in inputs):
        return SharedPlaces(tuple(inputs), tuple(outputs))
    return None


def beside_shared(
    model_name: str, raw: Sequence[memoryview], places: Sequence[SharedPlace | None]
) -> list[Buffer | Array | Stored | None]:
    """The contents of each input. Raw contents are for those, in their order, that are not in shared memory."""
    missing = places.count(None)
    if len(raw) > missing:
        raise InvalidRequest(
            f"the request for model '{model_name}' has {missing} inputs that are not in shared memory, "
            f"but raw_input_contents for {len(raw)}"
        )
    contents = iter(raw)
    return [next(contents, None) if place is None else None for place in places]


def encode_with_places(response: InferenceResponse) -> bytes:
    """A ModelInferResponse some of whose outputs are in shared memory: they say where, and have empty raw contents."""
    message = pb.ModelInferResponse(
        model_name=response.model_name, model_version=response.model_version, id=response.request_id
    )
    for tensor, place in zip(response.outputs, response.places, strict=True):
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype.name, shape=tensor.shape)
        if place is None:
            message.raw_output_contents.append(_raw(tensor))
            continue
        for key, value in place_parameters(place).items():
            if isinstance(value, str):
                output.parameters[key].string_param = value
            else:
                output.parameters[key].int64_param = value
        message.raw_output_contents.append(b"")
    return message.SerializeToString()


def place_parameters(place: SharedPlace) -> dict[str, str | int]:
    """What an answer says of an output in shared memory. An offset of 0 goes without saying."""
    offset = {OFFSET: place.offset} if place.offset else {}
    return {REGION: place.region, **offset, BYTE_SIZE: place.byte_size}


def _place(parameters: Mapping[str, pb.InferParameter], tensor: str) -> SharedPlace | None:
    given = {key: parameters[key] for key in KINDS if key in parameters}
    if not given:
        return None
    for key, parameter in given.items():
        if parameter.WhichOneof("parameter_choice") != KINDS[key]:
            raise InvalidRequest(f"invalid value type for '{key}' parameter of {tensor}, expected {KINDS[key]}.")
    for key in (REGION, BYTE_SIZE):
        if key not in given:
            raise InvalidRequest(f"{tensor} has no '{key}' parameter, which shared memory needs")
    offset = given[OFFSET].int64_param if OFFSET in given else 0
    return SharedPlace(given[REGION].string_param, offset, given[BYTE_SIZE].int64_param)


def _raw(tensor: OutputTensor) -> bytes:
    return encode_bytes_elements(tensor.data) if tensor.datatype is BYTES else tensor.data.tobytes()
