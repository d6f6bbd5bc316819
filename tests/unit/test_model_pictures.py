"""A loaded version that takes pictures: through decoding to the queue. Time and decoding are the test's."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server import tensors
from server.errors import DeadlineExceeded, ExecutionFailed, InvalidRequest, QueueFull, QueueTimeout
from server.messages import InferenceRequest, InferenceResponse, SharedPlace, TensorSpec
from server.models import pictures
from server.models.config import TensorConfig, WindowBatching
from server.models.model import LoadedVersion
from server.models.pictures import PictureDecoder
from server.models.work import Work
from server.pictures.pixels import Pixels
from server.pictures.preprocessing import ImageInvalid, ImagePreprocessing
from server.scheduling.budget import ByteBudget
from server.shared_memory.regions import Regions
from server.shared_memory.tensors import SharedContents
from server.tensors import Array, Buffer, Stored, encode_bytes_elements
from tests.fakes import Gate, OneReply, PuppetClock, PuppetSession, fp32, model_config
from tests.pictures import preprocessing
from tests.unit.loaded import run, turn

WANTED = preprocessing(height=2, width=2, resize=(2, 2), scale=1.0, mean=(0.0,) * 3, std=(2.0,) * 3)
X = TensorConfig("x", tensors.FP32, (3, 2, 2))
Y = TensorConfig("y", tensors.FP32, (3, 2, 2))


class Studio:
    """A version whose pictures are files of one byte: the value of all their pixels. The model sees half of it.

    While `decoding` is shut, no picture gets done. `decoded` has what the threads have begun with.
    """

    def __init__(self, *, threads: int = 1, budget: ByteBudget | None = None, **config: Any) -> None:
        self.decoding = Gate()
        self.clock = PuppetClock(now=1000)
        self.decoded: list[int] = []
        self.threads: set[str] = set()
        batching = config.pop("batching", WindowBatching())
        self.session = PuppetSession([fp32("x", -1, 3, 2, 2)], [fp32("y", -1, 3, 2, 2)], self._model)
        self.decoder = PictureDecoder(self._decode, threads, self.clock, budget)
        settings = model_config([X], [Y], batching=batching, preprocessing=WANTED, **config)
        self.version = LoadedVersion(
            settings, 3, [self.session], self.clock, budget=budget, tiny_batch_seconds=0.0, decoder=self.decoder
        )

    def send(self, *values: int, **more: Any) -> tuple[Work | None, OneReply]:
        """A request of one file for each of these values."""
        files = np.empty(len(values), object)
        files[:] = [bytes([value]) for value in values]
        return self.submit(TensorSpec("x", "BYTES", (len(values),)), encode_bytes_elements(files), **more)

    def submit(
        self, spec: TensorSpec, data: Buffer | Array | Stored | None, **more: Any
    ) -> tuple[Work | None, OneReply]:
        reply = OneReply()
        request = InferenceRequest("m", "", more.pop("request_id", "r"), (spec,), (data,), **more)
        return self.version.submit(request, reply), reply

    async def finish(self) -> None:
        self.decoding.open(10_000)
        await self.version.drain()
        await turn()
        await self.decoder.close()

    def _decode(self, data: Buffer | Array, wanted: ImagePreprocessing) -> Pixels:
        value = data[0] if isinstance(data, (bytes, memoryview)) else int(data.flat[0])
        self.decoded.append(value)
        self.threads.add(threading.current_thread().name)
        self.decoding.wait()
        if value == 13:
            raise ImageInvalid("is unlucky")
        if value == 66:
            raise MemoryError("no room")
        return np.full(wanted.shape, value, np.uint8)

    def _model(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": inputs["x"]}


async def seen(reply: OneReply) -> list[float]:
    """What the model saw of each row."""
    answer = await reply.response()
    (output,) = answer.outputs
    assert output.data.shape[1:] == (3, 2, 2)
    assert all(len(set(row.ravel().tolist())) == 1 for row in output.data)
    return [float(row.flat[0]) for row in output.data]


async def until_decoding(studio: Studio, count: int = 1) -> None:
    while len(studio.decoded) < count:
        await turn()


def test_pictures_become_rows_in_their_order() -> None:
    async def main() -> None:
        studio = Studio(threads=3)
        _, reply = studio.send(10, 20, 30)
        await studio.finish()
        assert await seen(reply) == [5.0, 10.0, 15.0]
        assert studio.threads <= {"pictures#0", "pictures#1", "pictures#2"}
        assert studio.version.in_flight == 0

    run(main)


def test_files_pixels_and_ready_tensors_share_a_batch() -> None:
    async def main() -> None:
        window = WindowBatching(max_queue_delay_us=10**9)
        studio = Studio(batching=window, max_batch_size=4)
        ready = np.full((1, 3, 2, 2), 7, np.float32)
        _, tensor = studio.submit(TensorSpec("x", "FP32", ready.shape), ready.tobytes())
        pixels = np.full((1, 5, 9, 4), 40, np.uint8)
        _, pixel = studio.submit(TensorSpec("x", "UINT8", pixels.shape), pixels.tobytes())
        files = np.empty((2, 1), object)
        files[:, 0] = [b"\x02", b"\x04"]
        _, typed = studio.submit(TensorSpec("x", "BYTES", (2, 1)), files)
        await studio.finish()
        assert (await seen(tensor), await seen(pixel), await seen(typed)) == ([7.0], [20.0], [1.0, 2.0])
        assert [shapes["x"] for shapes in studio.session.shapes] == [(4, 3, 2, 2)]

    run(main)


def test_pixels_may_lie_in_shared_memory(tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(bytes([0, 0, *[40] * 90, 0]))

    async def main() -> None:
        studio = Studio()
        regions = Regions(folder=tmp_path)
        regions.register_system("r", "o", 2, 90)
        place = SharedPlace("r", 0, 90)
        _, reply = studio.submit(
            TensorSpec("x", "UINT8", (2, 5, 3, 3)), SharedContents(regions.at(place), 0, 90, 2, [])
        )
        await studio.finish()
        assert await seen(reply) == [20.0, 20.0]

    run(main)


def test_a_model_without_a_batch_axis_takes_one_picture() -> None:
    async def main() -> None:
        studio = Studio(max_batch_size=0, batching=None)
        _, reply = studio.submit(TensorSpec("x", "BYTES", (1,)), encode_bytes_elements(np.array([b"\x08"], object)))
        await studio.finish()
        assert (await reply.response()).outputs[0].data.tolist() == np.full((3, 2, 2), 4.0).tolist()

    run(main)


def test_a_corrupt_picture_fails_its_own_request_and_nobody_else() -> None:
    async def main() -> None:
        studio = Studio()
        studio.decoding.open(10_000)
        replies = [studio.send(10)[1], studio.send(2, 13, 4)[1], studio.send(20)[1]]
        error = await replies[1].error()
        await studio.finish()
        assert isinstance(error, InvalidRequest)
        assert str(error) == "[request id: r] image 1 of input 'x' for model 'm' is unlucky"
        assert (await seen(replies[0]), await seen(replies[2])) == ([5.0], [10.0])
        assert 4 not in studio.decoded  # nobody wants it any more
        assert studio.version.statistics.fail.count == 1

    run(main)


def test_a_decoder_that_breaks_is_the_servers_fault() -> None:
    async def main() -> None:
        studio = Studio()
        _, reply = studio.send(66)
        await studio.finish()
        error = await reply.error()
        assert isinstance(error, ExecutionFailed)
        assert "could not be decoded: MemoryError: no room" in str(error)

    run(main)


def test_requests_are_pending_while_their_pictures_wait_and_the_loop_is_free() -> None:
    async def main() -> None:
        studio = Studio()
        studio.send(1)
        studio.send(2)
        await until_decoding(studio)
        assert (studio.version.pending, studio.version.in_flight) == (2, 2)
        ready = np.full((1, 3, 2, 2), 7, np.float32)
        _, other = studio.submit(TensorSpec("x", "FP32", ready.shape), ready.tobytes())
        assert await seen(other) == [7.0]  # while a thread decodes
        assert studio.version.pending == 2
        await studio.finish()
        assert studio.version.pending == 0

    run(main)


def test_a_late_request_is_not_decoded() -> None:
    async def main() -> None:
        studio = Studio()
        studio.send(1)
        await until_decoding(studio)
        _, timed_out = studio.send(2, 3, timeout_us=50_000)
        _, too_late = studio.send(4, deadline=1000.1)
        await turn()
        studio.clock.advance(0.05)
        assert isinstance(await timed_out.error(), QueueTimeout)
        assert not too_late.answers
        studio.clock.advance(0.06)
        assert isinstance(await too_late.error(), DeadlineExceeded)
        await studio.finish()
        assert studio.decoded == [1]

    run(main)


def test_a_request_whose_deadline_comes_while_it_is_decoded_is_not_run() -> None:
    async def main() -> None:
        studio = Studio()
        _, reply = studio.send(1, deadline=1000.1)
        await until_decoding(studio)
        studio.clock.advance(0.2)
        studio.decoding.open()
        assert isinstance(await reply.error(), DeadlineExceeded)
        await studio.finish()
        assert studio.session.shapes == []

    run(main)


@pytest.mark.parametrize("begun", [False, True])
def test_a_caller_that_goes_away_takes_its_pictures_along(begun: bool) -> None:
    async def main() -> None:
        studio = Studio()
        work, reply = studio.send(1, 2)
        assert work is not None
        if begun:
            await until_decoding(studio)
        work.cancel()
        work.cancel()
        assert studio.version.in_flight == 0
        _, other = studio.send(20)
        await studio.finish()
        assert reply.answers == []
        assert await seen(other) == [10.0]
        assert studio.decoded == ([1, 20] if begun else [20])

    run(main)


def test_a_request_of_too_many_pictures_for_a_batch_is_decoded_and_then_split() -> None:
    async def main() -> None:
        studio = Studio(threads=2, max_batch_size=2, split_oversize=True)
        _, reply = studio.send(2, 4, 6, 8, 10)
        gone, _ = studio.send(2, 4, 6)
        assert gone is not None
        gone.cancel()
        await studio.finish()
        assert await seen(reply) == [1.0, 2.0, 3.0, 4.0, 5.0]
        assert sum(shapes["x"][0] for shapes in studio.session.shapes) == 5

    run(main)


def test_answers_keep_the_order_of_arrival_where_asked() -> None:
    async def main() -> None:
        studio = Studio(batching=WindowBatching(preserve_ordering=True))
        _, picture = studio.send(2)
        _, corrupt = studio.send(13)
        ready = np.full((1, 3, 2, 2), 7, np.float32)
        _, tensor = studio.submit(TensorSpec("x", "FP32", ready.shape), ready.tobytes())
        order: list[str] = []
        for name, reply in (("picture", picture), ("tensor", tensor)):
            reply.answers = _Recording(order, name)  # type: ignore[assignment]
        while not studio.session.shapes:
            await turn()
        assert order == []
        await studio.finish()
        assert order == ["picture", "tensor"]
        assert isinstance(await corrupt.error(), InvalidRequest)

    run(main)


class _Recording(list[InferenceResponse]):
    def __init__(self, order: list[str], name: str) -> None:
        super().__init__()
        self._order, self._name = order, name

    def append(self, answer: InferenceResponse) -> None:
        self._order.append(self._name)
        super().append(answer)


def test_only_so_many_pictures_wait() -> None:
    async def main() -> None:
        studio = Studio(max_batch_size=2000)
        _, first = studio.send(*[2] * pictures.MAX_WAITING_PICTURES)
        await until_decoding(studio)
        _, one = studio.send(4)
        _, full = studio.send(6, 8)
        _, never = studio.send(*[2] * (pictures.MAX_WAITING_PICTURES + 1))
        refusal = await full.error()
        assert isinstance(refusal, QueueFull)
        assert str(refusal) == "[request id: r] Exceeds maximum queue size"
        assert isinstance(await never.error(), InvalidRequest)
        await studio.finish()
        assert (await seen(first))[-1] == 1.0
        assert await seen(one) == [2.0]
        assert 8 not in studio.decoded and studio.version.in_flight == 0

    run(main)


def test_waiting_pictures_count_in_bytes_and_give_them_back() -> None:
    async def main() -> None:
        budget = ByteBudget(100)
        studio = Studio(budget=budget)
        studio.send(1)
        await until_decoding(studio)
        big = np.full((1, 10, 5, 1), 1, np.uint8)
        spec = TensorSpec("x", "UINT8", big.shape)
        _, fits = studio.submit(spec, big.tobytes())
        _, too_many = studio.submit(TensorSpec("x", "UINT8", (1, 17, 3, 1)), bytes(51))
        assert budget.used == 50
        assert "Exceeds maximum queued bytes" in str(await too_many.error())
        await studio.finish()
        assert await seen(fits) == [0.5]
        assert budget.used == 0

    run(main)


def test_what_a_queue_has_no_room_for_after_decoding_is_refused() -> None:
    async def main() -> None:
        budget = ByteBudget(20)
        studio = Studio(budget=budget, batching=WindowBatching(max_queue_delay_us=10**9))
        studio.decoding.open(10_000)
        _, first = studio.send(2)
        while studio.version.pending and not budget.used:
            await turn()
        while len(studio.decoded) < 1 or budget.used < 12:  # 12 bytes of pixels wait
            await turn()
        _, second = studio.send(4)
        refusal = await second.error()
        await studio.finish()
        assert isinstance(refusal, QueueFull)
        assert "[request id: r] Exceeds maximum queued bytes" in str(refusal)
        assert await seen(first) == [1.0]
        assert (studio.version.in_flight, budget.used) == (0, 0)

    run(main)


def pixels_spec(*shape: int) -> TensorSpec:
    return TensorSpec("x", "UINT8", shape)


SHAPES: dict[str, tuple[TensorSpec, Buffer | Array | None, str]] = {
    "files in two columns": (TensorSpec("x", "BYTES", (1, 2)), b"", "Encoded images are one element a row, got [1,2]."),
    "too few files": (
        TensorSpec("x", "BYTES", (2,)),
        encode_bytes_elements(np.array([b"a"], object)),
        "incorrect contents of BYTES input 'x' for model 'm': expected 2 elements, got 1",
    ),
    "too few typed files": (TensorSpec("x", "BYTES", (2,)), np.array([b"a"], object), "expected 2 elements, got 1"),
    "a file cut off": (TensorSpec("x", "BYTES", (1,)), b"\x05\0\0\0abc", "element 0 claims 5 bytes, but 3 are left"),
    "no data": (TensorSpec("x", "BYTES", (1,)), None, "unable to find data for input tensor 'x' for model 'm'"),
    "no rows": (TensorSpec("x", "BYTES", (0,)), b"", "batch-size must be >= 1"),
    "planes": (pixels_spec(1, 3, 9, 9), bytes(243), "UINT8 images are height, width and 1, 3 or 4 channels"),
    "no channels": (pixels_spec(1, 9, 9), bytes(81), "UINT8 images are height, width"),
    "no height": (pixels_spec(1, 0, 9, 3), b"", "UINT8 images are height, width"),
    "wrong size": (pixels_spec(1, 9, 9, 3), bytes(242), "input byte size mismatch for input 'x' for model 'm'"),
    "too many pixels": (pixels_spec(1, 10**6, 10**6, 3), b"", "have 1000000×1000000 pixels; model 'm' takes 25000000"),
    "another type": (TensorSpec("x", "INT8", (1, 9, 9, 3)), bytes(243), "data-type is 'INT8', but model 'm' expects"),
    "ready but of another size": (TensorSpec("x", "FP32", (1, 3, 9, 9)), bytes(972), "Expected [-1,3,2,2], got"),
}


@pytest.mark.parametrize("case", SHAPES)
def test_what_is_no_picture_is_refused_at_once(case: str) -> None:
    async def main() -> None:
        spec, data, problem = SHAPES[case]
        studio = Studio()
        work, reply = studio.submit(spec, data)
        assert work is None
        error = await reply.error()
        assert isinstance(error, InvalidRequest)
        assert problem in str(error)
        assert (studio.version.pending, studio.version.in_flight) == (0, 0)
        await studio.finish()

    run(main)


def test_an_input_of_8_bits_takes_its_own_shape_as_it_is() -> None:
    async def main() -> None:
        wanted = preprocessing(
            height=2, width=2, resize=(2, 2), datatype=tensors.UINT8, channels_first=False, max_pixels=99
        )
        own, other = TensorConfig("x", tensors.UINT8, (2, 2, 3)), TensorConfig("y", tensors.UINT8, (2, 2, 3))
        clock = PuppetClock(now=1000)
        session = PuppetSession([fp32("x", -1)], [fp32("y", -1)], lambda inputs: {"y": inputs["x"]})
        decoder = PictureDecoder(_white, 1, clock)
        config = model_config([own], [other], batching=WindowBatching(), preprocessing=wanted)
        version = LoadedVersion(config, 1, [session], clock, decoder=decoder)
        replies: list[OneReply] = []
        for shape in ((1, 2, 2, 3), (1, 4, 4, 3)):
            replies.append(OneReply())
            data = bytes(int(np.prod(shape)))
            version.submit(InferenceRequest("m", "", "", (pixels_spec(*shape),), (data,), deadline=inf), replies[-1])
        answers = [int((await reply.response()).outputs[0].data.max()) for reply in replies]
        await version.drain()
        await decoder.close()
        assert answers == [0, 255]

    run(main)


def _white(_: Buffer | Array, wanted: ImagePreprocessing) -> Pixels:
    return np.full(wanted.shape, 255, np.uint8)
