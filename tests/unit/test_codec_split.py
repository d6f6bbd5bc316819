"""Requests are taken apart without protobuf: whatever protobuf reads in any bytes, the codec must read too."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from proto import grpc_service_pb2 as pb
from server.errors import InvalidRequest, Unsupported
from server.frontends.codec import REMEMBERED_HEAD_BYTES, decode_infer_request
from server.messages import InferenceRequest


def field(number: int, contents: bytes) -> bytes:
    """A length-delimited field, by protobuf's encoding guide."""
    return varint(number << 3 | 2) + varint(len(contents)) + contents


def varint(value: int) -> bytes:
    encoded = b""
    while value >= 0x80:
        encoded += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return encoded + bytes((value,))


INPUT = pb.ModelInferRequest.InferInputTensor(name="x", datatype="UINT8", shape=[3]).SerializeToString()
OUTPUT = pb.ModelInferRequest.InferRequestedOutputTensor(name="y").SerializeToString()

PIECES = st.one_of(
    st.text(max_size=4).map(lambda text: field(1, text.encode())),  # model_name
    st.text(max_size=4).map(lambda text: field(2, text.encode())),  # model_version
    st.text(max_size=200).map(lambda text: field(3, text.encode())),  # id
    st.just(field(5, INPUT)),
    st.just(field(6, OUTPUT)),
    st.binary(max_size=300).map(lambda data: field(7, data)),  # raw_input_contents
    st.integers(0, 2**64 - 1).map(lambda number: varint(90 << 3) + varint(number)),  # unknown varint
    st.just(varint(91 << 3 | 1) + bytes(8)),  # unknown fixed64
    st.just(varint(92 << 3 | 5) + bytes(4)),  # unknown fixed32
    st.binary(max_size=9).map(lambda data: field(93, data)),  # unknown bytes
)


def decode(message: bytes) -> InferenceRequest | None:
    """None where it is refused. Twice, because the codec remembers how messages began."""
    first, second = _decode(message), _decode(message)
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert _plain(first) == _plain(second)
    return second


def _decode(message: bytes) -> InferenceRequest | None:
    try:
        return decode_infer_request(message, inf)
    except (InvalidRequest, Unsupported):
        return None


def _plain(request: InferenceRequest) -> tuple[object, ...]:
    data = [b if b is None or isinstance(b, np.ndarray) else bytes(b) for b in request.buffers]
    head = (request.model_name, request.model_version, request.request_id, request.specs, request.outputs)
    return (*head, request.timeout_us, request.priority, data)


def assert_same(message: bytes, request: InferenceRequest) -> None:
    wire = pb.ModelInferRequest.FromString(message)
    assert (request.model_name, request.model_version, request.request_id) == (
        wire.model_name,
        wire.model_version,
        wire.id,
    )
    assert [(s.name, s.datatype, list(s.shape)) for s in request.specs] == [
        (t.name, t.datatype, list(t.shape)) for t in wire.inputs
    ]
    assert [output.name for output in request.outputs] == [output.name for output in wire.outputs]
    raw = [bytes(data) for data in request.buffers if data is not None and not isinstance(data, np.ndarray)]
    if wire.raw_input_contents:
        assert raw == list(wire.raw_input_contents)


@given(st.lists(PIECES, max_size=8))
def test_fields_in_any_order_and_number_are_read_as_protobuf_reads_them(pieces: list[bytes]) -> None:
    message = b"".join(pieces)
    wire = pb.ModelInferRequest.FromString(message)
    request = decode(message)
    if len(wire.raw_input_contents) > len(wire.inputs):
        assert request is None
    else:
        assert request is not None
        assert_same(message, request)


@given(st.lists(PIECES, min_size=1, max_size=5), st.data())
def test_a_damaged_message_is_refused_or_read_as_protobuf_reads_it(pieces: list[bytes], data: st.DataObject) -> None:
    message = bytearray(b"".join(pieces))
    position = data.draw(st.integers(0, len(message) - 1))
    message[position] = data.draw(st.integers(0, 255))
    damaged = bytes(message[: data.draw(st.integers(0, len(message)))])
    request = decode(damaged)
    if request is not None:
        assert_same(damaged, request)


