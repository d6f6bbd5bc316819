"""Single flight as machines: the pure part beside lists, and whole versions through any order of events."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.cache.flights import Flights
from server.cache.local import LocalStore
from server.messages import InferenceResponse
from server.scheduling.budget import ByteBudget
from tests.unit.loaded import Bench, run, turn, values
from tests.unit.test_cached import DistantStore

KEYS = st.sampled_from("ab")


class Flying(RuleBasedStateMachine):
    """The flights beside one list of who waits for what, in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self.flights: Flights[str, int] = Flights()
        self.line: list[tuple[str, int]] = []
        self.next = 0

    def waiting(self, key: str) -> list[int]:
        return [waiter for other, waiter in self.line if other == key]

    @rule(key=KEYS)
    def join(self, key: str) -> None:
        leads = not self.waiting(key)
        self.line.append((key, self.next))
        assert self.flights.join(key, self.next) is leads
        self.next += 1

    @rule(key=KEYS, data=st.data())
    def leave(self, key: str, data: st.DataObject) -> None:
        waiter = data.draw(st.integers(0, self.next))
        led = self.waiting(key)[:1] == [waiter]
        assert self.flights.leave(key, waiter) is led
        self.line = [each for each in self.line if each != (key, waiter)]

    @rule(key=KEYS)
    def land(self, key: str) -> None:
        assert self.flights.land(key) == self.waiting(key)
        self.line = [each for each in self.line if each[0] != key]

    @invariant()
    def same(self) -> None:
        for key in "ab":
            assert self.flights.members(key) == self.waiting(key)
            assert self.flights.leader(key) == next(iter(self.waiting(key)), None)
            assert (key in self.flights) == bool(self.waiting(key))
        assert sorted(self.flights) == sorted({key for key, _ in self.line})
        assert len(self.flights) == len({key for key, _ in self.line})


TestFlying = Flying.TestCase
TestFlying.settings = settings(max_examples=40, deadline=None)

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 2), st.sampled_from([None, 1.0, 5.0])),
        st.tuples(st.just("cancel"), st.integers(0, 20), st.none()),
        st.tuples(st.just("advance"), st.sampled_from([0, 2, 9]), st.none()),
        st.tuples(st.just("found"), st.none(), st.none()),
        st.tuples(st.just("run"), st.none(), st.none()),
        st.tuples(st.just("turn"), st.none(), st.none()),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=100)
@given(EVENTS, st.booleans(), st.booleans())
def test_everybody_is_answered_once_and_rightly_whatever_happens(events: Any, distant: bool, fails: bool) -> None:
    """Nothing is left behind, successes are hits and misses, and nothing is computed without a reason."""

    async def main() -> None:
        runs = 0

        def function(inputs: Any) -> Any:
            nonlocal runs
            runs += len(inputs["x"])
            if fails and 2.0 in inputs["x"]:
                raise RuntimeError("two")
            return {"y": inputs["x"] * 2, "z": inputs["x"]}

        budget = ByteBudget(1 << 20)
        store = DistantStore() if distant else LocalStore(1 << 20)
        bench = Bench(function=function, budget=budget, store=store, identity=b"m")
        sent = []
        for event, value, more in events:
            match event:
                case "submit":
                    deadline = {} if more is None else {"deadline": bench.clock.now() + more}
                    sent.append([float(value), *bench.submit([float(value)], **deadline), False])
                case "cancel" if value < len(sent) and sent[value][1] is not None and not sent[value][2].answers:
                    sent[value][1].cancel()
                    sent[value][3] = True
                case "advance":
                    await turn()
                    bench.clock.advance(value)
                case "found" if isinstance(store, DistantStore):
                    store.answer()
                case "run":
                    bench.gate.open(1)
                case _:
                    await turn()
        if isinstance(store, DistantStore):
            store.answer()
        await bench.finish()
        succeeded = 0
        for value, _, reply, is_cancelled in sent:
            assert len(reply.answers) == (0 if is_cancelled else 1)
            for answer in reply.answers:
                if isinstance(answer, InferenceResponse):
                    succeeded += 1
                    assert values(answer)["y"] == [[2 * value]]
        statistics = bench.version.statistics
        hits, misses = statistics.cache_hit.count, statistics.cache_miss.count
        assert hits + misses == statistics.success.count == succeeded
        assert statistics.success.count + statistics.fail.count == len(sent)
        assert (bench.version.in_flight, bench.version.pending, budget.used) == (0, 0, 0)
        if not fails:
            assert runs <= misses + statistics.fail.count

    run(main)
