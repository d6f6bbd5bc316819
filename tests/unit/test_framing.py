"""Length-prefixed messages: framing, limits and compression, however the bytes are cut."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.frontends.calls import StatusCode
from server.frontends.compression import COMPRESSIONS, DEFLATE, GZIP, IDENTITY, Buffer, negotiate
from server.frontends.grpc.framing import MessageReader, frame, frame_prefix, unary_message
from server.frontends.grpc.wire import WireError

LIMIT = 100
SNAPPY = b"snappy"
ANOTHER = frame(b"another")


def framed(payload: bytes, flag: int = 1) -> bytes:
    return bytes([flag]) + len(payload).to_bytes(4, "big") + payload


def zipped(message: bytes) -> bytes:
    return gzip.compress(message, mtime=0)


def read(chunks: Iterable[Buffer], encoding: bytes) -> tuple[list[bytes], MessageReader]:
    reader = MessageReader(LIMIT, encoding)
    return [bytes(message) for chunk in chunks for message in reader.feed(chunk)], reader


def one_by_one(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def read_three_ways(data: bytes, encoding: bytes) -> list[bytes]:
    """Read whole, byte by byte and with trailing data; the answers must agree. Raises what reading whole raises."""
    messages, reader = read([data], encoding)
    slowly, slow_reader = read(one_by_one(data), encoding)
    assert slowly == messages
    for each in (reader, slow_reader):
        each.finish()
    for trailing in (ANOTHER, ANOTHER[:3], ANOTHER[:5], ANOTHER[:7]):
        complete = [b"another"] if trailing == ANOTHER else []
        for chunks in ([data + trailing], [data, trailing], one_by_one(data + trailing)):
            more, reader = read(chunks, encoding)
            assert more == [*messages, *complete]
            if not complete:
                with pytest.raises(WireError, match=f"ended {len(trailing)} bytes into") as raised:
                    reader.finish()
                assert raised.value.status is StatusCode.INTERNAL
    return messages


def refused_three_ways(data: bytes, encoding: bytes) -> WireError:
    """The error that all three ways of reading raise."""
    errors = []
    for chunks in ([data], one_by_one(data), [data + ANOTHER], [ANOTHER + data]):
        with pytest.raises(WireError) as raised:
            read(chunks, encoding)
        errors.append((raised.value.status, raised.value.message))
    assert len(set(errors)) == 1
    return raised.value


MESSAGES = [
    pytest.param(b"", IDENTITY, [], id="nothing"),
    pytest.param(framed(b"", 0), IDENTITY, [b""], id="an empty message"),
    pytest.param(framed(b"a", 0), IDENTITY, [b"a"], id="one byte"),
    pytest.param(framed(b"x" * LIMIT, 0), IDENTITY, [b"x" * LIMIT], id="as long as allowed"),
    pytest.param(
        framed(b"", 0) * 2 + framed(b"ab", 0) + framed(b"", 0), IDENTITY, [b"", b"", b"ab", b""], id="several"
    ),
    pytest.param(framed(b"plain", 0), GZIP, [b"plain"], id="plain under an encoding"),
    pytest.param(framed(b"plain", 0), SNAPPY, [b"plain"], id="plain under an unknown encoding"),
    pytest.param(framed(zipped(b"hello")), GZIP, [b"hello"], id="gzip"),
    pytest.param(framed(zlib.compress(b"hello")), DEFLATE, [b"hello"], id="deflate is the zlib format"),
    pytest.param(framed(zipped(b"")), GZIP, [b""], id="an empty message, compressed"),
    pytest.param(framed(b""), GZIP, [b""], id="no bytes under gzip, which core takes too"),
    pytest.param(framed(zipped(b"z" * LIMIT)), GZIP, [b"z" * LIMIT], id="inflates to the limit"),
    pytest.param(framed(zipped(b"a")) + framed(b"b", 0), GZIP, [b"a", b"b"], id="compressed and plain"),
]

REFUSED = [
    pytest.param(framed(b"", 2), IDENTITY, StatusCode.INTERNAL, "Bad GRPC frame type 0x02", id="flag 2"),
    pytest.param(framed(b"x", 255), GZIP, StatusCode.INTERNAL, "Bad GRPC frame type 0xff", id="flag 255"),
    pytest.param(
        frame_prefix(101),
        IDENTITY,
        StatusCode.RESOURCE_EXHAUSTED,
        "Received message larger than max (101 vs. 100)",
        id="one byte too long, refused at the prefix",
    ),
    pytest.param(
        frame_prefix(2**32 - 1, compressed=True),
        GZIP,
        StatusCode.RESOURCE_EXHAUSTED,
        "Received message larger than max (4294967295 vs. 100)",
        id="4 GiB declared",
    ),
    pytest.param(
        framed(b"x"), IDENTITY, StatusCode.INTERNAL, "Compression bit set but no encoding configured", id="no encoding"
    ),
    pytest.param(
        framed(b"x"),
        SNAPPY,
        StatusCode.UNIMPLEMENTED,
        "grpc-encoding 'snappy' is not supported; supported are identity,gzip,deflate",
        id="unknown encoding",
    ),
    pytest.param(framed(b"junk"), GZIP, StatusCode.INTERNAL, "Decompression failed due to data error", id="junk"),
    pytest.param(
        framed(zipped(b"hello")[:-1]),
        GZIP,
        StatusCode.INTERNAL,
        "Decompression failed due to truncated data",
        id="truncated",
    ),
    pytest.param(
        framed(zipped(b"hello")[:-8] + bytes(8)),
        GZIP,
        StatusCode.INTERNAL,
        "Decompression failed due to data error",
        id="wrong checksum",
    ),
    pytest.param(
        framed(zipped(b"a") * 2),
        GZIP,
        StatusCode.INTERNAL,
        "Decompression failed due to not all input consumed",
        id="two gzip members",
    ),
    pytest.param(
        framed(zlib.compress(b"hello")), GZIP, StatusCode.INTERNAL, "Decompression failed due to data error", id="zlib"
    ),
    pytest.param(
        framed(zipped(b"z" * (LIMIT + 1))),
        GZIP,
        StatusCode.RESOURCE_EXHAUSTED,
        "Decompressed message larger than max (100 bytes)",
        id="inflates to one byte too many",
    ),
]


@pytest.mark.parametrize(("data", "encoding", "messages"), MESSAGES)
def test_messages_come_out_however_they_are_cut(data: bytes, encoding: bytes, messages: list[bytes]) -> None:
    assert read_three_ways(data, encoding) == messages


@pytest.mark.parametrize(("data", "encoding", "status", "message"), REFUSED)
def test_bad_messages_are_refused_however_they_are_cut(
    data: bytes, encoding: bytes, status: StatusCode, message: str
) -> None:
    error = refused_three_ways(data, encoding)
    assert (error.status, error.message) == (status, message)


@pytest.mark.parametrize(("data", "encoding", "messages"), MESSAGES)
def test_a_unary_call_takes_exactly_one_message(data: bytes, encoding: bytes, messages: list[bytes]) -> None:
    if len(messages) == 1:
        assert unary_message(data, LIMIT, encoding) == messages[0]
        assert unary_message(memoryview(data), LIMIT, encoding) == messages[0]
    else:
        with pytest.raises(WireError, match=r"exactly one message; the caller sent (none|more)") as raised:
            unary_message(data, LIMIT, encoding)
        assert raised.value.status is StatusCode.UNIMPLEMENTED
    if messages:
        for trailing in (b"\0", ANOTHER):
            with pytest.raises(WireError, match="the caller sent more") as raised:
                unary_message(data + trailing, LIMIT, encoding)
            assert raised.value.status is StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(("data", "encoding", "status", "message"), REFUSED)
def test_a_unary_call_refuses_what_the_reader_refuses(
    data: bytes, encoding: bytes, status: StatusCode, message: str
) -> None:
    with pytest.raises(WireError) as raised:
        unary_message(data, LIMIT, encoding)
    assert (raised.value.status, raised.value.message) == (status, message)


@pytest.mark.parametrize("cut", range(1, len(ANOTHER)))
def test_a_unary_body_that_ends_early_is_refused(cut: int) -> None:
    with pytest.raises(WireError, match=f"ended {cut} bytes into") as raised:
        unary_message(ANOTHER[:cut], LIMIT)
    assert raised.value.status is StatusCode.INTERNAL


def test_whole_messages_are_not_copied() -> None:
    body = frame(b"tensor")
    (message,) = MessageReader(LIMIT).feed(body)
    for view in (message, unary_message(body, LIMIT)):
        assert isinstance(view, memoryview) and view.obj is body and view.readonly


def test_what_was_only_declared_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        readers = [MessageReader(2**31) for _ in range(1000)]
        for reader in readers:
            assert reader.feed(frame_prefix(2**31) + b"x") == []
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def bomb() -> bytes:
    """1 GiB of zeros as one gzip member of about 1 MB, put together from equal blocks so that making it is quick."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    header = bytes([31, 139, 8, 0, 0, 0, 0, 0, 2, 255])
    checksum = 0x5B64C2B0
    return header + block * 1024 + deflater.flush() + checksum.to_bytes(4, "little") + (1 << 30).to_bytes(4, "little")


