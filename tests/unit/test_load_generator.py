"""The load that the server makes itself: at its rate, within its bounds, and with every request accounted for."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from server import tensors
from server.engine import Engine
from server.errors import InvalidRequest, NotFound, Reason, ShuttingDown
from server.frontends.rest.bodies import Bodies
from server.frontends.rest.playground_load import load_routes
from server.ledger import Account
from server.load_generator import LATE_SECONDS, MOST_AT_ONCE, MOST_SECONDS, LoadGenerator, OfferedLoad
from server.messages import InferenceRequest
from server.models.config import TensorConfig, WindowBatching
from server.models.lifecycle import State
from server.models.registry import Registry
from server.models.samples import random_requests
from server.models.work import Answer, Pending, Reply
from tests.fakes import model_config
from tests.unit.http_peer import Peer
from tests.unit.loaded import Bench, X, Y, Z, batching_config, run, turn

FIXED = TensorConfig("x", tensors.FP32, (2,))
HERE, ELSEWHERE = "127.0.0.1:40000", "192.0.2.7:40000"
RATE = 100.0


class Loaded:
    """A server of version 3 of 'm', on puppets, and its generator."""

    def __init__(self, max_queued: int = 0, engine: type[Engine] = Engine) -> None:
        policy = batching_config(max_queue_size=max_queued).batching
        self.bench = Bench(model_config([FIXED], [Y, Z], batching=policy, max_batch_size=8))
        self.registry = Registry()
        self.registry.set_state("m", 3, State.LOADING)
        self.registry.set_ready("m", self.bench.version)
        self.engine = engine(self.registry)
        self.engine.begin_service()
        self.account = Account("playground")
        self.generator = LoadGenerator(self.engine, self.registry, self.account, self.bench.clock, Random(1))

    def begin(self, rate: float = RATE, seconds: float = 10.0, rows: int = 1) -> None:
        self.generator.begin(OfferedLoad("m", "", rate, seconds, rows))

    @property
    def sent(self) -> int:
        return self.generator.snapshot().sent

    async def keep_busy(self) -> None:
        """Put a request of somebody else's on the lane, until `finish`."""
        self.bench.submit([0.0, 0.0])
        await turn()
        assert self.bench.version.occupancy() == (0, 0, 1)

    async def finish(self) -> None:
        """Answer everything, and balance."""
        self.generator.stop()
        await self.bench.finish()
        assert list(self.account.problems()) == []
        assert self.generator.snapshot().in_progress == 0


def test_requests_are_sent_at_the_rate_and_all_are_answered() -> None:
    async def main() -> None:
        loaded = Loaded()
        loaded.begin()
        loaded.bench.clock.advance(5.0)
        assert loaded.sent == pytest.approx(5 * RATE, rel=0.2)
        await loaded.finish()
        state = loaded.generator.snapshot()
        assert (state.answered, state.failed, state.skipped) == (state.sent, {}, 0)
        assert loaded.account.answered == loaded.account.received == state.sent

    run(main)


def test_a_load_ends_by_itself() -> None:
    async def main() -> None:
        loaded = Loaded()
        loaded.begin(seconds=2.0)
        loaded.bench.clock.advance(2.0)
        sent = loaded.sent
        loaded.bench.clock.advance(10.0)
        assert loaded.sent == sent == pytest.approx(2 * RATE, rel=0.3)
        assert loaded.generator.snapshot().seconds_left == 0
        await loaded.finish()

    run(main)


def test_who_begins_again_changes_the_rate_and_renews_the_time() -> None:
    async def main() -> None:
        loaded = Loaded()
        loaded.begin(seconds=2.0)
        loaded.bench.clock.advance(1.5)
        before = loaded.sent
        loaded.begin(rate=10 * RATE, seconds=2.0)
        assert loaded.sent == before > 0
        loaded.bench.clock.advance(1.0)
        assert loaded.sent - before == pytest.approx(10 * RATE, rel=0.2)
        assert loaded.generator.snapshot().seconds_left == pytest.approx(1.0)
        await loaded.finish()

    run(main)


