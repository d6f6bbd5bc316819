"""The transition table of a model version."""

from __future__ import annotations

from itertools import product

import pytest

from server.models.lifecycle import MOVES, IllegalTransition, State, move

LEGAL = {
    (State.UNKNOWN, State.LOADING),
    (State.LOADING, State.READY),
    (State.LOADING, State.UNAVAILABLE),
    (State.READY, State.DRAINING),
    (State.DRAINING, State.UNAVAILABLE),
    (State.UNAVAILABLE, State.LOADING),
}


def test_the_table_covers_every_state() -> None:
    assert set(MOVES) == set(State)


@pytest.mark.parametrize(("current", "target"), sorted(LEGAL))
def test_a_legal_move_gives_the_target(current: State, target: State) -> None:
    assert move(current, target) is target


@pytest.mark.parametrize(("current", "target"), sorted(set(product(State, State)) - LEGAL))
def test_an_illegal_move_raises_and_names_the_legal_ones(current: State, target: State) -> None:
    with pytest.raises(IllegalTransition, match=f"from {current} to {target}; .* goes to: {min(MOVES[current])}"):
        move(current, target)


def test_the_legal_moves_are_named_in_order() -> None:
    with pytest.raises(IllegalTransition, match=r"; from LOADING it goes to: READY, UNAVAILABLE$"):
        move(State.LOADING, State.DRAINING)