@pytest.mark.parametrize(
    "read",
    [
        lambda body, limit: unary_message(body, limit, GZIP),
        lambda body, limit: MessageReader(limit, GZIP).feed(body),
        lambda body, limit: list(map(MessageReader(limit, GZIP).feed, (body[:9], body[9:]))),
    ],
)
def test_a_bomb_is_refused_without_inflating_it(read: Callable[[bytes, int], object]) -> None:
    body, limit = framed(bomb()), 2 << 20
    assert len(body) < limit
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="Decompressed message larger than max") as raised:
            read(body, limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert raised.value.status is StatusCode.RESOURCE_EXHAUSTED
    assert peak < 2.1 * limit + 3 * len(
        body
    )  # zlib's blocks and their sum; the input once more, and what is left of it


@pytest.mark.parametrize("encoding", COMPRESSIONS)
def test_only_messages_that_shrink_are_compressed(encoding: bytes) -> None:
    flag = {b"a" * 1024: 1, b"a" * 1023: 0, bytes(range(256)) * 4: 1, b"": 0}
    assert {message: frame(message, encoding)[0] for message in flag} == flag
    assert frame(b"abc", encoding, min_compressed_bytes=0) == frame(b"abc")
    assert frame(memoryview(b"abc")) == frame(b"abc") == frame_prefix(3) + b"abc"


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        (b"", IDENTITY),
        (b"identity", IDENTITY),
        (b"snappy, br", IDENTITY),
        (b"gzipped", IDENTITY),
        (b"identity, deflate, gzip", GZIP),
        (b"deflate,identity", DEFLATE),
        (b" gzip ", GZIP),
    ],
)
def test_the_answer_is_encoded_as_the_caller_can_read_it(accepted: bytes, chosen: bytes) -> None:
    assert negotiate(accepted) == chosen


