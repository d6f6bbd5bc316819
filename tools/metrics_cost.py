"""What the metrics cost: per request, per scrape, and while nothing happens.

    PYTHONPATH=. python tools/metrics_cost.py

- counting: the calls that count one request and its share of a batch, alone, without and with summaries.
- in process: a request from its bytes to its answer's (decode, admission, queue, batch, encode; a session that answers
  at once, no sockets), as it is, with summaries, and with nothing counted. In turns.
- scrape: the event loop while its page is asked for: the processor time that a scrape takes from it, and the longest
  time that it did not turn; as the server does it, and rendering on the loop.
- watching: processor time per second of an idle loop with the watch on it.

Processor time of the thread, which other programs change little: medians of rounds, and for counting alone the least.
The loop's gaps are wall time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import uvloop

from proto import grpc_service_pb2 as pb
from server.__main__ import SWITCH_SECONDS
from server.engine import Engine
from server.frontends.call_counts import CallCounts
from server.frontends.calls import StatusCode, UnaryMethod
from server.frontends.inference_service import MODEL_INFER, SERVICE, InferenceService
from server.loop_watch import LoopWatch
from server.metrics.machine import Machine
from server.metrics.page import MetricsPage, Request
from server.metrics.snapshots import BuildSnapshot
from server.metrics_config import MetricsConfig
from server.models.lifecycle import State
from server.models.model import LoadedVersion
from server.models.registry import Registry
from server.observation import Observer
from server.scheduling.clock import clock_for
from server.scheduling.turns import Turns
from server.statistics import BatchTimes, VersionStatistics
from server.summaries import LatencySummaries
from tools.instant_model import MODEL, InstantSession, instant_version, service_of

Scrape = Callable[[], Awaitable[object]]

IN_FLIGHT = 64
OPENMETRICS = Request("application/openmetrics-text; version=1.0.0", "gzip")


class Mute(VersionStatistics):
    """Counts nothing."""

    def record_batch(self, times: BatchTimes, rows: int, requests: int) -> None: ...

    def record_prediction(self, predicted: float, actual: float) -> None: ...

    def record_success(self, queue_ns: int, request_ns: int) -> None: ...

    def record_deadline(self, met: bool) -> None: ...


class OneCall:
    """A call that goes nowhere."""

    __slots__ = ("deadline", "ended", "metadata", "on_cancel")

    def __init__(self, ended: Callable[[], None]) -> None:
        self.deadline = time.monotonic() + 60
        self.ended = ended
        self.metadata: Mapping[str, str | bytes] = {}
        self.on_cancel: Callable[[], None] | None = None

    def reply(self, message: bytes) -> None:
        self.ended()

    def send_initial_metadata(self, metadata: Mapping[str, str | bytes]) -> None: ...

    def set_trailing_metadata(self, metadata: Mapping[str, str | bytes]) -> None: ...

    def compress_messages(self, wanted: bool) -> None: ...

    def send(self, message: bytes) -> None: ...

    def finish(self) -> None: ...

    def fail(self, status: StatusCode, message: str) -> None:
        raise RuntimeError(f"{status.name}: {message}")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="of each kind, in turns (%(default)s)")
    parser.add_argument("--requests", type=int, default=6_400, help="per round (%(default)s)")
    parser.add_argument("--versions", default="2,50", help="on the page (%(default)s)")
    arguments = parser.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    for requests in (1, 8, 64):
        plain, summed = (counting(requests, summaries, arguments.rounds) for summaries in (False, True))
        print(f"counting, {requests} in a batch: {plain:.2f} µs per request, {summed:.2f} with summaries")
    uvloop.run(in_process(arguments.rounds, arguments.requests))
    for versions in map(int, arguments.versions.split(",")):
        uvloop.run(scraping(versions, arguments.rounds))
    uvloop.run(watching())


def counting(requests: int, summaries: bool, rounds: int) -> float:
    """µs per request."""
    statistics, latest = VersionStatistics(), LatencySummaries()
    calls = CallCounts({"/s/m": UnaryMethod(lambda call, message: None)}).of("/s/m")
    times = BatchTimes(0, 2_000, 90_000, 95_000)
    busy, since = {calls: 0.0}, {calls: 0.0}
    batches = max(1, 4_000 // requests)
    taken: list[float] = []
    for _ in range(rounds):
        began = time.thread_time_ns()
        for _ in range(batches):
            since[calls] = 1.0
            busy[calls] += 0.5
            del since[calls]
            statistics.record_prediction(0.001, 0.002)
            statistics.record_batch(times, requests, requests)
            if summaries:
                latest.record_batch(1.0, times, requests)
            for _ in range(requests):
                calls.started += 1
                statistics.record_success(60_000, 150_999)
                statistics.record_deadline(True)
                if summaries:
                    latest.record_request(1.0, 60_000, 150_999)
                calls.handled[StatusCode.OK] += 1
        taken.append((time.thread_time_ns() - began) / 1000 / batches / requests)
    return min(taken)


async def in_process(rounds: int, requests: int) -> None:
    """Print µs per request with counting, with summaries, and without counting."""
    kinds: dict[str, Callable[[], LoadedVersion]] = {
        "with": lambda: version(1),
        "and summaries": lambda: version(1, LatencySummaries()),
        "without": lambda: muted(version(1)),
    }
    versions = {name: make() for name, make in kinds.items()}
    services = {name: service_of(loaded) for name, loaded in versions.items()}
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(rounds + 1):
        for name, served in services.items():
            us = await volley(served, requests) / requests
            if turn:  # the first one warms
                taken[name].append(us)
    for loaded in versions.values():
        await loaded.drain()
    row = ", ".join(
        f"{name} {median(times):.2f} ({min(times):.2f} to {max(times):.2f})" for name, times in taken.items()
    )
    pairs = zip(taken["with"], taken["without"], strict=True)
    print(f"in process, µs per request: {row}; counting {median(a - b for a, b in pairs):.2f}")


async def volley(served: InferenceService, requests: int) -> float:
    """µs of this thread for so many requests, some in flight at once."""
    message = pb.ModelInferRequest(model_name=MODEL)
    message.inputs.add(name="x", datatype="FP32", shape=(1, 4))
    message.raw_input_contents.append(bytes(16))
    data = message.SerializeToString()
    infer = served.methods()[f"/{SERVICE}/{MODEL_INFER}"].handle
    missing = 0
    all_answered = asyncio.Event()

    def ended() -> None:
        nonlocal missing
        missing -= 1
        if not missing:
            all_answered.set()

    gc.collect()
    began = time.thread_time_ns()
    for _ in range(0, requests, IN_FLIGHT):
        missing = IN_FLIGHT
        all_answered.clear()
        for _ in range(IN_FLIGHT):
            infer(OneCall(ended), data)
        await all_answered.wait()
    return (time.thread_time_ns() - began) / 1000


async def scraping(versions: int, rounds: int) -> None:
    """Print what a scrape does to the loop, two ways."""
    registry = Registry()
    for number in range(1, versions + 1):
        registry.set_state(MODEL, number, State.LOADING)
        registry.set_ready(MODEL, used(version(number)))
    watch = LoopWatch(clock_for(asyncio.get_running_loop()))
    calls = CallCounts({"/s/m": UnaryMethod(lambda call, message: None)})
    engine = Engine(registry)
    build = BuildSnapshot("v", "o", "g")
    observer = Observer(registry, Turns(2), int, engine.failures, calls.snapshot, lambda: None, watch, build)
    page = MetricsPage(MetricsConfig(), Machine(time.monotonic, interval=2, cpu=True))
    renderer = ThreadPoolExecutor(1)

    async def beside() -> int:
        snapshot = await observer.take()
        loop = asyncio.get_running_loop()
        return len((await loop.run_in_executor(renderer, page.render, snapshot, OPENMETRICS)).body)

    async def on_the_loop() -> int:
        return len(page.render(await observer.take(), OPENMETRICS).body)

    async def nothing() -> None:
        await asyncio.sleep(0.05)

    for name, scrape in (("no scrape", nothing), ("rendered beside", beside), ("rendered on it", on_the_loop)):
        busy = [await processor_time(scrape) for _ in range(rounds + 1)][1:]
        gaps = [await longest_gap(scrape) for _ in range(rounds)]
        print(
            f"the loop, {versions} versions, {name}: {median(busy):.2f} ms of processor time; "
            f"longest gap {median(gaps):.2f} ms ({min(gaps):.2f}–{max(gaps):.2f})"
        )
    renderer.shutdown()
    await asyncio.gather(*(loaded.drain() for loaded in registry.loaded()))
    watch.stop()


async def processor_time(scrape: Scrape) -> float:
    """Milliseconds of this thread's."""
    began = time.thread_time_ns()
    await scrape()
    return (time.thread_time_ns() - began) / 1e6


