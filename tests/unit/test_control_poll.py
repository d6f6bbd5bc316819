"""The control plane while its repositories change: what comes, what goes, and what serves on."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from errno import EMFILE, ENOENT, ENOMEM
from math import inf
from pathlib import Path

import pytest

from server.backends.base import SessionOptions
from server.backends.loading import LoadAttempt
from server.control import ControlPlane
from server.engine import Engine
from server.errors import LoadFailed, NotFound
from server.models.lifecycle import State
from server.models.shortages import is_passing
from tests.fakes import OneReply, PuppetAlarm, PuppetClock, PuppetSession
from tests.unit.controlling import (
    DOUBLING,
    LONG,
    TREBLING,
    TWO_VERSIONS,
    Bench,
    answer,
    following,
    loads,
    settle,
    until,
    write,
)
from tests.unit.loaded import request, run, values


def test_a_repository_that_stays_as_it_is_changes_nothing(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        loaded = bench.registry.find("m", "")
        (tmp_path / "m" / "README.md").write_text("a model card says nothing to the server")
        (tmp_path / "m" / ".hidden").write_text("nor does this")
        await settle(bench)
        assert bench.registry.find("m", "") is loaded

    following(tmp_path, test)


def test_a_new_version_takes_the_place_of_the_old_one_once_it_is_still(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        write(bench, 2, TREBLING)
        await bench.plane.poll()
        assert bench.states() == {"m": {1: "READY"}}
        await bench.plane.poll()
        assert bench.states() == {"m": {2: "READY"}}
        assert await answer(bench) == [[3.0, 6.0]]
        with pytest.raises(NotFound):
            bench.registry.find("m", "1")

    following(tmp_path, test)


def test_a_version_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        for part in range(1, len(TREBLING) + 1):
            write(bench, 2, TREBLING[:part])
            await bench.plane.poll()
        assert loads(bench) == ["1"]
        await bench.plane.poll()
        assert loads(bench) == ["1", "2"]
        assert bench.states() == {"m": {2: "READY"}}

    following(tmp_path, test)


def test_a_bad_version_changes_nothing_and_is_tried_again_only_when_it_has_changed(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        write(bench, 2, LONG)
        for _ in range(5):
            await bench.plane.poll()
        assert bench.states() == {"m": {1: "READY", 2: "UNAVAILABLE"}}
        assert "not a model" in bench.registry.entry("m").statuses[2].reason
        assert bench.registry.all_ready(), "what comes beside a version that serves may fail"
        assert loads(bench) == ["1", "2"]
        write(bench, 2, TREBLING)
        await settle(bench)
        assert bench.states() == {"m": {2: "READY"}}
        assert loads(bench) == ["1", "2", "2"]

    following(tmp_path, test)


def test_a_version_that_failed_for_want_of_something_else_is_tried_again(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        write(bench, 2, TREBLING)
        bench.backend.short_of = OSError(EMFILE, "Too many open files")
        await settle(bench)
        await settle(bench)
        assert bench.registry.entry("m").statuses[2].reason == (
            "the machine is short of something: [Errno 24] Too many open files"
        )
        assert await answer(bench) == [[2.0, 4.0]]
        bench.backend.short_of = None
        await settle(bench)
        assert bench.states() == {"m": {2: "READY"}}

    following(tmp_path, test)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(ENOMEM, "no memory"), True),
        (OSError(ENOENT, "no such file"), False),
        (MemoryError(), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("a bug"), False),
        (None, False),
    ],
)
def test_what_the_machine_was_short_of_may_be_there_the_next_time(error: Exception | None, passes: bool) -> None:
    failure = LoadFailed("it cannot be read")
    failure.__cause__ = error
    assert is_passing(failure) is passes


def test_a_bad_version_that_is_removed_is_forgotten(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        write(bench, 2, LONG)
        await settle(bench)
        shutil.rmtree(tmp_path / "m" / "2")
        await settle(bench)
        assert bench.states() == {"m": {1: "READY"}}

    following(tmp_path, test)


def test_an_older_version_serves_again_when_the_newer_one_goes(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        write(bench, 2, TREBLING)
        await settle(bench)
        shutil.rmtree(tmp_path / "m" / "2")
        await settle(bench)
        assert bench.states() == {"m": {1: "READY"}}
        assert await answer(bench) == [[2.0, 4.0]]

    following(tmp_path, test)


def test_a_changed_file_is_loaded_beside_the_old_one_which_answers_what_it_was_asked(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, poll=True)
        bench.add("m", 1)
        await bench.plane.load_all()
        old = bench.registry.find("m", "1")
        asked = OneReply()
        Engine(bench.registry).infer(request([1.0, 2.0]), asked)
        write(bench, 1, TREBLING)
        await bench.plane.poll()
        poll = asyncio.create_task(bench.plane.poll())
        await until(bench, lambda: bench.registry.find("m", "1") is not old)
        assert bench.states() == {"m": {1: "READY"}}
        assert asked.answers == [] and not poll.done(), "the old one has a request that is held back"
        bench.gate.open(2)
        assert values(await asked.response())["y"] == [[2.0, 4.0]]
        await poll
        assert await answer(bench) == [[3.0, 6.0]]
        await bench.plane.unload_all()

    run(main)


def test_a_changed_file_that_is_bad_changes_nothing_and_says_why(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        write(bench, 1, LONG)
        for _ in range(4):
            await bench.plane.poll()
        assert bench.states() == {"m": {1: "READY"}}
        assert "cannot be loaded; what was loaded before serves on: " in bench.reason("m")
        assert "not a model" in bench.reason("m")
        assert await answer(bench) == [[2.0, 4.0]]
        assert bench.registry.all_ready()
        assert loads(bench) == ["1", "1"]
        write(bench, 1, TREBLING)
        await settle(bench)
        assert bench.reason("m") == ""
        assert await answer(bench) == [[3.0, 6.0]]

    following(tmp_path, test)


def test_a_changed_configuration_is_a_reason_to_load_what_serves_again(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        (tmp_path / "m" / "config.pbtxt").write_text("max_batch_size: 2")
        await settle(bench)
        assert bench.registry.find("m", "1").config.max_batch_size == 2

    following(tmp_path, test)


def test_a_broken_configuration_changes_nothing_and_says_why(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        (tmp_path / "m" / "config.pbtxt").write_text("max_batch_sise: 2")
        await settle(bench)
        assert bench.states() == {"m": {1: "READY"}}
        assert "config.pbtxt: line 1" in bench.registry.entry("m").problem
        assert bench.registry.all_ready()
        (tmp_path / "m" / "config.pbtxt").unlink()
        await settle(bench)
        assert bench.registry.entry("m").problem == ""
        assert loads(bench) == ["1"]

    following(tmp_path, test)


def test_a_configuration_for_which_no_descriptor_was_left_is_read_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(path: Path, flags: int) -> int:
        raise OSError(EMFILE, "Too many open files", str(path))

    async def test(bench: Bench) -> None:
        (tmp_path / "m" / "config.pbtxt").write_text("max_batch_size: 2")
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", none_left)
            await settle(bench)
        assert "config.pbtxt: cannot be read: Too many open files" in bench.registry.entry("m").problem
        assert await answer(bench) == [[2.0, 4.0]]
        await bench.plane.poll()
        assert bench.registry.entry("m").problem == ""
        assert bench.registry.find("m", "1").config.max_batch_size == 2

    following(tmp_path, test)


def test_a_look_for_which_no_descriptor_is_left_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left_in_versions(path: str | Path) -> object:
        if Path(path).name == "1":
            raise OSError(EMFILE, "Too many open files", str(path))
        return listed(path)

    listed = os.scandir

    async def test(bench: Bench) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", none_left_in_versions)
            await settle(bench)
        assert "1: cannot be listed now: Too many open files" in bench.registry.entry("m").problem
        assert await answer(bench) == [[2.0, 4.0]]
        await settle(bench)
        assert bench.registry.entry("m").problem == ""
        assert loads(bench) == ["1"]

    following(tmp_path, test)


def test_a_wider_policy_brings_versions_in_and_a_narrower_one_takes_them_out(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        write(bench, 2)
        (tmp_path / "m" / "config.pbtxt").write_text(TWO_VERSIONS)
        await settle(bench)
        assert bench.states() == {"m": {1: "READY", 2: "READY"}}
        (tmp_path / "m" / "config.pbtxt").write_text("version_policy { specific { versions: 1 } }")
        await settle(bench)
        assert bench.states() == {"m": {1: "READY"}}

    following(tmp_path, test)


def test_a_new_model_appears_and_a_removed_one_goes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "server.models.loader")

    async def test(bench: Bench) -> None:
        bench.add("other", 1)
        await settle(bench)
        assert bench.states() == {"m": {1: "READY"}, "other": {1: "READY"}}
        shutil.rmtree(tmp_path / "m")
        await settle(bench)
        assert bench.states() == {"other": {1: "READY"}}
        assert not bench.registry.has("m")
        assert bench.registry.all_ready()
        assert "model 'm' version 1 is unloaded" in caplog.text

    following(tmp_path, test)


def test_a_repository_that_is_away_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(bench: Bench) -> None:
        away = shutil.move(tmp_path, tmp_path.with_name("away"))
        for _ in range(3):
            await bench.plane.poll()
        assert bench.states() == {"m": {1: "READY"}}
        shutil.move(away, tmp_path)
        await settle(bench)
        assert loads(bench) == ["1"]

    following(tmp_path, test)
    assert caplog.text.count("so nothing of it changes") == 1


def test_files_that_change_while_they_are_loaded_are_loaded_once_they_are_still(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        def load(path: Path, options: SessionOptions, attempt: LoadAttempt) -> PuppetSession:
            bench.backend.load = honest
            path.write_text(DOUBLING)
            return honest(path, options, attempt)

        honest = bench.backend.load
        write(bench, 2, TREBLING)
        bench.backend.load = load
        await settle(bench)
        assert bench.states() == {"m": {1: "READY", 2: "UNAVAILABLE"}}
        assert "the files of version 2 are changing" in bench.registry.entry("m").statuses[2].reason
        await settle(bench)
        assert bench.states() == {"m": {2: "READY"}}
        assert loads(bench) == ["1", "2", "2"]

    following(tmp_path, test)


def test_versions_come_and_go_without_the_server_being_less_ready(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        ready: list[bool] = []
        bench.registry.subscribe(lambda: ready.append(bench.registry.all_ready()))
        write(bench, 2)
        await settle(bench)
        write(bench, 2, TREBLING)
        await settle(bench)
        assert bench.states() == {"m": {2: "READY"}}
        assert len(ready) > 4 and all(ready)

    following(tmp_path, test)


@pytest.mark.parametrize("config", [None, "max_batch_sise: 2"])
def test_a_new_model_that_is_broken_makes_the_server_no_less_ready(tmp_path: Path, config: str | None) -> None:
    async def test(bench: Bench) -> None:
        ready: list[bool] = []
        bench.registry.subscribe(lambda: ready.append(bench.registry.all_ready()))
        bench.add("broken", 1, config=config, text=LONG)
        await settle(bench)
        assert bench.reason("broken") != ""
        assert ready and all(ready)
        (tmp_path / "broken" / "config.pbtxt").unlink(missing_ok=True)
        (tmp_path / "broken" / "1" / "model.onnx").write_text(TREBLING)
        await settle(bench)
        assert bench.states()["broken"] == {1: "READY"}
        bench.registry.set_state("broken", 1, State.DRAINING)
        assert not bench.registry.all_ready(), "from when it has served, it counts"
        bench.registry.set_state("broken", 1, State.UNAVAILABLE)

    following(tmp_path, test)


def test_a_model_of_which_nothing_serves_is_not_ready_until_something_does(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, poll=True)
        bench.add("m", 1, text=LONG)
        await bench.plane.load_all()
        assert not bench.registry.all_ready()
        write(bench, 2)
        await settle(bench)
        assert bench.states() == {"m": {2: "READY"}}
        assert bench.registry.all_ready()
        await bench.plane.unload_all()

    run(main)


class AlarmedClock(PuppetClock):
    """Tells when an alarm is set."""

    def __init__(self) -> None:
        super().__init__()
        self.set_for: asyncio.Queue[float] = asyncio.Queue()

    def alarm(self, callback: Callable[[], None]) -> PuppetAlarm:
        set_for = self.set_for

        class Telling(PuppetAlarm):
            def set(self, when: float) -> None:
                super().set(when)
                if when < inf:
                    set_for.put_nowait(when)

        self.alarms.append(Telling(callback))
        return self.alarms[-1]


def test_looks_come_at_the_interval_and_end_with_the_server(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, poll=True)
        clock = AlarmedClock()
        bench.plane = ControlPlane(bench.plane._settings, bench.registry, bench.backend, clock)
        bench.add("m", 1)
        await bench.plane.load_all()
        write(bench, 2)
        bench.plane.follow(15)
        for look, states in enumerate(({1: "READY"}, {1: "READY"}, {2: "READY"})):
            assert await clock.set_for.get() == 15 * (look + 1)
            assert bench.states() == {"m": states}
            clock.advance(14.9)
            assert clock.set_for.empty()
            clock.advance(0.1)
        await bench.plane.unload_all()
        assert bench.states() == {"m": {2: "UNAVAILABLE"}}

    run(main)


def test_a_stop_while_a_version_is_loaded_ends_the_looking(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        write(bench, 2)
        await bench.plane.poll()
        poll = asyncio.create_task(bench.plane.poll())
        await until(bench, lambda: bench.states() == {"m": {1: "READY", 2: "LOADING"}})
        bench.plane.give_up_loads()
        await poll
        assert bench.states()["m"][1] == "READY", "nothing is taken down any more"
        await bench.plane.poll()

    following(tmp_path, test)