def test_what_the_queue_has_no_room_for_is_refused_as_for_everyone() -> None:
    async def main() -> None:
        loaded = Loaded(max_queued=4)
        await loaded.keep_busy()
        loaded.begin()
        loaded.bench.clock.advance(1.0)
        await turn()
        state = loaded.generator.snapshot()
        assert state.in_progress == loaded.bench.version.pending == 4
        assert state.failed == {Reason.QUEUE_FULL: state.sent - 4}
        assert loaded.bench.version.statistics.failures[Reason.QUEUE_FULL] == state.sent - 4
        await loaded.finish()

    run(main)


def test_a_model_that_goes_away_meanwhile_is_a_failure_of_each_request() -> None:
    async def main() -> None:
        loaded = Loaded()
        loaded.begin()
        loaded.registry.set_state("m", 3, State.DRAINING)
        loaded.bench.clock.advance(0.5)
        state = loaded.generator.snapshot()
        assert sum(state.failed.values()) == state.sent > 0
        await loaded.finish()

    run(main)


def test_an_event_loop_that_was_held_up_catches_up_a_little_and_skips_the_rest() -> None:
    async def main() -> None:
        loaded = Loaded()
        loaded.begin(rate=1000.0)
        alarm = loaded.bench.clock.alarms[-1]
        loaded.bench.clock.time += 2.0
        alarm.callback()
        state = loaded.generator.snapshot()
        assert state.sent == MOST_AT_ONCE
        assert state.skipped == pytest.approx(1000 * (2.0 - LATE_SECONDS), rel=0.01)
        loaded.bench.clock.advance(0.2)
        assert loaded.sent == pytest.approx(1000 * (LATE_SECONDS + 0.2), rel=0.2)
        await loaded.finish()

    run(main)