@given(st.lists(st.binary(max_size=300)), st.sampled_from((IDENTITY, *COMPRESSIONS)), st.data())
def test_frames_survive_any_chunking(messages: list[bytes], encoding: bytes, data: st.DataObject) -> None:
    stream = b"".join(frame(message, encoding, min_compressed_bytes=10) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    reader = MessageReader(300, encoding)
    read: list[bytes] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        read += map(bytes, reader.feed(memoryview(stream)[start:stop]))
    reader.finish()
    assert read == messages


def outcome(attempt: Callable[[], list[Buffer]]) -> StatusCode | list[bytes]:
    try:
        return [bytes(message) for message in attempt()]
    except WireError as error:
        return error.status


@given(st.binary(max_size=400), st.sampled_from((IDENTITY, SNAPPY, *COMPRESSIONS)))
def test_any_bytes_end_in_messages_or_a_wire_error(data: bytes, encoding: bytes) -> None:
    unary = outcome(lambda: [unary_message(data, 50, encoding)])
    read = outcome(lambda: MessageReader(50, encoding).feed(data))
    if isinstance(unary, list):
        assert read == unary
    else:
        assert unary in {StatusCode.INTERNAL, StatusCode.UNIMPLEMENTED, StatusCode.RESOURCE_EXHAUSTED}
