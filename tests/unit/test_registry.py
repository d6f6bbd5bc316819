"""The registry: which version answers a request, and what is told to those who watch."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from server.errors import ConvoyError, InvalidRequest, NotFound, NotReady
from server.models.lifecycle import IllegalTransition, State, VersionStatus
from server.models.model import LoadedVersion
from server.models.registry import Registry, parse_version
from tests import autojump
from tests.fakes import PuppetClock, PuppetSession, fp32
from tests.unit.loaded import batching_config

made: list[LoadedVersion] = []


def loaded(version: int) -> LoadedVersion:
    session = PuppetSession([fp32("x", -1, -1)], [fp32("y", -1, -1)], dict)
    made.append(LoadedVersion(batching_config(), version, [session], PuppetClock()))
    return made[-1]


def with_versions(*versions: int) -> Registry:
    """Model 'm' with these versions READY."""
    registry = Registry()
    for version in versions:
        registry.set_state("m", version, State.LOADING)
        registry.set_ready("m", loaded(version))
    return registry


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await test()
        while made:
            await made.pop().drain()  # ends its thread

    autojump.run(main())


def test_without_a_version_the_latest_answers() -> None:
    async def main() -> None:
        assert with_versions(2, 10, 9).find("m", "").version == 10

    run(main)


@pytest.mark.parametrize("text", ["2", "02"])
def test_a_version_is_found_by_its_number(text: str) -> None:
    async def main() -> None:
        assert with_versions(1, 2, 3).find("m", text).version == 2

    run(main)


def test_the_latest_is_the_latest_that_is_ready() -> None:
    async def main() -> None:
        registry = with_versions(1)
        registry.set_state("m", 2, State.LOADING)
        assert registry.find("m", "").version == 1

    run(main)


MISSES: dict[str, tuple[str, str, type[ConvoyError], str]] = {
    "unknown model": ("x", "", NotFound, "Request for unknown model: 'x' is not found"),
    "unknown model with a version": ("x", "1", NotFound, "Request for unknown model: 'x' is not found"),
    "nothing loaded": ("empty", "", NotFound, "Request for unknown model: 'empty' has no available versions"),
    "unknown version": ("m", "7", NotFound, "Request for unknown model: 'm' version 7 is not found"),
    "loading": ("m", "2", NotReady, "Request for unknown model: 'm' version 2 is not at ready state"),
    "failed": ("m", "3", NotReady, "Request for unknown model: 'm' version 3 is not at ready state"),
    "draining": ("m", "4", NotReady, "Request for unknown model: 'm' version 4 is not at ready state"),
    "no number": (
        "m",
        "x",
        InvalidRequest,
        (
            "failed to get model version from specified version string 'x' (details: not a number), "
            "version should be an integral value > 0"
        ),
    ),
}


@pytest.mark.parametrize(("name", "version", "kind", "message"), MISSES.values(), ids=MISSES)
def test_a_version_that_cannot_answer_is_refused(
    name: str, version: str, kind: type[ConvoyError], message: str
) -> None:
    async def main() -> None:
        registry = with_versions(1, 4)
        registry.entry("empty")
        for number in (2, 3):
            registry.set_state("m", number, State.LOADING)
        registry.set_state("m", 3, State.UNAVAILABLE, "broken")
        registry.set_state("m", 4, State.DRAINING)
        with pytest.raises(kind) as caught:
            registry.find(name, version)
        assert type(caught.value) is kind
        assert str(caught.value) == message

    run(main)


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("007", 7), (str(2**63 - 1), 2**63 - 1)])
def test_a_version_is_a_positive_integer(text: str, number: int) -> None:
    assert parse_version(text) == number


@pytest.mark.parametrize("text", ["x", "-1", "1.0", " 1", "1 ", "٣", "²", "+1", "1_0"])
def test_what_is_no_number_is_no_version(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not a number"):
        parse_version(text)


@pytest.mark.parametrize("text", ["0", "000", str(2**63), "9" * 30, "1" + "0" * 5000])
def test_a_number_out_of_range_is_no_version(text: str) -> None:
    with pytest.raises(InvalidRequest, match="out of range"):
        parse_version(text)


def test_a_number_out_of_range_behind_zeros_is_no_version() -> None:
    with pytest.raises(InvalidRequest, match="out of range"):
        parse_version("0" * 19 + "1" + "9" * 5000)


def test_models_are_listed_by_name() -> None:
    registry = Registry()
    for name in ("b", "a", "c"):
        registry.entry(name)
    assert [entry.name for entry in registry] == ["a", "b", "c"]


def test_asking_whether_a_model_is_known_does_not_make_it_so() -> None:
    registry = Registry()
    assert not registry.has("m")
    assert not registry.has("m")
    registry.entry("m")
    assert registry.has("m")


def test_serving_versions_are_listed_by_model_and_version() -> None:
    async def main() -> None:
        registry = with_versions(10, 2)
        registry.set_state("m", 10, State.DRAINING)
        assert [version.version for version in registry.loaded()] == [2]

    run(main)


def test_a_version_stops_being_served_when_it_drains() -> None:
    async def main() -> None:
        registry = with_versions(1)
        registry.set_state("m", 1, State.DRAINING)
        with pytest.raises(NotReady):
            registry.find("m", "1")
        assert registry.entry("m").latest is None

    run(main)


def test_an_illegal_move_raises_and_changes_nothing() -> None:
    async def main() -> None:
        registry = with_versions(1)
        with pytest.raises(IllegalTransition):
            registry.set_state("m", 1, State.LOADING)
        assert registry.entry("m").statuses[1].state is State.READY
        assert registry.find("m", "1").version == 1

    run(main)


def test_a_version_that_was_not_loading_does_not_become_ready() -> None:
    async def main() -> None:
        registry = Registry()
        with pytest.raises(IllegalTransition):
            registry.set_ready("m", loaded(1))
        assert registry.loaded() == []

    run(main)


def test_an_empty_registry_is_all_ready() -> None:
    assert Registry().all_ready()


READINESS: dict[str, tuple[list[State], bool]] = {
    "ready": ([State.LOADING, State.READY], True),
    "loading": ([State.LOADING], False),
    "failed": ([State.LOADING, State.UNAVAILABLE], False),
    "draining": ([State.LOADING, State.READY, State.DRAINING], False),
}


@pytest.mark.parametrize(("path", "ready"), READINESS.values(), ids=READINESS)
def test_all_is_ready_when_every_version_is(path: list[State], ready: bool) -> None:
    registry = Registry()
    for number, states in ((1, [State.LOADING, State.READY]), (2, path)):
        for state in states:
            registry.set_state("m", number, state)
    assert registry.all_ready() is ready


def test_a_problem_with_a_model_is_not_ready() -> None:
    registry = Registry()
    registry.set_problem("m", "its configuration is broken")
    assert not registry.all_ready()
    assert registry.entry("m").problem == "its configuration is broken"


def test_a_model_that_nobody_wants_does_not_spoil_readiness() -> None:
    registry = Registry()
    registry.entry("m")
    assert registry.all_ready()


def test_a_second_life_takes_over_from_the_first() -> None:
    async def main() -> None:
        registry = with_versions(1)
        old, fresh = registry.find("m", "1"), loaded(1)
        registry.begin_reload("m", 1)
        assert registry.find("m", "1") is old
        assert registry.take_over("m", fresh) is old
        assert registry.find("m", "1") is fresh and registry.find("m", "") is fresh
        assert registry.loaded() == [fresh]
        with pytest.raises(KeyError):
            registry.take_over("m", fresh)

    run(main)


def test_a_second_life_that_fails_leaves_the_first_and_its_reason() -> None:
    async def main() -> None:
        registry = with_versions(1)
        old = registry.find("m", "1")
        registry.begin_reload("m", 1)
        registry.reload_failed("m", 1, "a bad file")
        assert registry.find("m", "1") is old
        assert registry.entry("m").statuses[1] == VersionStatus(1, State.READY, "a bad file")
        registry.begin_reload("m", 1)
        registry.take_over("m", loaded(1))
        assert registry.entry("m").statuses[1].reason == ""

    run(main)


def test_a_second_life_takes_over_from_nothing_that_has_gone() -> None:
    async def main() -> None:
        registry = with_versions(1)
        registry.begin_reload("m", 1)
        registry.set_state("m", 1, State.DRAINING)
        assert registry.take_over("m", loaded(1)) is None
        assert registry.entry("m").statuses[1].state is State.DRAINING
        assert registry.loaded() == []

    run(main)


def test_only_what_serves_has_a_second_life() -> None:
    registry = Registry()
    registry.set_state("m", 1, State.LOADING)
    with pytest.raises(IllegalTransition, match="a version that is LOADING has nothing to be loaded beside"):
        registry.begin_reload("m", 1)


@pytest.mark.parametrize("state", [State.LOADING, State.DRAINING, State.UNAVAILABLE])
def test_what_comes_or_goes_beside_what_serves_spoils_no_readiness(state: State) -> None:
    registry = Registry()
    paths = {State.LOADING: [State.LOADING], State.UNAVAILABLE: [State.LOADING, State.UNAVAILABLE]}
    for number, states in ((1, [State.LOADING, State.READY]), (2, paths.get(state, [*READINESS["draining"][0]]))):
        for each in states:
            registry.set_state("m", number, each)
    assert not registry.all_ready()
    registry.entry("m").beside.add(2)
    assert registry.all_ready()
    registry.set_state("m", 1, State.DRAINING)
    assert not registry.all_ready()


def test_what_is_forgotten_was_never_there() -> None:
    registry = Registry()
    for state in (State.LOADING, State.UNAVAILABLE):
        registry.set_state("m", 1, state)
    registry.forget("m", 1)
    assert registry.entry("m").statuses == {}
    registry.forget("m")
    assert not registry.has("m")


def test_every_change_is_told_when_it_has_happened() -> None:
    async def main() -> None:
        registry = Registry()
        seen: list[object] = []
        registry.subscribe(lambda: seen.append([str(s.state) for s in registry.entry("m").statuses.values()]))
        registry.set_state("m", 1, State.LOADING)
        registry.set_ready("m", loaded(1))
        registry.set_problem("x", "broken")
        assert seen == [["LOADING"], ["READY"], ["READY"]]

    run(main)


def test_a_version_answers_by_the_time_its_readiness_is_told() -> None:
    async def main() -> None:
        registry = Registry()
        answering: list[bool] = []
        registry.set_state("m", 1, State.LOADING)
        registry.subscribe(lambda: answering.append(registry.entry("m").latest is not None))
        registry.set_ready("m", loaded(1))
        assert answering == [True]

    run(main)


def test_whoever_has_left_is_told_no_more() -> None:
    registry = Registry()
    told: list[str] = []
    leave = registry.subscribe(lambda: told.append("a"))
    registry.subscribe(lambda: told.append("b"))
    leave()
    registry.changed()
    assert told == ["b"]


def test_a_listener_may_leave_while_it_is_told() -> None:
    registry = Registry()
    told: list[str] = []

    def once() -> None:
        told.append("once")
        leave()

    leave = registry.subscribe(once)
    registry.subscribe(lambda: told.append("always"))
    registry.changed()
    registry.changed()
    assert told == ["once", "always", "always"]


def test_a_model_whose_only_version_is_reloaded_is_not_ready_rather_than_unknown() -> None:
    async def main() -> None:
        registry = with_versions(1)
        registry.set_state("m", 1, State.DRAINING)
        registry.entry("m").recovering.add(1)
        with pytest.raises(NotReady, match="'m' has no version at ready state; one is being reloaded"):
            registry.find("m", "")
        with pytest.raises(NotReady, match="'m' version 1 is not at ready state"):
            registry.find("m", "1")

    run(main)


def test_another_version_answers_while_the_latest_is_reloaded() -> None:
    async def main() -> None:
        registry = with_versions(1, 2)
        registry.set_state("m", 2, State.DRAINING)
        registry.entry("m").recovering.add(2)
        assert registry.find("m", "").version == 1

    run(main)


def test_loads_and_those_that_failed_are_counted_and_unloads_are_neither() -> None:
    async def main() -> None:
        registry = with_versions(1, 2)
        for state in (State.DRAINING, State.UNAVAILABLE, State.LOADING, State.UNAVAILABLE):
            registry.set_state("m", 1, state)
        registry.set_problem("m", "its folder is gone")
        registry.set_problem("m", "")
        entry = registry.entry("m")
        assert (entry.loads, entry.failed_loads) == (2, 2)

    run(main)


def test_a_version_that_answers_its_last_requests_is_active_until_it_is_gone() -> None:
    async def main() -> None:
        registry = with_versions(1, 2)

        def active() -> list[int]:
            return [version.version for version in registry.active()]

        registry.set_state("m", 2, State.DRAINING)
        assert [version.version for version in registry.loaded()] == [1]
        assert active() == [1, 2]
        registry.set_state("m", 2, State.UNAVAILABLE)
        assert active() == [1]

    run(main)


def test_a_model_that_was_asked_to_go_spoils_no_readiness_until_it_is_loaded_again() -> None:
    async def main() -> None:
        registry = with_versions(1, 2)
        registry.set_problem("m", "its configuration has changed and is broken")
        registry.retire("m")
        for version in (1, 2):
            registry.set_state("m", version, State.DRAINING)
            assert registry.all_ready()
            registry.set_state("m", version, State.UNAVAILABLE, "unloaded")
            assert registry.all_ready()
        registry.set_state("m", 2, State.LOADING)
        assert not registry.all_ready()
        registry.set_state("m", 2, State.UNAVAILABLE, "broken")
        assert not registry.all_ready()

    run(main)


def test_the_counts_of_a_version_are_kept_until_it_is_forgotten() -> None:
    registry = Registry()
    counts = registry.statistics("m", 1)
    assert registry.statistics("m", 1) is counts
    assert registry.statistics("m", 2) is not counts
    registry.set_state("m", 1, State.LOADING)
    registry.set_state("m", 1, State.UNAVAILABLE)
    assert registry.statistics("m", 1) is counts
    registry.forget("m", 1)
    assert registry.statistics("m", 1) is not counts


def test_answers_are_those_to_callers_of_all_versions_that_ever_served() -> None:
    async def main() -> None:
        registry = with_versions(1, 2)
        for version, answers, steps in ((1, 5, 0), (2, 3, 2)):
            statistics = registry.statistics("m", version)
            statistics.step_answers = steps
            for _ in range(answers):
                statistics.record_success(queue_ns=1, request_ns=2)
        assert registry.answers == 6
        for state in (State.DRAINING, State.UNAVAILABLE):
            registry.set_state("m", 2, state)
        registry.forget("m", 2)
        assert registry.answers == 6

    run(main)