def test_a_server_that_goes_down_takes_no_load() -> None:
    async def main() -> None:
        loaded = Loaded()
        loaded.engine.begin_exit()
        with pytest.raises(ShuttingDown):
            loaded.begin()
        await loaded.finish()

    run(main)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate": 0.0}, "'rate' must be more than 0 and at most 20000"),
        ({"rate": 20_001.0}, "'rate' must be"),
        ({"seconds": MOST_SECONDS + 1}, "'seconds' must be more than 0 and at most 60"),
        ({"rows": 0}, "'rows' must be 1 to 64"),
        ({"rows": 65}, "'rows' must be 1 to 64"),
    ],
)
def test_a_load_has_limits(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        OfferedLoad(**{"model": "m", "version": "", "rate": 1.0, "seconds": 1.0, **change})


@pytest.mark.parametrize(
    ("config", "rows", "words"),
    [
        (model_config([X], [Y], batching=WindowBatching(), max_batch_size=8), 1, "input 'x' has dims"),
        (model_config([FIXED], [Y], batching=WindowBatching(), max_batch_size=8), 9, "of 9 rows: it takes 8 at most"),
        (model_config([FIXED], [Y], max_batch_size=0), 2, "of 2 rows: it takes 1 at most"),
        (model_config([TensorConfig("x", tensors.FP32, (1 << 22,))], [Y]), 1, "it would have 16777216 bytes"),
    ],
)
def test_requests_are_made_up_only_where_a_model_says_what_it_takes(config: Any, rows: int, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        random_requests(config, rows)


def test_requests_that_are_made_up_differ_and_have_the_rows_that_were_asked_for() -> None:
    config = model_config(
        [FIXED, TensorConfig("t", tensors.BYTES, (3,))], [Y], batching=WindowBatching(), max_batch_size=8
    )
    specs, samples = random_requests(config, 4)
    assert [(spec.name, spec.datatype, spec.shape) for spec in specs] == [("x", "FP32", (4, 2)), ("t", "BYTES", (4, 3))]
    assert {len(numbers) for numbers, _ in samples} == {4 * 2 * 4}
    assert len({bytes(numbers) for numbers, _ in samples}) == len(samples) > 1
    assert {bytes(texts) for _, texts in samples} == {bytes(4 * 12)}


def ask(loaded: Loaded, verb: str, body: bytes = b"", address: str = HERE) -> tuple[int, Any]:
    answer = Peer(load_routes(loaded.generator, Bodies(1 << 20), None), address=address).ask(
        verb, "/v2/playground/load", body
    )
    return answer.status, answer.json


def test_the_route_begins_shows_and_ends_a_load() -> None:
    async def main() -> None:
        loaded = Loaded()
        assert ask(loaded, "GET")[1]["running"] is False
        status, begun = ask(loaded, "POST", b'{"model": "m", "rate": 100, "rows": 4, "seconds": 9}')
        assert (status, begun["running"], begun["model"], begun["rows"]) == (200, True, "m", 4)
        assert (begun["rate"], begun["seconds_left"]) == (100.0, 9.0)
        loaded.bench.clock.advance(1.0)
        assert ask(loaded, "GET")[1]["sent"] == loaded.sent > 0
        status, ended = ask(loaded, "DELETE")
        assert (status, ended["running"], ended["seconds_left"]) == (200, False, 0.0)
        await loaded.finish()

    run(main)


@pytest.mark.parametrize("address", [ELSEWHERE, "[2001:db8::1]:40000", ""])
def test_nobody_on_another_machine_may_use_it(address: str) -> None:
    async def main() -> None:
        loaded = Loaded()
        for verb, body in (("GET", b""), ("POST", b'{"model": "m", "rate": 1}'), ("DELETE", b"")):
            status, answer = ask(loaded, verb, body, address)
            assert (status, "on the server's own machine" in answer["error"]) == (403, True)
        assert loaded.sent == 0
        await loaded.finish()

    run(main)


@pytest.mark.parametrize("address", [HERE, "[::1]:40000", "unix:"])
def test_everybody_on_this_machine_may(address: str) -> None:
    async def main() -> None:
        loaded = Loaded()
        assert ask(loaded, "GET", address=address)[0] == 200
        await loaded.finish()

    run(main)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"[]", 400, "must be an object"),
        (b'{"rate": 1}', 400, "the request has no 'model'"),
        (b'{"model": 1, "rate": 1}', 400, "'model' must be a string"),
        (b'{"model": "m"}', 400, "the request has no 'rate'"),
        (b'{"model": "m", "rate": true}', 400, "'rate' must be a number"),
        (b'{"model": "m", "rate": 1e9}', 400, "at most 20000"),
        (b'{"model": "m", "rate": 1, "rows": 1.5}', 400, "'rows' must be a whole number"),
        (b'{"model": "m", "rate": 1, "size": 1}', 400, "unknown field 'size'"),
        (b'{"model": "nobody", "rate": 1}', 404, "unknown model"),
        (b'{"model": "' + b"m" * 5000 + b'", "rate": 1}', 400, "4096 are allowed"),
    ],
)
def test_what_cannot_be_offered_says_why(body: bytes, status: int, words: str) -> None:
    async def main() -> None:
        loaded = Loaded()
        got, answer = ask(loaded, "POST", body)
        assert (got, words in answer["error"]) == (status, True), answer
        with pytest.raises(NotFound):
            loaded.generator.begin(OfferedLoad("nobody", "", 1.0, 1.0))
        await loaded.finish()

    run(main)


class Faulty(Engine):
    """Loses its first request, and answers the next one twice."""

    infers = 0

    def infer(self, request: InferenceRequest, reply: Reply) -> Pending | None:
        def twice(answer: Answer) -> None:
            reply(answer)
            reply(answer)

        self.infers += 1
        return None if self.infers == 1 else super().infer(request, twice if self.infers == 2 else reply)


def test_an_answer_too_many_is_noticed_at_once_and_makes_up_for_none_that_is_lost() -> None:
    async def main() -> None:
        loaded = Loaded(engine=Faulty)
        loaded.begin()
        loaded.bench.clock.advance(1.0)
        loaded.generator.stop()
        await loaded.bench.finish()
        assert list(loaded.account.problems()) == ["1 still in progress", "1 answered twice"]

    run(main)
