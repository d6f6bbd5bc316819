"""gRPC's published interop cases, by name, between the official client and both engines.

Left out: those with credentials, cacheable_unary (needs a caching proxy), and the probes of client_compressed_unary and
client_compressed_streaming, since methods are not told whether a message was compressed on its way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tests.engines import interop_messages as messages
from tests.engines.conftest import Connect, Serve
from tests.engines.hosting import PATIENCE_SECONDS, Host, Server
from tests.engines.interop_service import ECHO_INITIAL, ECHO_TRAILING, SERVICE, interop_methods
from tests.engines.relay import Relay
from tests.engines.requests import Requests

LARGE_REQUEST = 271828
LARGE_RESPONSE = 314159
REQUEST_SIZES = (27182, 8, 1828, 45904)
RESPONSE_SIZES = (31415, 9, 2653, 58979)
COMPRESSED_SIZES = (31415, 92653)
"""Of server_compressed_streaming: the first is to be compressed, the second not."""
GZIP = grpc.Compression.Gzip


class Stub:
    """The client's side of `grpc.testing.TestService`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.empty = self._unary("EmptyCall", messages.Empty, messages.Empty)
        self.unary = self._unary("UnaryCall", messages.SimpleRequest, messages.SimpleResponse)
        self.streaming_input = channel.stream_unary(
            f"{SERVICE}/StreamingInputCall",
            messages.StreamingInputCallRequest.SerializeToString,
            messages.StreamingInputCallResponse.FromString,
        )
        self.streaming_output = channel.unary_stream(f"{SERVICE}/StreamingOutputCall", *_OUTPUT)
        self.full_duplex = channel.stream_stream(f"{SERVICE}/FullDuplexCall", *_OUTPUT)
        self.half_duplex = channel.stream_stream(f"{SERVICE}/HalfDuplexCall", *_OUTPUT)

    def _unary(self, name: str, request: Any, response: Any) -> grpc.UnaryUnaryMultiCallable:
        return self._channel.unary_unary(f"{SERVICE}/{name}", request.SerializeToString, response.FromString)


_OUTPUT = (
    messages.StreamingOutputCallRequest.SerializeToString,
    messages.StreamingOutputCallResponse.FromString,
)


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve(interop_methods())


@pytest.fixture
def stub(server: Server, connect: Connect) -> Stub:
    return Stub(connect(server))


@pytest.fixture
def relay(host: Host, server: Server) -> Iterator[Relay]:
    relay = Relay(host, server.port)
    yield relay
    relay.close()


@pytest.fixture
def relayed(relay: Relay) -> Iterator[Stub]:
    """A stub whose bytes are counted."""
    with grpc.insecure_channel(relay.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield Stub(channel)


def large_request(**fields: Any) -> Any:
    return messages.SimpleRequest(
        response_size=LARGE_RESPONSE, payload=messages.Payload(body=bytes(LARGE_REQUEST)), **fields
    )


def output_request(*sizes: int, body: int = 0, **fields: Any) -> Any:
    return messages.StreamingOutputCallRequest(
        response_parameters=[messages.ResponseParameters(size=size) for size in sizes],
        payload=messages.Payload(body=bytes(body)),
        **fields,
    )


def input_requests(*sizes: int) -> list[Any]:
    return [messages.StreamingInputCallRequest(payload=messages.Payload(body=bytes(size))) for size in sizes]


def sizes_of(answers: Any) -> list[int]:
    return [len(answer.payload.body) for answer in answers]


def test_empty_unary(stub: Stub) -> None:
    assert stub.empty(messages.Empty(), timeout=PATIENCE_SECONDS) == messages.Empty()


def test_large_unary(stub: Stub) -> None:
    answer = stub.unary(large_request(), timeout=PATIENCE_SECONDS)
    assert answer.payload.body == bytes(LARGE_RESPONSE)


def test_client_compressed_unary(relayed: Stub, relay: Relay) -> None:
    request = large_request(expect_compressed=messages.BoolValue(value=True))
    answer = relayed.unary(request, compression=GZIP, timeout=PATIENCE_SECONDS)
    assert len(answer.payload.body) == LARGE_RESPONSE
    assert relay.bytes_to_server < LARGE_REQUEST // 10
    request = large_request(expect_compressed=messages.BoolValue(value=False))
    answer = relayed.unary(request, timeout=PATIENCE_SECONDS)
    assert len(answer.payload.body) == LARGE_RESPONSE
    assert relay.bytes_to_server > LARGE_REQUEST


def test_server_compressed_unary(relayed: Stub, relay: Relay) -> None:
    request = large_request(response_compressed=messages.BoolValue(value=True))
    answer = relayed.unary(request, timeout=PATIENCE_SECONDS)
    assert len(answer.payload.body) == LARGE_RESPONSE
    assert relay.bytes_to_client < LARGE_RESPONSE // 10
    request = large_request(response_compressed=messages.BoolValue(value=False))
    answer = relayed.unary(request, timeout=PATIENCE_SECONDS)
    assert len(answer.payload.body) == LARGE_RESPONSE
    assert relay.bytes_to_client > LARGE_RESPONSE


def test_client_streaming(stub: Stub) -> None:
    answer = stub.streaming_input(iter(input_requests(*REQUEST_SIZES)), timeout=PATIENCE_SECONDS)
    assert answer.aggregated_payload_size == sum(REQUEST_SIZES) == 74922


def test_client_compressed_streaming(stub: Stub) -> None:
    requests = iter(input_requests(27182, 45904))
    answer = stub.streaming_input(requests, compression=GZIP, timeout=PATIENCE_SECONDS)
    assert answer.aggregated_payload_size == 73086


def test_server_streaming(stub: Stub) -> None:
    answers = stub.streaming_output(output_request(*RESPONSE_SIZES), timeout=PATIENCE_SECONDS)
    assert sizes_of(answers) == list(RESPONSE_SIZES)


def test_server_compressed_streaming(relayed: Stub, relay: Relay) -> None:
    request = output_request(*COMPRESSED_SIZES)
    for parameters, compressed in zip(request.response_parameters, (True, False), strict=True):
        parameters.compressed.value = compressed
    assert sizes_of(relayed.streaming_output(request, timeout=PATIENCE_SECONDS)) == list(COMPRESSED_SIZES)
    assert COMPRESSED_SIZES[1] < relay.bytes_to_client < COMPRESSED_SIZES[1] + COMPRESSED_SIZES[0] // 2


def test_ping_pong(stub: Stub, requests: Requests) -> None:
    answers = stub.full_duplex(requests, timeout=PATIENCE_SECONDS)
    for request_size, response_size in zip(REQUEST_SIZES, RESPONSE_SIZES, strict=True):
        requests.put(output_request(response_size, body=request_size))
        assert len(next(answers).payload.body) == response_size
    requests.end()
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


def test_empty_stream(stub: Stub) -> None:
    answers = stub.full_duplex(iter(()), timeout=PATIENCE_SECONDS)
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


def test_half_duplex(stub: Stub) -> None:
    requests = [output_request(size) for size in RESPONSE_SIZES]
    assert sizes_of(stub.half_duplex(iter(requests), timeout=PATIENCE_SECONDS)) == list(RESPONSE_SIZES)


def test_custom_metadata_of_a_unary_call(stub: Stub) -> None:
    check_custom_metadata(stub.unary.with_call(large_request(), metadata=CUSTOM, timeout=PATIENCE_SECONDS)[1])


def test_custom_metadata_of_a_stream(stub: Stub) -> None:
    requests = iter([output_request(LARGE_RESPONSE, body=LARGE_REQUEST)])
    answers = stub.full_duplex(requests, metadata=CUSTOM, timeout=PATIENCE_SECONDS)
    assert sizes_of(answers) == [LARGE_RESPONSE]
    check_custom_metadata(answers)


CUSTOM = ((ECHO_INITIAL, "test_initial_metadata_value"), (ECHO_TRAILING, b"\xab\xab\xab"))


def check_custom_metadata(call: grpc.Call) -> None:
    assert dict(call.initial_metadata())[ECHO_INITIAL] == "test_initial_metadata_value"
    assert dict(call.trailing_metadata())[ECHO_TRAILING] == b"\xab\xab\xab"


STATUSES = pytest.mark.parametrize(
    "message",
    [
        pytest.param("test status message", id="status_code_and_message"),
        pytest.param("\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n", id="special_status_message"),
    ],
)


@STATUSES
def test_status_of_a_unary_call(stub: Stub, message: str) -> None:
    status = messages.EchoStatus(code=2, message=message)
    with pytest.raises(grpc.RpcError) as caught:
        stub.unary(messages.SimpleRequest(response_status=status), timeout=PATIENCE_SECONDS)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNKNOWN, message)


