"""A scrape: what is copied, how, and the page that comes of it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.cache.store import StoreCounts
from server.errors import Reason
from server.frontends.rest.metrics import metrics_route
from server.loop_watch import LoopWatch
from server.metrics.snapshots import BuildSnapshot, CacheSnapshot, CallSnapshot, Snapshot, TransportSnapshot
from server.models.lifecycle import State
from server.models.registry import Registry
from server.observation import VERSIONS_AT_ONCE, Observer
from server.scheduling.turns import Turns
from server.statistics import no_failures
from tests.fakes import PuppetClock
from tests.unit.http_peer import Answer, Peer, request
from tests.unit.loaded import Bench, run
from tests.unit.metric_pages import page_of, snapshot, version


def observer(registry: Registry) -> Observer:
    return Observer(
        registry,
        Turns(2),
        lambda: 1,
        no_failures() | {Reason.INVALID: 3},
        lambda: [CallSnapshot("unary", "s", "m", 1, {"OK": 1})],
        lambda: TransportSnapshot(1, 2, 3, 4),
        LoopWatch(PuppetClock()),
        BuildSnapshot("v", "o", "g"),
        lambda: 5,
        lambda: (6, 700),
        answers=lambda: StoreCounts(1, 2, 3, 4, 5, is_connected=False, failed_lookups=6),
    )


def test_a_snapshot_has_what_a_version_is_doing_and_changes_no_more() -> None:
    async def main() -> None:
        bench = Bench()
        registry = Registry()
        registry.set_state("m", 3, State.LOADING)
        registry.set_ready("m", bench.version)
        await bench.keep_busy()
        bench.submit([1.0])
        bench.clock.advance(2)
        taken = await observer(registry).take()
        await bench.finish()
        [shown] = taken.versions
        assert (shown.model, shown.version, shown.pending, shown.in_flight) == ("m", 3, 1, 2)
        assert (shown.queue_age_seconds, shown.busy_seconds, shown.max_batch_rows) == (2, [2], 8)
        assert shown.statistics.success.count == 0
        assert (taken.server.max_running_batches, taken.server.failures[Reason.INVALID]) == (2, 3)
        assert taken.server.unseen_repositories == 1
        assert taken.server.lost_traces == 5
        assert (taken.server.shared_regions, taken.server.shared_bytes) == (6, 700)
        assert taken.cache == CacheSnapshot(1, 2, 3, 4, 5, 6, is_connected=False)
        assert (taken.calls[0].started, taken.transport) == (1, TransportSnapshot(1, 2, 3, 4))

    run(main)


def test_models_are_shown_by_what_became_of_their_versions() -> None:
    async def main() -> None:
        registry = Registry()
        for number, states in ((1, [State.LOADING]), (2, [State.LOADING, State.UNAVAILABLE])):
            for state in states:
                registry.set_state("half", number, state)
        registry.set_problem("broken", "its configuration is wrong")
        registry.entry("unwanted")
        for state in (State.LOADING, State.UNAVAILABLE):
            registry.set_state("unloaded", 1, state)
        registry.retire("unloaded")
        models = {model.name: model for model in (await observer(registry).take()).models}
        assert models["half"].ready == {"1": False, "2": False}
        assert (models["half"].loads, models["half"].failed_loads) == (0, 1)
        assert (models["broken"].ready, models["broken"].failed_loads) == ({"": False}, 1)
        assert models["unwanted"].ready == {}
        assert models["unloaded"].ready == {}

    run(main)


def test_the_loop_turns_while_many_versions_are_copied() -> None:
    async def main() -> None:
        registry = Registry()
        benches = [Bench() for _ in range(3)]
        many = [bench.version for bench in benches] * VERSIONS_AT_ONCE
        registry.active = lambda: many  # type: ignore[method-assign] # so many lanes would be so many threads
        turns = 0

        def count() -> None:
            nonlocal turns
            turns += 1
            asyncio.get_running_loop().call_soon(count)

        count()
        taken = await observer(registry).take()
        assert len(taken.versions) == 3 * VERSIONS_AT_ONCE
        assert turns >= 3
        for bench in benches:
            await bench.finish()

    run(main)


def get(path: str, method: str = "GET", **headers: str) -> Answer:
    async def take() -> Snapshot:
        return snapshot(version())

    async def main() -> Answer:
        with ThreadPoolExecutor(1) as renderer:
            peer = Peer([metrics_route(take, page_of(), renderer)])
            peer.send(request(method, path, **headers))
            await peer.sink.wrote.wait()
            (answer,) = peer.answers(method)
            return answer

    return asyncio.run(main())


def test_the_page_is_text_as_long_as_it_says() -> None:
    answer = get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert len(list(text_string_to_metric_families(answer.body.decode()))) > 50


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"accept": "application/openmetrics-text; version=1.0.0"}, ("content-type", "application/openmetrics-text")),
        ({"accept_encoding": "gzip"}, ("content-encoding", "gzip")),
    ],
    ids=["OpenMetrics", "gzip"],
)
def test_the_page_is_as_the_scraper_takes_it(headers: dict[str, str], expected: tuple[str, str]) -> None:
    name, value = expected
    assert get("/metrics", **headers).headers[name].startswith(value)


def test_names_may_be_asked_for() -> None:
    answer = get("/metrics?name%5B%5D=nv_inference_count&name[]=convoy_queue_age_us")
    shown = [family.name for family in text_string_to_metric_families(answer.body.decode())]
    assert sorted(shown) == ["convoy_queue_age_us", "nv_inference_count"]


@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 405)])
def test_nothing_else_is_there(path: str, method: str, status: int) -> None:
    assert get(path, method).status == status
