"""The gRPC engine on `grpc.aio`: the reference, and the one that runs wherever grpcio does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from typing import Any

import grpc

from server.frontends.call_counts import CallCounts, MethodCounts, departure
from server.frontends.calls import MethodTable, StatusCode, StreamMethod, UnaryMethod
from server.frontends.grpc.grpcio_calls import Context, Failed, StreamCall, UnaryCall
from server.frontends.grpc.options import GrpcOptions
from server.frontends.tls import TlsFiles
from server.memory_budget import CALL_BYTES, SMALL_BYTES, MemoryBudget

log = logging.getLogger(__name__)

_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcioEngine:
    """Serves a method table on one address."""

    def __init__(self, methods: MethodTable, options: GrpcOptions) -> None:
        """Raises `OSError` where TLS files cannot be read."""
        self.calls = CallCounts(methods)
        """Calls by method and status; those that grpcio refuses by itself are in none of them."""
        self._streams = _OpenStreams()
        self._credentials = _credentials(options.tls) if options.tls else None
        self._server = grpc.aio.server(
            handlers=[_Router(methods, self._streams, self.calls, options)],
            options=tuple(_channel_arguments(options).items()),
        )

    def transport(self) -> None:
        """grpcio does not tell of its connections."""

    async def start(self, address: str, port: int) -> int:
        """Listen, and return the port, 0 for `unix:/path`. Raises `OSError` where the address cannot be had."""
        host = f"[{address}]" if ":" in address else address
        where = address if address.startswith("unix:") else f"{host}:{port}"
        try:
            bound: int = (
                self._server.add_secure_port(where, self._credentials)
                if self._credentials
                else self._server.add_insecure_port(where)
            )
        except RuntimeError as error:
            raise OSError(f"cannot listen on {where} for gRPC: {error}") from error
        await self._server.start()
        return 0 if address.startswith("unix:") else bound

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, let those in progress end, and abort what is left after the grace."""
        self._streams.drain()
        await self._server.stop(grace_seconds)


def _channel_arguments(options: GrpcOptions) -> dict[str, int]:
    """The options in grpc core's own words. Infinity is core's default and is left out."""
    milliseconds = {
        "grpc.keepalive_time_ms": options.keepalive_time,
        "grpc.keepalive_timeout_ms": options.keepalive_timeout,
        "grpc.http2.min_ping_interval_without_data_ms": options.min_recv_ping_interval_without_data,
        "grpc.max_connection_age_ms": options.max_connection_age,
        "grpc.max_connection_age_grace_ms": options.max_connection_age_grace,
    }
    # Level 0 would keep methods from compressing their answers, too.
    compression = {"grpc.default_compression_level": options.compression_level} if options.compression_level else {}
    return (
        {
            "grpc.max_receive_message_length": options.max_message_bytes,
            "grpc.max_send_message_length": -1,
            "grpc.so_reuseport": int(options.reuse_port),
            "grpc.keepalive_permit_without_calls": int(options.keepalive_permit_without_calls),
            "grpc.http2.max_ping_strikes": options.max_ping_strikes,
        }
        | {name: round(seconds * 1000) for name, seconds in milliseconds.items() if seconds < inf}
        | compression
    )


def _credentials(files: TlsFiles) -> Any:
    """Server credentials that are read anew for a handshake when the files have changed."""
    read = _CertificateReader(files)
    return grpc.dynamic_ssl_server_credentials(read.initial, read, require_client_authentication=files.root is not None)


