"""The first requests of sequences, kept in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.scheduling.heads import Heads
from server.scheduling.policy import LevelPolicy
from server.scheduling.sequence_policy import SequencePolicy
from server.scheduling.sequences import SequenceQueue, Step
from tests.fakes import NamedTicket


def head(number: int, signature: object) -> NamedTicket:
    ticket = NamedTicket(number, signature=signature)
    ticket.step = Step("key", starts=True, ends=True)
    ticket.step.number = number
    return ticket


@given(st.data())
def test_whatever_comes_and_goes_they_are_in_order_of_arrival_by_signature(data: st.DataObject) -> None:
    heads: Heads[NamedTicket] = Heads()
    there: list[NamedTicket] = []
    for number in data.draw(st.permutations(range(12))):
        there.append(head(number, data.draw(st.sampled_from("abc"))))
        heads.add(there[-1])
        if data.draw(st.booleans()):
            heads.remove(there.pop(data.draw(st.integers(0, len(there) - 1))))
        in_order = sorted(there, key=lambda ticket: ticket.step.number)
        lines = {ticket.signature: [t for t in in_order if t.signature == ticket.signature] for ticket in in_order}
        assert list(heads.lines()) == list(lines.values())
        assert heads.count == len(there)
        if there:
            most = data.draw(st.integers(1, 4))
            first: list[NamedTicket] = []
            for ticket in in_order:
                if ticket.signature != in_order[0].signature or len(first) == most:
                    break
                first.append(ticket)
            assert heads.first_of_all(most) == first


def test_who_may_not_overtake_does_not_wake_the_queue() -> None:
    policy = SequencePolicy(4, (LevelPolicy(),), max_delay=1.0, slots=4, in_order=True)
    keys = iter("ab")
    queue: SequenceQueue[NamedTicket] = SequenceQueue(policy, 1, lambda _: Step(next(keys), starts=True, ends=True))
    queue.put(NamedTicket("first", signature="x", arrived=10.0))
    queue.put(NamedTicket("forwarded", signature="y", arrived=5.0))  # it came to somebody else before
    assert queue.next_due() == 11.0


def test_of_those_who_may_overtake_whoever_came_first_wakes_the_queue() -> None:
    keys = iter("ab")
    policy = SequencePolicy(4, max_delay=1.0, slots=4)
    queue: SequenceQueue[NamedTicket] = SequenceQueue(policy, 1, lambda _: Step(next(keys), starts=True, ends=True))
    queue.put(NamedTicket("first", signature="x", arrived=10.0))
    queue.put(NamedTicket("forwarded", signature="y", arrived=5.0))
    assert queue.next_due() == 6.0