async def longest_gap(scrape: Scrape) -> float:
    """Milliseconds that the loop, which has something to do all the time, did not come to it."""
    longest, last, over = 0.0, time.perf_counter(), False

    async def turn() -> None:
        nonlocal longest, last
        while not over:
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    await scrape()
    await asyncio.sleep(0)
    over = True
    await turning
    return longest * 1000


async def watching() -> None:
    """Print what a watch costs a loop that does nothing else."""
    seconds = 10
    watch = LoopWatch(clock_for(asyncio.get_running_loop()))
    figures: list[float] = []
    for on in (False, True):
        if on:
            watch.start()
        began = time.process_time_ns()
        await asyncio.sleep(seconds)
        figures.append((time.process_time_ns() - began) / 1000 / seconds)
    watch.stop()
    off_us, on_us = figures
    print(
        f"watching: {on_us:.0f} µs of processor time per second, {off_us:.0f} without: {(on_us - off_us) / 1e4:.4f} %"
    )


def version(number: int, summaries: LatencySummaries | None = None) -> LoadedVersion:
    """A loaded version that answers on the event loop's thread once it has been measured."""
    return instant_version(InstantSession("x", (4,), "y", (4,)), 64, number, summaries=summaries)


def muted(loaded: LoadedVersion) -> LoadedVersion:
    loaded.statistics = Mute()
    return loaded


def used(loaded: LoadedVersion) -> LoadedVersion:
    """As after many requests: every batch size has been seen, and has a cost."""
    for rows in (1, 2, 4, 8, 16, 32, 64):
        for _ in range(200):
            loaded.costs.observe(rows, 0.001 * rows)
            loaded.statistics.record_batch(BatchTimes(0, 2_000, 90_000, 95_000), rows, rows)
    loaded.statistics.record_success(60_000, 150_999)
    return loaded


if __name__ == "__main__":
    main()
