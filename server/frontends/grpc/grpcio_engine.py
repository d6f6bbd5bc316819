"""The gRPC engine on `grpc.aio`: the reference, and the one that runs wherever grpcio does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from math import inf
from typing import Any, NamedTuple

import grpc

from server.frontends.calls import MethodTable, Receiver, StatusCode, StreamMethod, UnaryMethod
from server.frontends.grpc.options import GrpcOptions
from server.frontends.tls import TlsFiles

log = logging.getLogger(__name__)

UNSENT_STREAM_BYTES = 1 << 20
"""A streaming caller that leaves this much of its answers unread is not read from until it catches up."""

_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}
_INTERNAL_MESSAGE = "the server failed while it handled this call; its log has the details"

Context = Any  # grpc.aio.ServicerContext; grpcio ships no type information


class GrpcioEngine:
    """Serves a method table on one address."""

    def __init__(self, methods: MethodTable, options: GrpcOptions) -> None:
        """Raises `OSError` where TLS files cannot be read."""
        self._streams = _OpenStreams()
        self._credentials = _credentials(options.tls) if options.tls else None
        self._server = grpc.aio.server(
            handlers=[_Router(methods, self._streams)], options=tuple(_channel_arguments(options).items())
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

    def __init__(self, methods: MethodTable, streams: _OpenStreams) -> None:
        self._handlers = {path: _handler(method, streams) for path, method in methods.items()}

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)


def _handler(method: UnaryMethod | StreamMethod, streams: _OpenStreams) -> Any:
    # Without serializers, grpcio hands over and takes the messages' own bytes.
    if isinstance(method, UnaryMethod):
        return grpc.unary_unary_rpc_method_handler(_unary(method))
    return grpc.stream_stream_rpc_method_handler(_stream(method, streams))


def _unary(method: UnaryMethod) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def serve(message: bytes, context: Context) -> bytes:
        call = _UnaryCall(context)
        try:
            method.handle(call, message)
        except Exception:
            log.exception("a unary method raised")
            call.cancel()
        try:
            answer = await call.answer
            await call.opened()
        except _Failed as failure:
            await call.opened()
            await context.abort(_GRPC_CODES[failure.status], failure.message)
        except asyncio.CancelledError:
            call.abandoned()
            raise
        else:
            return answer
        raise AssertionError("abort always raises")

    return serve


def _stream(method: StreamMethod, streams: _OpenStreams) -> Callable[[AsyncIterator[bytes], Context], Awaitable[None]]:
    async def serve(requests: AsyncIterator[bytes], context: Context) -> None:
        call = _StreamCall(context)
        reader = asyncio.create_task(_feed(requests, method, call, streams))
        try:
            while (answer := await call.next_answer()) is not None:
                await call.opened()
                if call.compressing and not answer.compressed:
                    context.disable_next_message_compression()
                await context.write(answer.message)
            await call.opened()
            if call.failure:
                await context.abort(_GRPC_CODES[call.failure.status], call.failure.message)
        finally:
            streams.discard(call)
            reader.cancel()
            call.abandoned()

    return serve


async def _feed(requests: AsyncIterator[bytes], method: StreamMethod, call: _StreamCall, streams: _OpenStreams) -> None:
    try:
        receiver = call.receiver = method.open(call)
        streams.add(call)
        async for message in requests:
            receiver.message(message)
            await call.room.wait()
        # grpcio ends the requests of a caller that has left as those of one that will send no more. It is told of the
        # departure at the same time, so that by the end of another read this task has been cancelled.
        await call.read_again()
        receiver.half_closed()
    except Exception:
        if call.ended:
            return  # grpcio ends the reader of a call that has failed with an error of its own
        log.exception("a streaming method raised")
        call.cancel()


class _OpenStreams:
    """The streaming calls that have begun, so that they can be asked to end."""

    def __init__(self) -> None:
        self._calls: set[_StreamCall] = set()
        self._draining = False

    def add(self, call: _StreamCall) -> None:
        self._calls.add(call)
        if self._draining:
            call.drain()

    def discard(self, call: _StreamCall) -> None:
        self._calls.discard(call)

    def drain(self) -> None:
        """The server is about to stop."""
        self._draining = True
        for call in tuple(self._calls):
            call.drain()


class _Failed(Exception):
    def __init__(self, status: StatusCode, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _CallBase:
    """What both kinds of call share: the caller's deadline, metadata and departure, and the answer's metadata."""

    def __init__(self, context: Context) -> None:
        self._context = context
        remaining = context.time_remaining()
        self.deadline = inf if remaining is None else time.monotonic() + remaining
        self.on_cancel: Callable[[], None] | None = None
        self._opening: asyncio.Task[None] | None = None

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        return _joined(self._context.invocation_metadata())

    def send_initial_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        if self._opening is None:
            self._opening = asyncio.create_task(self._context.send_initial_metadata(tuple(metadata.items())))

    def set_trailing_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        self._context.set_trailing_metadata(tuple(metadata.items()))

    async def opened(self) -> None:
        """Wait until initial metadata is on its way: grpcio sends it twice if asked meanwhile."""
        if self._opening is not None:
            await self._opening

    def _tell_method(self) -> None:
        on_cancel, self.on_cancel = self.on_cancel, None
        if on_cancel is None:
            return
        try:
            on_cancel()
        except Exception:
            log.exception("a method raised when it was told that its call is over")


class _UnaryCall(_CallBase):
    """`frontends.calls.Call` for one answer."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._compressed = False

    def compress_messages(self, wanted: bool) -> None:
        if self._opening is None:
            self._compressed = wanted
            self._context.set_compression(grpc.Compression.Gzip if wanted else grpc.Compression.NoCompression)

    async def opened(self) -> None:
        if self._compressed and self._opening is None:
            self.send_initial_metadata({})  # grpcio forgets the compression where it opens the answer itself
        await super().opened()

    def reply(self, message: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(message)

    def fail(self, status: StatusCode, message: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(_Failed(status, message))

    def cancel(self) -> None:
        """End the call since the method has broken, and tell it so."""
        if not self.answer.done():
            self.fail(StatusCode.INTERNAL, _INTERNAL_MESSAGE)
            self._tell_method()

    def abandoned(self) -> None:
        """The caller has gone."""
        if not self.answer.done() or self.answer.cancelled():
            self._tell_method()

    def send(self, message: bytes) -> None:
        raise TypeError("a unary call is answered with reply")

    def finish(self) -> None:
        raise TypeError("a unary call is answered with reply")


class _Answer(NamedTuple):
    message: bytes
    compressed: bool


class _StreamCall(_CallBase):
    """`frontends.calls.Call` for a stream of answers."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.receiver: Receiver | None = None
        self.failure: _Failed | None = None
        self.ended = False
        self.compressing = False
        """Whether messages are compressed unless said otherwise."""
        self._compress_next = False
        self._begun = False
        self.room = asyncio.Event()
        """Set while the caller keeps up with its answers."""
        self.room.set()
        self._outgoing: asyncio.Queue[_Answer | None] = asyncio.Queue()
        self._unsent_bytes = 0

    async def read_again(self) -> None:
        """Wait for the end of the requests, after the end of the requests."""
        await self._context.read()

    async def next_answer(self) -> _Answer | None:
        """The next message to send; None at the end. The one before it has been sent."""
        answer = await self._outgoing.get()
        if answer is not None:
            self._unsent_bytes -= len(answer.message)
            if self._unsent_bytes <= UNSENT_STREAM_BYTES:
                self.room.set()
        return answer

    def compress_messages(self, wanted: bool) -> None:
        if wanted and not self.compressing and not self._begun and self._opening is None:
            self.compressing = True
            self._context.set_compression(grpc.Compression.Gzip)
        self._compress_next = wanted

    def reply(self, message: bytes) -> None:
        self.send(message)
        self.finish()

    def send(self, message: bytes) -> None:
        if not self.ended:
            self._begun = True
            self._outgoing.put_nowait(_Answer(message, self._compress_next))
            self._unsent_bytes += len(message)
            if self._unsent_bytes > UNSENT_STREAM_BYTES:
                self.room.clear()

    def drain(self) -> None:
        """The server is about to stop."""
        if self.ended or self.receiver is None:
            return
        try:
            self.receiver.drain()
        except Exception:
            log.exception("a streaming method raised")
            self.cancel()

    def finish(self) -> None:
        if not self.ended:
            self.ended = True
            self._outgoing.put_nowait(None)

    def fail(self, status: StatusCode, message: str) -> None:
        if not self.ended:
            self.failure = _Failed(status, message)
            self.finish()

    def cancel(self) -> None:
        """End the call since the method has broken, and tell it so."""
        if not self.ended:
            self.fail(StatusCode.INTERNAL, _INTERNAL_MESSAGE)
            self._tell_method()

    def abandoned(self) -> None:
        """The caller has gone."""
        if not self.ended:
            self.ended = True
            self._tell_method()


def _joined(pairs: Iterable[tuple[str, str | bytes]]) -> dict[str, str | bytes]:
    """Metadata as a mapping: repeated values are joined by a comma, as HTTP does."""
    metadata: dict[str, str | bytes] = {}
    for key, value in pairs:
        earlier = metadata.get(key)
        if isinstance(earlier, bytes) and isinstance(value, bytes):
            metadata[key] = earlier + b"," + value
        elif isinstance(earlier, str) and isinstance(value, str):
            metadata[key] = f"{earlier},{value}"
        else:
            metadata[key] = value
    return metadata
