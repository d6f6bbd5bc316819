"""Requests with tensors in shared memory, through the data plane: read into the batch, written before the answer."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.engine import Engine
from server.errors import (
    InvalidRequest,
    NotFound,
    Reason,
    RegionNotFound,
    SharedMemoryFailed,
    TooLarge,
    Unsupported,
    WrongShape,
)
from server.messages import InferenceRequest, RequestedOutput, SharedPlace, SharedPlaces, TensorSpec
from server.models.lifecycle import State
from server.models.registry import Registry
from server.models.work import Work
from server.shared_memory.posix import PosixRegion
from server.shared_memory.regions import Regions
from server.shared_memory.tensors import SharedContents, SharedMemory
from server.tensors import Array
from tests.fakes import FakeDriver, OneReply
from tests.unit import loaded
from tests.unit.loaded import Bench, batching_config, request, turn, values


class Server:
    """A data plane with model 'm', and an object 'o' of 400 bytes, of which the region 'r' has the last 300."""

    def __init__(self, folder: Path, bench: Bench, max_request_bytes: int = 1000) -> None:
        self.object = folder / "o"
        self.object.write_bytes(bytes(400))
        self.bench = bench
        self.finished = False
        self.regions = Regions(folder=folder)
        self.regions.register_system("r", "o", 100, 300)
        self.registry = Registry()
        self.registry.set_state("m", 3, State.LOADING)
        self.registry.set_ready("m", bench.version)
        self.engine = Engine(self.registry, SharedMemory(self.regions, max_request_bytes))
        self.engine.begin_service()

    def put(self, offset: int, *numbers: float) -> SharedPlace:
        """Write numbers into the region."""
        data = np.array(numbers, np.float32).tobytes()
        with self.object.open("r+b") as file:
            file.seek(100 + offset)
            file.write(data)
        return SharedPlace("r", offset, len(data))

    def get(self, offset: int, count: int) -> list[float]:
        found: list[float] = np.frombuffer(self.object.read_bytes(), np.float32, count, 100 + offset).tolist()
        return found

    def infer(self, asked: InferenceRequest) -> tuple[Work | None, OneReply]:
        reply = OneReply()
        return self.engine.infer(asked, reply), reply

    async def finish(self) -> None:
        """Let everything run and be answered."""
        if not self.finished:
            self.finished = True
            await self.bench.finish()

    @property
    def is_held(self) -> bool:
        """Whether this process has the object open."""
        return any(os.path.realpath(f"/proc/self/fd/{fd}") == str(self.object) for fd in os.listdir("/proc/self/fd"))


Test = Callable[[Server], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    """A function that runs a test of a server, which it finishes."""

    def run_one(test: Test, max_request_bytes: int = 1000, **config: Any) -> None:
        async def main() -> None:
            server = Server(tmp_path, Bench(batching_config(**config)), max_request_bytes)
            await test(server)
            await server.finish()

        loaded.run(main)

    return run_one


def shared(place: SharedPlace, *outputs: tuple[str, SharedPlace], rows: int = 1, **more: Any) -> InferenceRequest:
    """A request whose input is there, and whose outputs are wanted there."""
    spec = TensorSpec("x", "FP32", (rows, place.byte_size // 4 // rows))
    asked = tuple(RequestedOutput(name) for name, _ in outputs)
    places = SharedPlaces((place,), outputs)
    return InferenceRequest("m", "", more.pop("request_id", ""), (spec,), (None,), asked, shared=places, **more)


def test_an_input_is_read_from_its_region(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        _, reply = server.infer(shared(server.put(8, 1.0, 2.0)))
        server.bench.gate.open()
        assert values(await reply.response()) == {"y": [[2.0, 4.0]], "z": [[-1.0, -2.0]]}

    run(test)


def test_an_output_is_written_to_its_region_and_the_answer_says_so(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        asked = request([3.0, 4.0])
        asked.outputs = (RequestedOutput("z"), RequestedOutput("y"))
        asked.shared = SharedPlaces((None,), (("y", SharedPlace("r", 40, 100)),))
        _, reply = server.infer(asked)
        server.bench.gate.open()
        response = await reply.response()
        assert response.places == (None, SharedPlace("r", 40, 8))
        assert server.get(36, 4) == [0.0, 6.0, 8.0, 0.0]

    run(test)


def test_requests_with_and_without_shared_memory_share_a_batch(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        await server.bench.keep_busy()
        place = server.put(0, 1.0, 2.0, 3.0, 4.0)
        _, first = server.infer(request([9.0, 9.0]))
        _, second = server.infer(shared(place, ("y", SharedPlace("r", 100, 16)), rows=2))
        _, third = server.infer(shared(place._replace(byte_size=8)))
        await server.finish()
        assert values(await first.response())["y"] == [[18.0, 18.0]]
        assert (await second.response()).outputs[0].shape == (2, 2)
        assert server.get(100, 4) == [2.0, 4.0, 6.0, 8.0]
        assert values(await third.response())["z"] == [[-1.0, -2.0]]
        assert [shapes["x"] for shapes in server.bench.session.shapes][1:] == [(4, 2)]

    run(test)


def test_an_input_is_read_when_its_batch_is_made(run: Callable[..., None]) -> None:
    """One copy, from the region into the batch: nothing was taken before."""

    async def test(server: Server) -> None:
        await server.bench.keep_busy()
        _, reply = server.infer(shared(server.put(0, 1.0)))
        server.put(0, 5.0)
        await server.finish()
        assert values(await reply.response())["y"] == [[10.0]]

    run(test)


@pytest.mark.parametrize("company", [False, True], ids=["alone", "in a batch"])
def test_an_input_is_copied_once_into_what_the_model_is_given(company: bool, run: Callable[..., None]) -> None:
    """On device memory, whose driver tells where it was asked to copy to."""
    given: list[tuple[int, int]] = []

    async def test(server: Server) -> None:
        def doubled(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            given.append((inputs["x"].ctypes.data, inputs["x"].nbytes))
            return loaded.doubled_and_negated(inputs)

        server.bench.session.function = doubled
        driver = FakeDriver()
        regions = Regions(driver)
        regions.register_cuda("d", FakeDriver.HANDLE, 0, 100)
        server.engine = Engine(server.registry, SharedMemory(regions, 1000))
        if company:
            await server.bench.keep_busy()
            server.infer(request([1.0, 2.0]))
        _, reply = server.infer(shared(SharedPlace("d", 16, 8)))
        await server.finish()
        assert (await reply.response()).outputs
        [target] = driver.targets
        (address, size) = given[-1]
        assert target == address + (8 if company else 0) and size == (16 if company else 8)

    run(test)


def test_an_object_cut_off_while_its_request_waits_fails_that_request_alone(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        await server.bench.keep_busy()
        place = server.put(200, 1.0, 2.0)
        _, before = server.infer(request([5.0, 5.0]))
        _, cut = server.infer(shared(place, ("y", SharedPlace("r", 0, 8))))
        _, behind = server.infer(request([7.0, 7.0]))
        os.truncate(server.object, 150)
        await server.finish()
        assert values(await before.response())["y"] == [[10.0, 10.0]]
        assert values(await behind.response())["y"] == [[14.0, 14.0]]
        error = await cut.error()
        assert isinstance(error, SharedMemoryFailed)
        assert str(error) == "an input of the request cannot be read: the object 'o' has become smaller than its region"
        assert server.engine.failures[Reason.INVALID] == 1
        assert server.bench.version.statistics.failed_runs == 0

    run(test)


def test_what_cannot_be_read_is_zeros_for_the_model(run: Callable[..., None]) -> None:
    """Not what staging memory has left of somebody else's batch."""

    async def test(server: Server) -> None:
        place, problems = server.put(0, 1.0, 2.0), list[str]()
        contents = SharedContents(server.regions.at(place), 0, 8, 1, problems)
        os.truncate(server.object, 104)
        row = np.full((1, 2), 9, np.float32)
        contents.write_into(row)
        assert row.tolist() == [[0.0, 0.0]]
        assert problems == ["the object 'o' has become smaller than its region"]

    run(test)


