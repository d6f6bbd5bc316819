"""The gRPC engine on `grpc.aio`: the reference, and the one that runs wherever grpcio does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from math import inf
from typing import Any

import grpc

from server.frontends.calls import MethodTable, Receiver, StatusCode, StreamMethod, UnaryMethod
from server.frontends.grpc.options import GrpcOptions
from server.frontends.tls import TlsFiles

log = logging.getLogger(__name__)

_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}
_INTERNAL_MESSAGE = "the server failed while it handled this call; its log has the details"

Context = Any  # grpc.aio.ServicerContext; grpcio ships no type information


class GrpcioEngine:
    """Serves a method table on one address."""

    def __init__(self, methods: MethodTable, options: GrpcOptions) -> None:
        """Raises `OSError` where TLS files cannot be read."""
        self._receivers: set[Receiver] = set()
        self._credentials = _credentials(options.tls) if options.tls else None
        self._server = grpc.aio.server(
            handlers=[_Router(methods, self._receivers)], options=tuple(_channel_arguments(options).items())
        )

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
        for receiver in tuple(self._receivers):
            receiver.drain()
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
    return {
        "grpc.max_receive_message_length": options.max_message_bytes,
        "grpc.max_send_message_length": -1,
        "grpc.so_reuseport": int(options.reuse_port),
        "grpc.keepalive_permit_without_calls": int(options.keepalive_permit_without_calls),
        "grpc.http2.max_ping_strikes": options.max_ping_strikes,
    } | {name: round(seconds * 1000) for name, seconds in milliseconds.items() if seconds < inf}


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

    def __init__(self, methods: MethodTable, receivers: set[Receiver]) -> None:
        self._handlers = {path: _handler(method, receivers) for path, method in methods.items()}

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)


def _handler(method: UnaryMethod | StreamMethod, receivers: set[Receiver]) -> Any:
    # Without serializers, grpcio hands over and takes the messages' own bytes.
    if isinstance(method, UnaryMethod):
        return grpc.unary_unary_rpc_method_handler(_unary(method))
    return grpc.stream_stream_rpc_method_handler(_stream(method, receivers))


def _unary(method: UnaryMethod) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def serve(message: bytes, context: Context) -> bytes:
        call = _UnaryCall(context)
        try:
            method.handle(call, message)
            return await call.answer
        except _Failed as failure:
            await context.abort(_GRPC_CODES[failure.status], failure.message)
        except asyncio.CancelledError:
            call.cancelled()
            raise
        except Exception:
            log.exception("a unary method raised")
            call.cancelled()
            await context.abort(grpc.StatusCode.INTERNAL, _INTERNAL_MESSAGE)
        raise AssertionError("abort always raises")

    return serve


def _stream(
    method: StreamMethod, receivers: set[Receiver]
) -> Callable[[AsyncIterator[bytes], Context], Awaitable[None]]:
    async def serve(requests: AsyncIterator[bytes], context: Context) -> None:
        call = _StreamCall(context)
        receiver = method.open(call)
        receivers.add(receiver)
        reader = asyncio.create_task(_feed(requests, receiver, call))
        try:
            while (message := await call.outgoing.get()) is not None:
                await context.write(message)
            if call.failure:
                await context.abort(_GRPC_CODES[call.failure.status], call.failure.message)
        finally:
            receivers.discard(receiver)
            reader.cancel()
            call.cancelled()

    return serve


async def _feed(requests: AsyncIterator[bytes], receiver: Receiver, call: _StreamCall) -> None:
    try:
        async for message in requests:
            receiver.message(message)
        receiver.half_closed()
    except Exception:
        if call.ended:
            return  # grpcio ends the reader of a call that has failed with an error of its own
        log.exception("a streaming method raised")
        call.fail(StatusCode.INTERNAL, _INTERNAL_MESSAGE)


class _Failed(Exception):
    def __init__(self, status: StatusCode, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _CallBase:
    """What both kinds of call share: the caller's deadline, metadata and departure."""

    def __init__(self, context: Context) -> None:
        self._context = context
        remaining = context.time_remaining()
        self.deadline = inf if remaining is None else time.monotonic() + remaining
        self.on_cancel: Callable[[], None] | None = None

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        return dict(self._context.invocation_metadata())

    def cancelled(self) -> None:
        """Tell the method, once, that nobody waits any more."""
        on_cancel, self.on_cancel = self.on_cancel, None
        if on_cancel:
            on_cancel()


class _UnaryCall(_CallBase):
    """`frontends.calls.Call` for one answer."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def reply(self, message: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(message)

    def fail(self, status: StatusCode, message: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(_Failed(status, message))

    def send(self, message: bytes) -> None:
        raise TypeError("a unary call is answered with reply")

    def finish(self) -> None:
        raise TypeError("a unary call is answered with reply")


class _StreamCall(_CallBase):
    """`frontends.calls.Call` for a stream of answers."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.failure: _Failed | None = None
        self.ended = False

    def reply(self, message: bytes) -> None:
        self.send(message)
        self.finish()

    def send(self, message: bytes) -> None:
        if not self.ended:
            self.outgoing.put_nowait(message)

    def finish(self) -> None:
        if not self.ended:
            self.ended = True
            self.outgoing.put_nowait(None)

    def fail(self, status: StatusCode, message: str) -> None:
        if not self.ended:
            self.failure = _Failed(status, message)
            self.finish()
