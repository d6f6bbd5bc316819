"""Answers in order of arrival."""

from __future__ import annotations

from server.scheduling.ordering import AnswerOrder


def line(names: str) -> AnswerOrder[str, int]:
    order: AnswerOrder[str, int] = AnswerOrder()
    for name in names:
        order.arrive(name)
    return order


def test_who_finishes_in_turn_leaves_at_once() -> None:
    order = line("ab")
    assert order.finish("a", 1) == [("a", 1)]
    assert order.finish("b", 2) == [("b", 2)]
    assert len(order) == 0


def test_who_finishes_early_waits_for_those_before() -> None:
    order = line("abcd")
    assert order.finish("c", 3) == []
    assert order.finish("b", 2) == []
    assert order.finish("a", 1) == [("a", 1), ("b", 2), ("c", 3)]
    assert len(order) == 1


def test_who_is_forgotten_holds_nobody_up() -> None:
    order = line("abc")
    assert order.finish("b", 2) == []
    assert order.forget("a") == [("b", 2)]
    assert order.forget("c") == []
    assert len(order) == 0