def test_an_object_cut_off_before_its_output_is_written_fails_that_request(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        await server.bench.keep_busy()
        _, reply = server.infer(shared(server.put(0, 1.0), ("y", SharedPlace("r", 200, 4))))
        os.truncate(server.object, 150)
        await server.finish()
        assert "has become smaller than its region" in str(await reply.error())
        assert server.object.stat().st_size == 150

    run(test)


def test_a_place_that_is_too_small_for_its_output_is_left_as_it_was(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        places = (("z", SharedPlace("r", 100, 50)), ("y", SharedPlace("r", 200, 7)))
        _, reply = server.infer(shared(server.put(0, 1.0, 2.0), *places))
        server.bench.gate.open()
        error = await reply.error()
        assert isinstance(error, SharedMemoryFailed)
        assert str(error) == (
            "shared memory size specified with the request for output 'y' (7 bytes) should be at least 8 bytes to "
            "hold the results"
        )
        assert server.get(100, 50) == [0.0] * 50

    run(test)


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (SharedPlace("q", 0, 8), RegionNotFound),
        (SharedPlace("r", 300, 8), InvalidRequest),
        (SharedPlace("r", -4, 8), InvalidRequest),
        (SharedPlace("r", 296, 8), InvalidRequest),
        (SharedPlace("r", 1, 2**63 - 1), InvalidRequest),
    ],
)
def test_a_place_that_is_none_is_refused_at_once(
    place: SharedPlace, kind: type[Exception], run: Callable[..., None]
) -> None:
    async def test(server: Server) -> None:
        asked = request([1.0, 2.0])
        asked.shared = SharedPlaces((place,), ())
        work, reply = server.infer(asked)
        assert work is None and type(await reply.error()) is kind
        assert server.engine.failures[Reason.INVALID] == 1

    run(test)


