"""Which versions are wanted, and the one next step towards them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.models.lifecycle import State, VersionStatus, move
from server.models.versions import (
    Action,
    All,
    Forget,
    Latest,
    Load,
    Reload,
    Specific,
    Unload,
    VersionPolicy,
    next_action,
    wanted_versions,
)

U, L, R, D, X = State.UNKNOWN, State.LOADING, State.READY, State.DRAINING, State.UNAVAILABLE


def statuses(states: dict[int, State]) -> list[VersionStatus]:
    return [VersionStatus(version, state) for version, state in states.items()]


@pytest.mark.parametrize(
    ("policy", "available", "wanted"),
    [
        (Latest(), [1, 10, 9], (10,)),
        (Latest(2), [10, 1, 9], (9, 10)),
        (Latest(5), [2, 1], (1, 2)),
        (Latest(), [], ()),
        (All(), [3, 1, 2], (1, 2, 3)),
        (Specific((3, 1, 3)), [1, 2, 3], (1, 3)),
        (Specific((1, 7)), [1, 2], (1,)),
        (Specific((7,)), [1, 2], ()),
    ],
)
def test_wanted_versions(policy: VersionPolicy, available: list[int], wanted: tuple[int, ...]) -> None:
    assert wanted_versions(policy, available) == wanted


def test_latest_refuses_a_count_of_zero() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Latest(0)


@pytest.mark.parametrize("versions", [(), (0,), (1, -2)])
def test_specific_refuses_what_no_folder_can_be(versions: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must list"):
        Specific(versions)


@pytest.mark.parametrize(
    ("states", "wanted", "action"),
    [
        pytest.param({}, [], None, id="nothing to do"),
        pytest.param({}, [1, 3, 2], Load(3), id="the newest loads first"),
        pytest.param({3: L}, [1, 3, 2], Load(2), id="another load may run beside one"),
        pytest.param({1: U}, [1], Load(1), id="a version that was only found is loaded"),
        pytest.param({1: R}, [1], None, id="all is as wanted"),
        pytest.param({1: L}, [1], None, id="a load is waited for"),
        pytest.param({1: X}, [1], None, id="a failure is not retried"),
        pytest.param({1: D}, [1], None, id="a wanted version that drains is waited for"),
        pytest.param({1: R}, [2], Load(2), id="the new one loads before the old one goes"),
        pytest.param({1: R, 2: L}, [2], None, id="the old one stays while the new one loads"),
        pytest.param({1: R, 2: R}, [2], Unload(1), id="the old one goes when the new one is ready"),
        pytest.param({1: R, 2: X}, [2], None, id="the old one stays where the new one failed"),
        pytest.param({1: R, 2: X, 3: R}, [2, 3], Unload(1), id="one ready successor is enough once all have settled"),
        pytest.param({1: R, 2: L, 3: R}, [2, 3], None, id="the old one stays until all have settled"),
        pytest.param({1: R, 2: R, 3: R}, [3], Unload(1), id="the oldest goes first"),
        pytest.param({1: R, 2: R}, [], Unload(1), id="everything goes when nothing is wanted"),
        pytest.param({1: L, 2: D}, [], None, id="only a ready version can be unloaded"),
        pytest.param({1: R, 2: X}, [1], Forget(2), id="a failure that nobody wants any more is forgotten"),
        pytest.param({1: R, 2: X, 3: R}, [3], Unload(1), id="what serves goes before what failed is forgotten"),
    ],
)
def test_next_action(states: dict[int, State], wanted: list[int], action: Action | None) -> None:
    assert next_action(statuses(states), wanted) == action


@pytest.mark.parametrize(
    ("states", "stale", "action"),
    [
        pytest.param({1: R, 2: R}, {1, 2}, Reload(2), id="what serves is loaded again, the newest first"),
        pytest.param({1: X, 2: R}, {1, 2}, Load(1), id="what failed has its chance first"),
        pytest.param({1: R, 2: R, 3: R}, {2}, Reload(2), id="an unwanted one goes after all reloads"),
        pytest.param({1: R, 2: R, 3: R}, {3}, Unload(3), id="an unwanted one is not loaded again"),
        pytest.param({1: R, 2: L}, {2}, None, id="a load is not begun twice"),
        pytest.param({1: R, 2: D}, {2}, None, id="what drains is waited for"),
    ],
)
def test_other_files_are_a_reason_to_load_again(
    states: dict[int, State], stale: set[int], action: Action | None
) -> None:
    assert next_action(statuses(states), [1, 2], stale) == action


@given(
    st.dictionaries(st.integers(1, 6), st.sampled_from(State)),
    st.sets(st.integers(1, 6)),
    st.sets(st.integers(1, 6)),
    st.sets(st.integers(1, 6)),
)
def test_following_the_actions_settles_and_never_drops_the_last_ready_version(
    states: dict[int, State], wanted: set[int], broken: set[int], stale: set[int]
) -> None:
    had_ready = R in states.values()
    finish = {L: lambda version: X if version in broken else R, D: lambda version: X}
    for _ in range(50):
        action = next_action(statuses(states), wanted, stale)
        assert action == next_action(statuses(states), wanted, stale)
        if action is not None:
            stale.discard(action.version)
        if isinstance(action, Reload):
            assert states[action.version] is R, "only what serves is loaded beside itself"
        elif isinstance(action, Forget):
            assert states.pop(action.version) is X
        elif action is not None:
            target = L if isinstance(action, Load) else D
            states[action.version] = move(states.get(action.version, U), target)
        elif moving := [version for version, state in states.items() if state in finish]:
            states[moving[0]] = move(states[moving[0]], finish[states[moving[0]]](moving[0]))
        else:
            break
        had_ready = had_ready or R in states.values()
        assert not (had_ready and wanted) or R in states.values()
    else:
        pytest.fail("the actions never settle")
    assert all(states[version] in (R, X) for version in wanted)
    assert not stale & wanted, "what has other files was tried again"
