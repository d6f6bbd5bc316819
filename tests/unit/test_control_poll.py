"""The control plane while its repositories change: what comes, what goes, and what serves on."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from math import inf
from pathlib import Path

import pytest

from server.backends.base import SessionOptions
from server.control import ControlPlane
from server.engine import Engine
from server.errors import LoadFailed, NotFound
from server.models.lifecycle import State
from server.models.recovery import FIRST_DELAY_SECONDS
from server.models.streak import SUSPICIOUS_RUNS
from server.tensors import Array
from tests.fakes import Gate, OneReply, PuppetAlarm, PuppetClock, PuppetSession, fp32
from tests.stores import PuppetStore
from tests.unit.controlling import DOUBLING, TREBLING, Bench
from tests.unit.loaded import request, run, turn, values

LONG = "a file that is no model at all"
TWO_VERSIONS = "version_policy { latest { num_versions: 2 } }"


def following(root: Path, test: Callable[[Bench], Coroutine[None, None, None]]) -> None:
    """Run a test on a bench that polls and has model 'm' with version 1."""

    async def main() -> None:
        bench = Bench(root, poll=True)
        bench.gate.open(1_000)
        bench.add("m", 1)
        await bench.plane.load_all()
        await test(bench)
        await bench.plane.unload_all()

    run(main)


async def settle(bench: Bench) -> None:
    """What is on disk now is seen twice."""
    await bench.plane.poll()
    await bench.plane.poll()


async def until(bench: Bench, condition: Callable[[], bool]) -> None:
    """Wait for a change of the registry after which this holds."""
    changed = asyncio.Event()
    leave = bench.registry.subscribe(changed.set)
    while not condition():
        await changed.wait()
        changed.clear()
    leave()


def write(bench: Bench, version: int, text: str = DOUBLING) -> None:
    folder = bench.root / "m" / str(version)
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_text(text)


async def answer(bench: Bench, version: str = "") -> object:
    reply = OneReply()
    asked = request([1.0, 2.0])
    asked.model_version = version
    Engine(bench.registry).infer(asked, reply)
    return values(await reply.response())["y"]


def loads(bench: Bench) -> list[str]:
    """The versions that were opened, in order."""
    return [path.parent.name for path, _ in bench.backend.opened]


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


def test_a_new_model_appears_and_a_removed_one_goes(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        bench.add("other", 1)
        await settle(bench)
        assert bench.states() == {"m": {1: "READY"}, "other": {1: "READY"}}
        shutil.rmtree(tmp_path / "m")
        await settle(bench)
        assert bench.states() == {"other": {1: "READY"}}
        assert not bench.registry.has("m")
        assert bench.registry.all_ready()

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


def test_a_model_that_turns_up_in_two_repositories_serves_on(tmp_path: Path) -> None:
    async def main() -> None:
        store = PuppetStore()
        bench = Bench(tmp_path, poll=True, stores={"s3://bucket/models": store})
        bench.add("m", 1)
        await bench.plane.load_all()
        store.put("m/1/model.onnx", DOUBLING)
        for _ in range(3):
            await bench.plane.poll()
        assert "more than one repository" in bench.registry.entry("m").problem
        store.remove("m/1/model.onnx")
        for _ in range(3):
            await bench.plane.poll()
        assert bench.registry.entry("m").problem == ""
        assert bench.states() == {"m": {1: "READY"}}
        assert loads(bench) == ["1"]
        await bench.plane.unload_all()

    run(main)


def test_a_store_that_is_away_does_not_hold_up_a_folder(tmp_path: Path) -> None:
    async def main() -> None:
        store = PuppetStore()
        store.put("far/1/model.onnx", DOUBLING)
        bench = Bench(tmp_path, poll=True, stores={"s3://bucket/models": store})
        bench.add("m", 1)
        await bench.plane.load_all()
        store.down = "no route"
        write(bench, 2)
        await settle(bench)
        assert bench.states() == {"far": {1: "READY"}, "m": {2: "READY"}}
        assert bench.plane.unseen_repositories == 1
        store.down = ""
        await bench.plane.poll()
        assert bench.plane.unseen_repositories == 0
        await bench.plane.unload_all()

    run(main)


def test_files_that_change_while_they_are_loaded_are_loaded_once_they_are_still(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        def load(path: Path, options: SessionOptions) -> PuppetSession:
            bench.backend.load = honest
            path.write_text(DOUBLING)
            return honest(path, options)

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


def test_a_version_that_was_replaced_or_unloaded_lets_go_of_its_session(tmp_path: Path) -> None:
    class Backend:
        """Every load gives a new session."""

        def __init__(self, bench: Bench) -> None:
            self.devices, self.give_up_loads = bench.backend.devices, bench.backend.give_up_loads
            self.gone: list[threading.Event] = []

        def load(self, path: Path, options: SessionOptions) -> PuppetSession:
            session = PuppetSession([fp32("x", -1, 2)], [fp32("y", -1, 2)], lambda inputs: {"y": inputs["x"]})
            self.gone.append(threading.Event())
            weakref.finalize(session, self.gone[-1].set)
            return session

    async def main() -> None:
        bench = Bench(tmp_path, poll=True)
        backend = Backend(bench)
        bench.plane = ControlPlane(bench.plane._settings, bench.registry, backend, bench.clock)
        bench.add("m", 1)
        await bench.plane.load_all()
        write(bench, 1, TREBLING)
        await settle(bench)
        write(bench, 2)
        await settle(bench)
        assert bench.states() == {"m": {2: "READY"}}
        assert await asyncio.to_thread(lambda: all(gone.wait(20) for gone in backend.gone[:2]))
        assert not backend.gone[2].is_set()
        await bench.plane.unload_all()

    gc.collect()
    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()


class Sick:
    """Makes the runs of one text's session fail, zeros included."""

    def __init__(self, bench: Bench, text: str) -> None:
        self.session = bench.backend.sessions[text]
        self.healthy, self.session.function = self.session.function, self.fail
        self.trial: Gate | None = None
        """Holds back runs of zeros."""

    def fail(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if self.trial and not inputs["x"].any():
            self.trial.wait()
        raise RuntimeError("the device is gone")

    def heal(self) -> None:
        self.session.function = self.healthy


async def fail(bench: Bench) -> None:
    """So many runs that the session is tried."""
    for _ in range(SUSPICIOUS_RUNS):
        reply = OneReply()
        Engine(bench.registry).infer(request([1.0, 2.0]), reply)
        await reply.error()


async def take_down(bench: Bench) -> Sick:
    """Version 1 of 'm' is UNAVAILABLE because its session went bad, and about to be loaded again."""
    sick = Sick(bench, DOUBLING)
    await fail(bench)
    await until(bench, lambda: bench.states() == {"m": {1: "UNAVAILABLE"}})
    return sick


def test_a_version_that_is_being_recovered_is_left_to_the_recovery(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        sick = await take_down(bench)
        write(bench, 1, TREBLING)
        await settle(bench)
        assert bench.states() == {"m": {1: "UNAVAILABLE"}}
        assert not bench.registry.all_ready()
        sick.heal()
        bench.clock.advance(FIRST_DELAY_SECONDS)
        await until(bench, lambda: bench.states() == {"m": {1: "READY"}})
        await turn()
        assert await answer(bench) == [[3.0, 6.0]]
        await settle(bench)
        assert loads(bench) == ["1", "1"], "what the recovery has loaded is what is there"

    following(tmp_path, test)


def test_a_model_that_goes_while_its_session_is_tried_does_not_come_back(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, poll=True)
        bench.add("m", 1)
        await bench.plane.load_all()
        sick = Sick(bench, DOUBLING)
        sick.trial = Gate()
        await fail(bench)
        shutil.rmtree(tmp_path / "m")
        await bench.plane.poll()
        poll = asyncio.create_task(bench.plane.poll())
        await asyncio.wait({poll}, timeout=0.2)  # it waits for the trial; were it done, the model would come back below
        sick.trial.open()
        await asyncio.gather(poll, *bench.plane._recovery._tasks)
        assert not bench.registry.has("m")

    run(main)


def test_a_version_that_is_being_recovered_may_be_removed(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await take_down(bench)
        shutil.rmtree(tmp_path / "m")
        await settle(bench)
        assert bench.states() == {}
        bench.clock.advance(100)
        await turn()
        assert bench.states() == {} and loads(bench) == ["1"]

    following(tmp_path, test)


def test_a_store_at_a_distance_is_followed_like_a_folder(tmp_path: Path) -> None:
    async def main() -> None:
        store = PuppetStore()
        store.put("m/config.pbtxt", TWO_VERSIONS)
        for version in (1, 2, 3):
            store.put(f"m/{version}/model.onnx", DOUBLING)
        bench = Bench(tmp_path, poll=True, stores={"s3://bucket/models": store})
        bench.gate.open(1_000)
        await bench.plane.load_all()
        assert bench.states() == {"m": {2: "READY", 3: "READY"}}
        assert "m/1/model.onnx" not in store.reads
        store.put("m/3/model.onnx", TREBLING)
        await settle(bench)
        assert await answer(bench) == [[3.0, 6.0]]
        assert loads(bench) == ["3", "2", "3"], "version 2 has not changed"
        store.content["m/3/model.onnx"] = b"damaged on its way"
        store.lie_about("m/3/model.onnx", tag="new", size=18)
        await settle(bench)
        assert "its MD5 is" in bench.registry.entry("m").problem
        store.down = "no route"
        await settle(bench)
        assert bench.states() == {"m": {2: "READY", 3: "READY"}}
        assert await answer(bench) == [[3.0, 6.0]]
        await bench.plane.unload_all()

    run(main)


def test_a_version_that_serves_is_kept_here_while_its_successor_is_bad(tmp_path: Path) -> None:
    async def main() -> None:
        store = PuppetStore()
        store.put("m/1/model.onnx", DOUBLING)
        bench = Bench(tmp_path, poll=True, stores={"s3://bucket/models": store})
        await bench.plane.load_all()
        path = bench.backend.opened[0][0]
        store.put("m/2/model.onnx", LONG)
        for _ in range(4):
            await bench.plane.poll()
        assert bench.states() == {"m": {1: "READY", 2: "UNAVAILABLE"}}
        assert path.is_file(), "it may have to be loaded again"
        await bench.plane.unload_all()

    run(main)


def test_explicit_mode_fetches_only_what_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        store = PuppetStore()
        for name in ("a", "b"):
            store.put(f"{name}/1/model.onnx", DOUBLING)
        bench = Bench(tmp_path, load_models=("a",), stores={"s3://bucket/models": store})
        await bench.plane.load_all()
        assert bench.states() == {"a": {1: "READY"}, "b": {}}
        assert store.reads == ["a/1/model.onnx"]
        await bench.plane.unload_all()

    run(main)


def test_a_store_that_cannot_be_listed_stops_the_server_at_start(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, stores={"s3://bucket/models": PuppetStore(down="no route")})
        with pytest.raises(LoadFailed, match="no route"):
            await bench.plane.load_all()
        await bench.plane.unload_all()

    run(main)