def test_an_output_has_its_place_before_the_request_is_taken(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        work, reply = server.infer(shared(server.put(0, 1.0), ("y", SharedPlace("r", 290, 20))))
        assert work is None and isinstance(await reply.error(), InvalidRequest)

    run(test)


def test_an_input_has_the_bytes_that_its_shape_says(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        asked = request([1.0, 2.0])
        asked.shared = SharedPlaces((SharedPlace("r", 0, 12),), ())
        work, reply = server.infer(asked)
        error = await reply.error()
        assert work is None and isinstance(error, WrongShape)
        assert "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 12" in str(error)

    run(test)


def test_what_a_request_has_there_counts_like_a_message(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        _, small = server.infer(shared(server.put(0, *[1.0] * 25)))
        work, large = server.infer(shared(server.put(0, *[1.0] * 26)))
        server.bench.gate.open()
        assert (await small.response()).outputs
        error = await large.error()
        assert work is None and isinstance(error, TooLarge)
        assert "the inputs in shared memory have 104 bytes together; a request may have 100" in str(error)

    run(test, max_request_bytes=100)


def test_a_negative_size_does_not_make_room_for_another(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        specs = tuple(TensorSpec(name, "BYTES", (1, 1)) for name in ("x", "y"))
        places = SharedPlaces((SharedPlace("r", 0, 200), SharedPlace("r", 0, -150)), ())
        _, reply = server.infer(InferenceRequest("m", "", "", specs, (None, None), shared=places))
        assert "Invalid offset + byte size" in str(await reply.error())

    run(test, max_request_bytes=100)


def test_a_forgotten_region_is_there_for_requests_in_progress_and_no_longer(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        await server.bench.keep_busy()
        _, reply = server.infer(shared(server.put(0, 1.5), ("y", SharedPlace("r", 40, 4))))
        server.regions.unregister(PosixRegion, "r")
        _, late = server.infer(shared(SharedPlace("r", 0, 4)))
        assert isinstance(await late.error(), RegionNotFound)
        assert server.is_held
        await server.finish()
        assert (await reply.response()).places == (SharedPlace("r", 40, 4),)
        assert server.get(40, 1) == [3.0]
        assert not server.is_held

    run(test)


@pytest.mark.parametrize("runs", [False, True], ids=["while it waits", "while it runs"])
def test_a_caller_that_leaves_lets_its_region_go(runs: bool, run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        if not runs:
            await server.bench.keep_busy()
        work, reply = server.infer(shared(server.put(0, 1.0), ("y", SharedPlace("r", 40, 4))))
        assert work is not None
        await turn()
        work.cancel()
        server.regions.unregister(PosixRegion, "r")
        await server.finish()
        assert not server.is_held
        assert reply.answers == []
        assert server.get(40, 1) == [0.0]

    run(test)


def test_a_request_for_a_model_that_is_not_there_holds_nothing(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        asked = shared(server.put(0, 1.0))
        asked.model_name = "nowhere"
        _, reply = server.infer(asked)
        del asked
        assert isinstance(await reply.error(), NotFound)
        server.regions.close()
        assert not server.is_held

    run(test)


def test_a_request_that_is_refused_holds_nothing(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        gc.disable()  # nothing here waits for it
        try:
            for place in (SharedPlace("r", 0, 5), SharedPlace("r", 0, 2)):
                _, reply = server.infer(shared(place, ("y", SharedPlace("r", 40, 4))))
                assert isinstance(await reply.error(), WrongShape)
            server.regions.close()
            assert not server.is_held
        finally:
            gc.enable()

    run(test)


def test_a_request_that_is_split_is_read_part_by_part_and_written_once(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        place = server.put(0, 1.0, 2.0, 3.0, 4.0, 5.0)
        _, reply = server.infer(shared(place, ("y", SharedPlace("r", 40, 20)), rows=5))
        server.bench.gate.open(3)
        assert (await reply.response()).outputs[0].shape == (5, 1)
        assert server.get(40, 5) == [2.0, 4.0, 6.0, 8.0, 10.0]

    run(test, max_batch_size=2, split_oversize=True)


def test_a_part_that_cannot_be_read_fails_the_request(run: Callable[..., None]) -> None:
    async def test(server: Server) -> None:
        await server.bench.keep_busy()
        _, reply = server.infer(shared(server.put(0, 1.0, 2.0, 3.0), rows=3))
        os.truncate(server.object, 108)
        await server.finish()
        assert "cannot be read" in str(await reply.error())

    run(test, max_batch_size=2, split_oversize=True)


def test_without_the_flag_nobody_has_shared_memory() -> None:
    async def main() -> None:
        reply = OneReply()
        Engine(Registry()).infer(shared(SharedPlace("r", 0, 4)), reply)
        error = await reply.error()
        assert isinstance(error, Unsupported) and "--allow-client-shm" in str(error)

    loaded.run(main)
