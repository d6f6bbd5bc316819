"""The clients of one process: their connections, calls in each protocol, and every request of theirs on the tally."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from loadtest.errors import WrongAnswerError
from loadtest.http_v2 import JSON_LENGTH, decode_response, encode_request, model_path
from loadtest.soak.cases import Answer, Case, answer_of, answer_of_json
from loadtest.soak.http_connection import HttpAnswer, HttpConnection, HttpPool
from loadtest.soak.tally import GRPC, HTTP, STREAM, Refused, Tally
from loadtest.soak.triton_clients import TritonClients
from loadtest.target import INFER, SERVICE, STREAM_INFER
from proto import grpc_service_pb2 as pb

CALL_SECONDS = 120.0
"""Nobody waits for longer: a request that takes so long is a fault."""
_CHANNELS = 4
_LARGEST_MESSAGE = 1 << 27

Reply = TypeVar("Reply", bound=Message)


class Callers:
    """Opened inside of an event loop; `close` it there, too."""

    def __init__(self, ports: dict[str, int], tally: Tally) -> None:
        self.ports = ports
        self.tally = tally
        self._address = f"127.0.0.1:{ports['grpc']}"
        self._channels = [self.channel() for _ in range(_CHANNELS)]
        self._turn = 0
        self._triton = TritonClients(ports)
        self.http = HttpPool(ports["http"])

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        await self._triton.close()
        await self.http.close()

    def channel(self) -> grpc.aio.Channel:
        """A connection of its own."""
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
            ("grpc.max_send_message_length", _LARGEST_MESSAGE),
        ]
        return grpc.aio.insecure_channel(self._address, options)

    @contextmanager
    def counted(self, protocol: str, *models: str) -> Iterator[None]:
        """Put a request to each of `models` on the tally; they end together with the block."""
        keys = [(protocol, model) for model in models]
        self.tally.sent.update(keys)
        try:
            yield
        except Refused as refusal:
            # The caller's own deadline, or its leaving: the server may have been about to answer.
            own = refusal.status in ("CANCELLED", "DEADLINE_EXCEEDED")
            (self.tally.left if own else self.tally.refused).update(keys)
            raise
        except BaseException:
            self.tally.left.update(keys)
            raise
        self.tally.answered.update(keys)

    async def unary(
        self,
        request: pb.ModelInferRequest | bytes,
        model: str,
        *,
        seconds: float = CALL_SECONDS,
        cancel_after_s: float | None = None,
        channel: grpc.aio.Channel | None = None,
    ) -> pb.ModelInferResponse:
        """ModelInfer. Raises Refused."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        infer: Any = (channel or self._next_channel()).unary_unary(INFER)
        with self.counted(GRPC, model):
            call = infer(body, timeout=seconds)
            if cancel_after_s is not None:
                asyncio.get_running_loop().call_later(cancel_after_s, call.cancel)
            return pb.ModelInferResponse.FromString(await _ended(call, call))

    async def stream(self, requests: Sequence[pb.ModelInferRequest]) -> list[pb.ModelInferResponse]:
        """ModelStreamInfer: all requests at once, then their answers, then its end. Raises Refused."""
        call = self._open_stream()
        with self.counted(STREAM, *(request.model_name for request in requests)):
            for request in requests:
                await _ended(call, call.write(request.SerializeToString()))
            await call.done_writing()
            answers = [_message(await _ended(call, call.read())) for _ in requests]
        if await _ended(call, call.read()) is not grpc.aio.EOF:
            raise WrongAnswerError("more answers than requests on a stream")
        return answers

    async def abandoned_stream(self, requests: Sequence[pb.ModelInferRequest], after_s: float) -> None:
        """Sends all, and cancels the stream before it has read anything. Raises Refused: CANCELLED."""
        call = self._open_stream()
        with self.counted(STREAM, *(request.model_name for request in requests)):
            for request in requests:
                await _ended(call, call.write(request.SerializeToString()))
            await asyncio.sleep(after_s)
            call.cancel()
            raise Refused("CANCELLED", "by the client")

    async def control(
        self, method: str, request: Message, reply: type[Reply], *, seconds: float = CALL_SECONDS
    ) -> Reply:
        """Any other unary method. Raises Refused."""
        ask: Any = self._next_channel().unary_unary(SERVICE + method)
        call = ask(request.SerializeToString(), timeout=seconds)
        return reply.FromString(await _ended(call, call))

    async def http_json(self, case: Case) -> Answer:
        """POST infer, JSON both ways. Raises Refused."""
        return answer_of_json((await self.infer_over_http(case.model, case.json(), {})).body)

    async def http_binary(self, case: Case, *, connection: HttpConnection | None = None, pause_s: float = 0) -> Answer:
        """POST infer, binary both ways, on a kept connection or on this one. Raises Refused."""
        headers, body = encode_request(case.request())
        answer = await self.infer_over_http(case.model, body, headers, connection=connection, pause_s=pause_s)
        return answer_of(decode_response(answer.headers.get(JSON_LENGTH.lower()), answer.body))

    async def infer_over_http(
        self,
        model: str,
        body: bytes,
        headers: dict[str, str],
        *,
        connection: HttpConnection | None = None,
        pause_s: float = 0.0,
    ) -> HttpAnswer:
        """POST infer with this body. Raises Refused."""
        path = f"{model_path(model)}/infer"
        with self.counted(HTTP, model):
            if connection is None:
                asking = self.http.ask("POST", path, body, headers)
            else:
                asking = connection.ask("POST", path, body, headers, pause_s=pause_s)
            answer = await asyncio.wait_for(asking, CALL_SECONDS)
            refuse_http(answer)
            return answer

    async def triton(self, case: Case, protocol: str) -> Answer:
        """By tritonclient, over GRPC or HTTP. Raises Refused."""
        with self.counted(protocol, case.model):
            return await self._triton.infer(case, protocol)

    def _next_channel(self) -> grpc.aio.Channel:
        self._turn = (self._turn + 1) % _CHANNELS
        return self._channels[self._turn]

    def _open_stream(self) -> Any:
        stream: Any = self._next_channel().stream_stream(STREAM_INFER)
        return stream(timeout=CALL_SECONDS)


def refuse_http(answer: HttpAnswer) -> None:
    """Raises Refused unless the status is 200."""
    if answer.status == 200:
        return
    try:
        message = json.loads(answer.body)["error"]
    except (KeyError, TypeError, ValueError):
        message = answer.body[:200].decode(errors="replace")
    raise Refused(str(answer.status), message)


async def _ended(call: Any, step: Awaitable[Any]) -> Any:
    """What a step of a gRPC call comes to. Raises Refused, also where the call was cancelled from here."""
    try:
        return await step
    except grpc.aio.AioRpcError as error:
        raise Refused(error.code().name, error.details() or "") from error
    except asyncio.CancelledError:
        if call.cancelled():
            raise Refused("CANCELLED", "by the client") from None
        raise


def _message(read: Any) -> pb.ModelInferResponse:
    if read is grpc.aio.EOF:
        raise WrongAnswerError("a stream ended before all its requests were answered")
    response = pb.ModelStreamInferResponse.FromString(read)
    if response.error_message:
        raise Refused("STREAM", response.error_message)
    return response.infer_response
