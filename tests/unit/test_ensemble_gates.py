"""Places at a step of an ensemble: who has one, and who is next."""

from __future__ import annotations

from server.models.ensemble_gates import Gate


def test_places_are_given_in_the_order_of_arrival() -> None:
    gate: Gate[str] = Gate(1)
    assert gate.enter("a")
    assert not gate.enter("b")
    assert not gate.enter("c")
    assert gate.next() is None
    gate.leave()
    assert [gate.next(), gate.next()] == ["b", None]
    gate.leave()
    assert [gate.next(), gate.next()] == ["c", None]


def test_whoever_comes_while_a_place_is_about_to_be_given_goes_behind_the_line() -> None:
    gate: Gate[str] = Gate(1)
    gate.enter("a")
    gate.enter("b")
    gate.leave()
    assert not gate.is_open
    assert not gate.enter("late")
    assert gate.next() == "b"


def test_whoever_leaves_the_line_gets_no_place() -> None:
    gate: Gate[str] = Gate(1)
    for name in "abc":
        gate.enter(name)
    gate.forget("b")
    gate.forget("nobody")
    gate.leave()
    assert gate.next() == "c"
