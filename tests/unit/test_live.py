"""What a version does now: pure, of a version on puppets, and as a page."""

from __future__ import annotations

import asyncio
from math import isnan
from typing import Any

import pytest

from server.errors import InvalidRequest, QueueFull, Reason
from server.frontends.rest import live
from server.frontends.rest.live import LiveRoutes
from server.live import MOST_BATCHES, SLICE_SECONDS, WINDOW_SECONDS, Observation, ObservedBatch
from server.models.lifecycle import State
from server.models.registry import Registry
from server.statistics import BatchTimes, VersionStatistics
from tests.unit.http_peer import Peer
from tests.unit.loaded import Bench, batching_config, run, turn


def times(start: float, seconds: float) -> BatchTimes:
    begin, end = round(start * 1e9), round((start + seconds) * 1e9)
    return BatchTimes(begin, begin, end, end)


def observed(statistics: VersionStatistics, now: float = 100.0) -> Observation:
    return Observation(statistics, now)


def record(observation: Observation, now: float, latencies: list[float], rows: int = 1) -> None:
    """A batch of these requests that took 1 ms and ends now."""
    observation.record_batch(now, times(now - 0.001, 0.001), rows, [now - latency for latency in latencies])


def test_a_batch_is_shown_with_its_size_its_times_and_its_longest_wait() -> None:
    observation = observed(VersionStatistics())
    observation.record_batch(100.050, times(100.040, 0.010), 48, [100.038, 100.010])
    assert observation.since(0) == [ObservedBatch(100_040_000, 48, 2, 10_000, 30_000)]


def test_whoever_comes_again_gets_the_batches_since() -> None:
    observation = observed(VersionStatistics())
    for rows in (1, 2, 3):
        record(observation, 100.0, [0.0], rows)
    seen = observation.ran
    record(observation, 100.1, [0.0], 4)
    assert [batch.rows for batch in observation.since(seen)] == [4]
    assert observation.since(observation.ran) == []


def test_no_more_batches_are_remembered_than_there_is_room_for() -> None:
    observation = observed(VersionStatistics())
    for _ in range(MOST_BATCHES + 5):
        record(observation, 100.0, [0.0])
    assert len(observation.since(0)) == MOST_BATCHES
    assert observation.ran == MOST_BATCHES + 5


def test_figures_are_of_the_last_seconds_alone() -> None:
    observation = observed(VersionStatistics())
    record(observation, 100.1, [9.0] * 100)
    for step in range(1, 10):
        now = 100.1 + step * SLICE_SECONDS
        record(observation, now, [0.010])
    figures = observation.figures(now, objective_us=20_000)
    assert WINDOW_SECONDS <= figures.seconds < WINDOW_SECONDS + SLICE_SECONDS
    assert figures.p50_us == pytest.approx(10_000, rel=0.02)
    assert figures.p99_us == pytest.approx(10_000, rel=0.02)
    assert figures.in_time == pytest.approx(7 / figures.seconds)


def test_answers_count_as_in_time_up_to_the_objective() -> None:
    observation = observed(VersionStatistics())
    record(observation, 100.2, [0.005, 0.010, 0.020, 0.050])
    assert observation.figures(102.0, objective_us=10_000).in_time == pytest.approx(2 / 2)
    assert observation.figures(102.0, objective_us=None).in_time is None


def test_answers_and_failures_count_from_when_the_observation_began() -> None:
    statistics = VersionStatistics()
    statistics.record_success(0, 1000)
    statistics.record_failure(QueueFull("full"), 0)
    statistics.record_failure(InvalidRequest("nonsense"), 0)
    observation = observed(statistics)
    for _ in range(6):
        statistics.record_success(0, 1000)
    for _ in range(4):
        statistics.record_failure(QueueFull("full"), 0)
    figures = observation.figures(102.0, None)
    assert figures.answered == pytest.approx(3)
    assert figures.failed == {Reason.QUEUE_FULL: pytest.approx(2)}