@given(st.lists(PIECES, max_size=5), st.data())
def test_what_protobuf_refuses_is_refused(pieces: list[bytes], data: st.DataObject) -> None:
    message = b"".join(pieces)
    cut = message[: data.draw(st.integers(0, len(message)))]
    try:
        pb.ModelInferRequest.FromString(cut)
    except DecodeError:
        assert decode(cut) is None


REFUSED = {
    "a cut tag": b"\xba",
    "a cut length": b"\x3a\x80",
    "a cut field": b"\x3a\x05ab",
    "a cut number": varint(90 << 3) + b"\xff",
    "a cut fixed64": varint(91 << 3 | 1) + bytes(7),
    "a cut fixed32": varint(92 << 3 | 5) + bytes(3),
    "a number of 11 bytes": varint(90 << 3) + b"\x80" * 10 + b"\1",
    "a length beyond any memory": b"\x3a" + b"\xff" * 9 + b"\1",
    "an end of a group": b"\x3c",
    "an unknown wire type": b"\x3e",
    "an id that is not UTF-8": b"\x1a\x01\xff",
    "a field number of zero": b"\x02\x00",
}


@pytest.mark.parametrize("message", REFUSED.values(), ids=REFUSED)
def test_a_broken_field_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the message is not a ModelInferRequest"):
        decode_infer_request(field(1, b"m") + message, inf)


def test_the_last_of_several_ids_counts() -> None:
    request = decode(field(3, b"first") + field(3, b"second"))
    assert request is not None
    assert request.request_id == "second"


def test_a_field_whose_tag_is_written_in_too_many_bytes_is_read() -> None:
    request = decode(field(5, INPUT) + b"\xba\x00\x03abc")  # field 7
    assert request is not None
    assert request.buffers == (b"abc",)


@pytest.mark.parametrize(
    "after", [field(3, b""), field(1, b"m"), varint(90 << 3) + b"\0"], ids=["id", "name", "unknown"]
)
def test_raw_contents_need_not_come_last(after: bytes) -> None:
    request = decode(field(5, INPUT) + field(7, b"abc") + after)
    assert request is not None
    assert request.buffers == (b"abc",)


def test_messages_of_one_length_may_differ_in_their_beginning() -> None:
    requests = [decode(field(1, name) + field(5, INPUT) + field(7, b"abc")) for name in (b"a", b"b", b"a")]
    assert [request.model_name for request in requests if request] == ["a", "b", "a"]


def test_raw_contents_are_views_of_the_message() -> None:
    message = field(5, INPUT) + field(7, b"abc")
    [data] = decode_infer_request(message, inf).buffers
    assert isinstance(data, memoryview)
    assert data.obj is message


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_a_message_may_be_any_buffer(kind: type) -> None:
    request = decode(kind(field(1, b"m") + field(3, b"r") + field(5, INPUT) + field(7, b"abc")))
    assert request is not None
    assert (request.model_name, request.request_id, request.buffers) == ("m", "r", (b"abc",))


def test_requests_that_differ_in_id_and_data_only_are_told_apart() -> None:
    requests = [decode(field(5, INPUT) + field(3, name) + field(7, name * 3)) for name in (b"a", b"b")]
    assert [(r.request_id, r.buffers) for r in requests if r] == [("a", (b"aaa",)), ("b", (b"bbb",))]


@pytest.mark.parametrize("size", [REMEMBERED_HEAD_BYTES - 200, REMEMBERED_HEAD_BYTES + 200])
def test_a_head_of_any_size_is_read(size: int) -> None:
    name = "m" * size
    message = pb.ModelInferRequest(model_name=name, raw_input_contents=[b"abc"])
    message.inputs.add(name="x", datatype="UINT8", shape=[3])
    for _ in range(2):
        request = decode(message.SerializeToString())
        assert request is not None
        assert (request.model_name, request.buffers) == (name, (b"abc",))


def test_a_refused_head_is_refused_again() -> None:
    message = pb.ModelInferRequest(raw_input_contents=[b"abc"])
    message.inputs.add(name="x", datatype="UINT8", shape=[3])
    message.parameters["timeout"].string_param = "soon"
    assert [decode(message.SerializeToString()) for _ in range(2)] == [None, None]
