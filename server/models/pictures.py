"""Pictures of requests, from admission to the queue: who decodes, who waits for it, and who is told when it fails.

A request whose input came as pictures waits here first, each of its pictures in a line of all models' pictures, oldest
first. Threads decode them; when the last one is done, the request enters its model's queue with `PictureRows` in place
of what it came with. All methods run on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from math import inf

import numpy as np

from server.errors import ConvoyError, ExecutionFailed, InvalidRequest, QueueFull, TooLarge
from server.models import admission
from server.models.config import ModelConfig
from server.models.work import Work
from server.pictures.pixels import Normalization, PictureRows, Pixels
from server.pictures.preprocessing import ImageInvalid, ImagePreprocessing
from server.scheduling.batcher import Batcher
from server.scheduling.budget import ByteBudget
from server.scheduling.clock import Clock
from server.scheduling.lanes import ThreadLane
from server.scheduling.policy import LevelPolicy, WindowPolicy
from server.scheduling.queue import BatchQueue, Ticket
from server.tensors import Array, Buffer

log = logging.getLogger(__name__)

Decode = Callable[[Buffer | Array, ImagePreprocessing], Pixels]

MAX_WAITING_PICTURES = 1024
"""Pictures that may wait to be decoded, of all models together."""


class Picture(Ticket):
    """One picture that waits to be decoded."""

    __slots__ = ("data", "index", "preprocessing", "request")

    def __init__(
        self, request: _Request, index: int, data: Buffer | Array, preprocessing: ImagePreprocessing, work: Work
    ) -> None:
        size = data.nbytes if isinstance(data, np.ndarray) else len(data)
        super().__init__(1, None, work.arrived, work.deadline, size=size)
        self.request = request
        self.index = index
        self.data = data
        self.preprocessing = preprocessing


class _Request:
    """A request some of whose pictures are not decoded yet."""

    def __init__(self, intake: PictureIntake, work: Work) -> None:
        self.intake = intake
        self.work = work
        self.pictures: list[Picture] = []
        self.decoded: list[Pixels | None] = [None] * work.rows
        self.missing = work.rows


class PictureDecoder:
    """The threads that decode the pictures of all models, with `pictures.decode.decode` or what is given instead."""

    def __init__(self, decode: Decode, threads: int, clock: Clock, budget: ByteBudget | None = None) -> None:
        def work(batch: Sequence[Picture]) -> Pixels:
            (picture,) = batch
            return decode(picture.data, picture.preprocessing)

        policy = WindowPolicy(1, max_requests=1, levels=(LevelPolicy(max_queued_requests=MAX_WAITING_PICTURES),))
        loop = asyncio.get_running_loop()
        lanes = [ThreadLane(f"pictures#{i}", work, loop) for i in range(threads)]
        self._batcher: Batcher[Picture, Pixels] = Batcher(
            BatchQueue(policy, budget), lanes, clock, finished=_finished, expired=_expired
        )

    def submit(self, pictures: Sequence[Picture]) -> None:
        """Let the pictures of one request wait, all or none. Raises `QueueFull`."""
        for i, picture in enumerate(pictures):
            try:
                self._batcher.submit(picture)
            except QueueFull:
                self.discard(pictures[:i])
                raise

    def discard(self, pictures: Sequence[Picture]) -> None:
        """Forget those that no thread has begun with."""
        for picture in pictures:
            self._batcher.cancel(picture)

    async def close(self) -> None:
        """Finish what waits, and stop the threads."""
        await self._batcher.drain()
        self._batcher.close()


class PictureIntake:
    """The requests of one model version whose pictures are being decoded.

    One of the callbacks is called for every request that `begin` took, unless `cancel` takes it out before: `ready`
    with its inputs as the model's queue may have them, `late` where its deadline came first, `failed` with the reason.
    """

    def __init__(
        self,
        config: ModelConfig,
        preprocessing: ImagePreprocessing,
        decoder: PictureDecoder,
        clock: Clock,
        *,
        ready: Callable[[Work], None],
        late: Callable[[Work], None],
        failed: Callable[[Work, ConvoyError], None],
    ) -> None:
        self._config = config
        self._preprocessing = preprocessing
        self._normalization = Normalization(preprocessing)
        self._decoder = decoder
        self._clock = clock
        self._ready = ready
        self._late = late
        self._failed = failed
        self._requests: dict[Work, _Request] = {}
        self._drained: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        """Requests whose pictures wait or are being decoded."""
        return len(self._requests)

    def oldest_arrival(self) -> float:
        """When the one of them that has waited longest came; inf where there is none."""
        return min((work.arrived for work in self._requests), default=inf)

    def begin(self, work: Work) -> None:
        """Have a request's pictures decoded. Raises `QueueFull` and `InvalidRequest`, and holds nothing then."""
        config, plan, label = self._config, work.plan, work.request.label()
        if work.rows > MAX_WAITING_PICTURES:
            raise TooLarge(
                f"{label}a request for model '{config.name}' may hold {MAX_WAITING_PICTURES} images, got {work.rows}"
            )
        data = work.inputs[plan.pictures_at]
        assert isinstance(data, (bytes, memoryview, np.ndarray)), "they are as they came"
        request = _Request(self, work)
        request.pictures = [
            Picture(request, i, content, self._preprocessing, work)
            for i, content in enumerate(admission.pictures(config, plan, data, label))
        ]
        try:
            self._decoder.submit(request.pictures)
        except QueueFull:
            request.pictures = []  # they know the request: nothing should wait for a garbage collection
            raise
        self._requests[work] = request

    def cancel(self, work: Work) -> bool:
        """The caller has gone. False where the request is not here any more."""
        request = self._requests.get(work)
        if request is None:
            return False
        self._forget(request)
        return True

    async def drain(self) -> None:
        """Return when no request is left here."""
        if self._requests:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def finished(self, picture: Picture, outcome: Pixels | Exception) -> None:
        """A thread is done with a picture."""
        request = picture.request
        if request.work not in self._requests:
            return  # it was given up while this one was being decoded
        if isinstance(outcome, Exception):
            self._forget(request)
            self._failed(request.work, self._failure(picture, outcome))
            return
        request.decoded[picture.index] = outcome
        request.missing -= 1
        if not request.missing:
            self._complete(request)

    def expired(self, picture: Picture) -> None:
        """A picture's deadline has come before a thread had time for it."""
        request = picture.request
        if request.work in self._requests:
            self._forget(request)
            self._late(request.work)

    def _complete(self, request: _Request) -> None:
        work = request.work
        rows = PictureRows([pixels for pixels in request.decoded if pixels is not None], self._normalization)
        work.size += rows.nbytes - sum([picture.size for picture in request.pictures])
        self._forget(request)
        if work.deadline <= self._clock.now():
            self._late(work)
            return
        work.inputs[work.plan.pictures_at] = rows
        work.request.buffers = ()  # the files are not needed any more, and may be larger than what became of them
        self._ready(work)

    def _forget(self, request: _Request) -> None:
        del self._requests[request.work]
        self._decoder.discard(request.pictures)
        # The decoder's heap of deadlines may remember a picture for a while: it must not hold anything large.
        for picture in request.pictures:
            picture.data = b""
        request.pictures, request.decoded = [], []
        if self._drained is not None and not self._requests and not self._drained.done():
            self._drained.set_result(None)

    def _failure(self, picture: Picture, error: Exception) -> ConvoyError:
        label = picture.request.work.request.label()
        what = f"{label}image {picture.index} of input '{self._preprocessing.input}' for model '{self._config.name}'"
        if isinstance(error, ImageInvalid):
            return InvalidRequest(f"{what} {error}").logged_as(f"{what} cannot be used")
        log.error("%s could not be decoded", what, exc_info=error, extra=picture.request.work.request.log_fields())
        failed = f"{what} could not be decoded: {type(error).__name__}"
        return ExecutionFailed(f"{failed}: {error}").logged_as(failed)


def _finished(batch: Sequence[Picture], outcome: Pixels | Exception) -> None:
    (picture,) = batch
    picture.request.intake.finished(picture, outcome)


def _expired(picture: Picture) -> None:
    picture.request.intake.expired(picture)