@STATUSES
def test_status_of_a_stream(stub: Stub, message: str) -> None:
    status = messages.EchoStatus(code=2, message=message)
    answers = stub.full_duplex(iter([output_request(response_status=status)]), timeout=PATIENCE_SECONDS)
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNKNOWN, message)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(f"{SERVICE}/UnimplementedCall", id="unimplemented_method"),
        pytest.param("/grpc.testing.UnimplementedService/UnimplementedCall", id="unimplemented_service"),
    ],
)
def test_unimplemented(server: Server, connect: Connect, path: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        connect(server).unary_unary(path)(b"", timeout=PATIENCE_SECONDS)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_cancel_after_begin(stub: Stub, requests: Requests) -> None:
    call = stub.streaming_input.future(requests, timeout=PATIENCE_SECONDS)
    call.cancel()
    assert call.cancelled()
    assert call.code() == grpc.StatusCode.CANCELLED


def test_cancel_after_first_response(stub: Stub, requests: Requests) -> None:
    answers = stub.full_duplex(requests, timeout=PATIENCE_SECONDS)
    requests.put(output_request(RESPONSE_SIZES[0], body=REQUEST_SIZES[0]))
    assert len(next(answers).payload.body) == RESPONSE_SIZES[0]
    answers.cancel()
    with pytest.raises(grpc.RpcError):
        next(answers)
    assert answers.code() == grpc.StatusCode.CANCELLED


def test_timeout_on_sleeping_server(stub: Stub, requests: Requests) -> None:
    requests.put(output_request(body=REQUEST_SIZES[0]))
    answers = stub.full_duplex(requests, timeout=0.001)
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_answers_keep_the_intervals_that_were_asked_for(stub: Stub) -> None:
    request = output_request(1, 2, 3)
    for parameters in request.response_parameters:
        parameters.interval_us = 10_000
    started = time.monotonic()
    assert sizes_of(stub.streaming_output(request, timeout=PATIENCE_SECONDS)) == [1, 2, 3]
    assert time.monotonic() - started >= 0.03


def test_concurrent_large_unary(stub: Stub) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: stub.unary(large_request(), timeout=PATIENCE_SECONDS), range(64)))
    assert [len(answer.payload.body) for answer in answers] == [LARGE_RESPONSE] * 64


def test_rpc_soak(stub: Stub) -> None:
    for _ in range(20):
        assert len(stub.unary(large_request(), timeout=PATIENCE_SECONDS).payload.body) == LARGE_RESPONSE


def test_channel_soak(server: Server, connect: Connect) -> None:
    for _ in range(20):
        with connect(server) as channel:
            assert len(Stub(channel).unary(large_request(), timeout=PATIENCE_SECONDS).payload.body) == LARGE_RESPONSE