class _CertificateReader:
    """What grpc core asks, at every handshake, for new certificates; None keeps those it has."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._contents = self._read()
        self.initial = self._configuration()

    def __call__(self) -> Any:
        try:
            contents = self._read()
        except OSError as error:
            log.warning("TLS certificates cannot be read, keeping the old ones: %s", error)
            return None
        if contents == self._contents:
            return None
        self._contents = contents
        return self._configuration()

    def _read(self) -> tuple[bytes, bytes, bytes | None]:
        files = self._files
        return files.key.read_bytes(), files.certificate.read_bytes(), files.root.read_bytes() if files.root else None

    def _configuration(self) -> Any:
        key, certificate, root = self._contents
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=root)


class _Router(grpc.GenericRpcHandler):  # type: ignore[misc] # untyped base
    """Finds methods by path; an unknown path is answered UNIMPLEMENTED by grpcio itself."""

    def __init__(self, methods: MethodTable, streams: _OpenStreams, calls: CallCounts, options: GrpcOptions) -> None:
        self._calls = calls
        self._handlers = {path: _handler(method, streams, calls.of(path), options) for path, method in methods.items()}

    def service(self, handler_call_details: Any) -> Any:
        handler = self._handlers.get(handler_call_details.method)
        if handler is None:
            self._calls.refused(StatusCode.UNIMPLEMENTED)
        return handler


def _handler(
    method: UnaryMethod | StreamMethod, streams: _OpenStreams, counts: MethodCounts, options: GrpcOptions
) -> Any:
    # Without serializers, grpcio hands over and takes the messages' own bytes.
    if isinstance(method, UnaryMethod):
        return grpc.unary_unary_rpc_method_handler(_unary(method, counts, options))
    return grpc.stream_stream_rpc_method_handler(_stream(method, streams, counts, options.memory))


async def abort_call(context: Context, status: StatusCode, message: str) -> None:
    """End a call with a status: raises grpcio's own `AbortError`, or returns where the peer has gone meanwhile.

    A method then returns too: grpcio has kept the error of the abort and raises it itself. It would log any other
    exception, and an `AbortError` that it has not made, as a bug of the method.
    """
    try:
        await context.abort(_GRPC_CODES[status], message)
    except grpc.aio.InternalError as error:
        log.debug("a call has ended before its status could be sent: %s", error)


def _unary(
    method: UnaryMethod, counts: MethodCounts, options: GrpcOptions
) -> Callable[[bytes, Context], Awaitable[bytes]]:
    memory = options.memory

    async def serve(message: bytes, context: Context) -> bytes:
        counts.started += 1
        account = method.account
        call = UnaryCall(context, account)
        if account is not None:
            account.received += 1
        status: StatusCode | None = None
        held = len(message) + CALL_BYTES
        memory.used += held
        try:
            if memory.used > memory.limit and (account is not None or held > SMALL_BYTES):
                options.failures.fail(call, memory.refusal(held))
            else:
                method.handle(call, message)
        except Exception:
            log.exception("a unary method raised")
            call.cancel()
        try:
            answer = await call.answer
            status = StatusCode.OK
            await call.opened()
        except Failed as failure:
            status = failure.status
            await call.opened()
            await abort_call(context, failure.status, failure.message)
            return b""
        except asyncio.CancelledError:
            call.abandoned()
            raise
        else:
            return answer
        finally:
            memory.used -= held
            counts.handled[departure(call.deadline) if status is None else status] += 1

    return serve


def _stream(
    method: StreamMethod, streams: _OpenStreams, counts: MethodCounts, memory: MemoryBudget
) -> Callable[[AsyncIterator[bytes], Context], Awaitable[None]]:
    async def serve(requests: AsyncIterator[bytes], context: Context) -> None:
        counts.started += 1
        call = StreamCall(context, memory)
        reader = asyncio.create_task(_feed(requests, method, call, streams))
        status: StatusCode | None = None
        try:
            while (answer := await call.next_answer()) is not None:
                await call.opened()
                if call.compressing and not answer.compressed:
                    context.disable_next_message_compression()
                await context.write(answer.message)
            await call.opened()
            status = call.failure.status if call.failure else StatusCode.OK
            if call.failure:
                await abort_call(context, status, call.failure.message)
        finally:
            counts.handled[departure(call.deadline) if status is None else status] += 1
            call.forget_unsent()
            streams.discard(call)
            reader.cancel()
            call.abandoned()

    return serve


async def _feed(requests: AsyncIterator[bytes], method: StreamMethod, call: StreamCall, streams: _OpenStreams) -> None:
    try:
        receiver = call.receiver = method.open(call)
        streams.add(call)
        async for message in requests:
            if call.ended:
                return
            receiver.message(message)
            await call.room.wait()
        await call.hear_of_departure()
        if not call.ended:
            receiver.half_closed()
    except Exception:
        if call.ended:
            return  # grpcio ends the reader of a call that has failed with an error of its own
        log.exception("a streaming method raised")
        call.cancel()


class _OpenStreams:
    """The streaming calls that have begun, so that they can be asked to end."""

    def __init__(self) -> None:
        self._calls: set[StreamCall] = set()
        self._draining = False

    def add(self, call: StreamCall) -> None:
        self._calls.add(call)
        if self._draining:
            call.drain()

    def discard(self, call: StreamCall) -> None:
        self._calls.discard(call)

    def drain(self) -> None:
        """The server is about to stop."""
        self._draining = True
        for call in tuple(self._calls):
            call.drain()