def test_at_its_beginning_there_are_no_figures() -> None:
    figures = observed(VersionStatistics()).figures(100.0, 1000.0)
    assert (figures.seconds, figures.answered, figures.in_time, figures.failed) == (0.0, 0.0, 0.0, {})
    assert isnan(figures.p50_us)


def test_a_version_tells_its_observer_of_every_batch() -> None:
    async def main() -> None:
        bench = Bench()
        busy = await bench.keep_busy()
        bench.version.statistics.observer = observation = Observation(bench.version.statistics, bench.clock.now())
        replies = [bench.submit([1.0]), bench.submit([1.0], [2.0])]
        await turn()
        occupancy = bench.version.occupancy()
        assert occupancy == (2, 3, 1)
        bench.clock.advance(0.25)
        await bench.finish()
        await asyncio.gather(busy.response(), *(reply.response() for _, reply in replies))
        assert [(batch.rows, batch.requests) for batch in observation.since(0)] == [(1, 1), (3, 2)]
        assert observation.figures(bench.clock.now(), None).p50_us == pytest.approx(250_000, rel=0.02)

    run(main)


class Watched:
    """The page of version 3 of 'm', on puppets."""

    def __init__(self, bench: Bench) -> None:
        registry = Registry()
        registry.set_state("m", 3, State.LOADING)
        registry.set_ready("m", bench.version)
        self._peer = Peer(LiveRoutes(registry).routes())

    def get(self, path: str = "/v2/models/m/live") -> tuple[int, Any]:
        answer = self._peer.ask("GET", path)
        return answer.status, answer.json


def test_the_page_has_the_moment_and_the_batches_since_the_cursor() -> None:
    async def main() -> None:
        bench = Bench(batching_config(objective_ms=40.0))
        watched = Watched(bench)
        status, first = watched.get()
        assert (status, first["policy"], first["objective_ms"], first["cursor"]) == (200, "slo", 40.0, 0)
        assert first["latency_us"] == {"p50": None, "p99": None}
        bench.gate.open(10_000)
        _, reply = bench.submit([1.0], [2.0])
        await reply.response()
        _, second = watched.get(f"/v2/models/m/versions/3/live?since={first['cursor']}")
        assert second["batches"]["rows"] == [2]
        assert second["batches"]["requests"] == [1]
        assert (second["cursor"], second["missed_batches"]) == (1, 0)
        _, third = watched.get("/v2/models/m/live?since=1&objective_ms=5")
        assert (third["batches"]["rows"], third["objective_ms"]) == ([], 5.0)
        _, restarted = watched.get("/v2/models/m/live?since=1000")
        assert restarted["batches"]["rows"] == [2]
        await bench.finish()

    run(main)


def test_nothing_is_kept_once_nobody_has_asked_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "KEEP_SECONDS", 0.0)

    async def main() -> None:
        bench = Bench()
        watched = Watched(bench)
        assert bench.version.statistics.observer is None
        watched.get()
        assert bench.version.statistics.observer is not None
        await turn()
        assert bench.version.statistics.observer is None
        status, page = watched.get("/v2/models/m/live?since=7")
        assert (status, page["cursor"]) == (200, 0)
        await bench.finish()

    run(main)


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/v2/models/nobody/live", 404, "unknown model"),
        ("/v2/models/m/versions/4/live", 404, "version 4 is not found"),
        ("/v2/models/m/live?since=x", 400, "query parameter 'since' must be a number from 0, not 'x'"),
        ("/v2/models/m/live?objective_ms=-1", 400, "query parameter 'objective_ms'"),
        ("/v2/models/m/live?objective_ms=nan", 400, "query parameter 'objective_ms'"),
    ],
)
def test_what_cannot_be_shown_says_why(path: str, status: int, error: str) -> None:
    async def main() -> None:
        bench = Bench()
        got, page = Watched(bench).get(path)
        assert got == status
        assert error in page["error"]
        await bench.finish()

    run(main)
