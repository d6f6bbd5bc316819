"""Sequences that go on while versions come and go, on a control plane of puppets: 'm' doubles, and then trebles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path

import numpy as np
import pytest

from server.engine import Engine
from server.errors import ConvoyError, NotFound, NotReady, SequenceNotStarted
from server.messages import SequenceFlags
from server.models.lifecycle import State
from server.models.model import LoadedVersion
from server.models.overrides import Override
from server.models.succession import MAX_LINGER_SECONDS
from tests.fakes import OneReply
from tests.unit.controlling import TREBLING, TWO_VERSIONS, Bench, until, write
from tests.unit.loaded import request, run, turn, values
from tests.unit.requesting import kept

IDLE_SECONDS = 3600
SEQUENCES = f"sequence_batching {{ max_sequence_idle_microseconds: {IDLE_SECONDS * 10**6} }}"
CONFIG_JSON = json.dumps({"max_batch_size": 4, "sequence_batching": {}})
SHORT_IDLE = "sequence_batching { max_sequence_idle_microseconds: 1000000 }"


def submit(bench: Bench, key: str, flags: str = "", version: str = "", model: str = "m") -> OneReply:
    """Send one; `flags` holds "s" where it starts, and "e" where it ends a sequence."""
    reply = OneReply()
    asked = request([1.0, 1.0], sequence=SequenceFlags(key, "s" in flags, "e" in flags))
    asked.model_name, asked.model_version = model, version
    engine = Engine(bench.registry)
    engine.begin_service()
    engine.infer(asked, reply)
    return reply


async def factor(bench: Bench, key: str, flags: str = "", version: str = "", model: str = "m") -> float:
    """What the version that answers multiplies with."""
    return float(values(await submit(bench, key, flags, version, model).response())["y"][0][0])


async def refused(bench: Bench, key: str, version: str = "") -> type[ConvoyError]:
    return type(await submit(bench, key, version=version).error())


def serving(root: Path, test: Callable[[Bench], Coroutine[None, None, None]], config: str = SEQUENCES) -> None:
    """Run a test on a bench that loads on request and serves version 1 of 'm'."""

    async def main() -> None:
        bench = Bench(root, on_request=True)
        bench.gate.open(1_000)
        bench.add("m", 1, config=f"max_batch_size: 4 {config}")
        await bench.plane.load_all()
        await test(bench)
        await bench.plane.unload_all()
        assert np.isinf([alarm.when for alarm in bench.clock.alarms]).all(), "everything has an end"

    run(main)


async def reload(bench: Bench, version: int = 1) -> None:
    """Version 1 trebles from now on, or a new version does."""
    write(bench, version, TREBLING)
    await bench.plane.load("m")


def gone(caplog: pytest.LogCaptureFixture) -> bool:
    return "model 'm' version 1, which was replaced, is gone" in caplog.messages


async def settled(bench: Bench) -> None:
    """Wait until nothing but what serves is left."""
    await until(bench, lambda: bench.states() == {"m": {2: "READY"}})


def test_a_sequence_goes_on_with_the_version_that_it_began_with(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        assert await factor(bench, "a", "s") == 2
        await reload(bench)
        assert [await factor(bench, "a"), await factor(bench, "b", "s"), await factor(bench, "a")] == [2, 3, 2]
        assert await factor(bench, "a", "e", version="1") == 2
        assert await refused(bench, "a") is SequenceNotStarted
        assert await factor(bench, "b", "e") == 3

    serving(tmp_path, test)


def test_whoever_starts_anew_is_with_the_new_version(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        for key in "ab":
            await factor(bench, key, "s")
        await reload(bench)
        assert [await factor(bench, "a", "s"), await factor(bench, "a", "e"), await factor(bench, "b")] == [3, 3, 2]
        assert await refused(bench, "a") is SequenceNotStarted

    serving(tmp_path, test)


def test_both_versions_are_counted(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await factor(bench, "a", "s")
        await reload(bench)
        await factor(bench, "b", "s")
        (version,) = bench.registry.loaded()
        assert version.sequences() == (8, 2, 0)
        assert version.statistics.inference_count == 2
        await factor(bench, "a", "e")
        assert version.sequences() == (4, 1, 0)

    serving(tmp_path, test)


def test_a_version_goes_with_its_last_sequence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def test(bench: Bench) -> None:
        await factor(bench, "a", "s")
        await factor(bench, "b", "s")
        await reload(bench)
        await factor(bench, "a", "e")
        assert await factor(bench, "b") == 2
        assert not gone(caplog)
        await factor(bench, "b", "e")
        await bench.plane.load("m")  # waits for nothing; and what was let go has had its turns of the loop
        assert gone(caplog)

    serving(tmp_path, test)


def test_silence_counts_from_the_last_answer_and_ends_the_old_version_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def test(bench: Bench) -> None:
        await factor(bench, "a", "s")
        await reload(bench)
        bench.clock.advance(0.9)
        assert await factor(bench, "a") == 2
        bench.clock.advance(0.9)
        assert await factor(bench, "a") == 2
        bench.clock.advance(1)
        assert await refused(bench, "a") is SequenceNotStarted
        (version,) = bench.registry.loaded()
        assert version.statistics.reclaimed_sequences == 1
        await bench.plane.load("m")
        assert gone(caplog)

    serving(tmp_path, test, SHORT_IDLE)


def test_no_version_stays_longer_than_it_may(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await factor(bench, "a", "s")
        await reload(bench)
        bench.clock.advance(MAX_LINGER_SECONDS - 1)
        assert await factor(bench, "a") == 2
        bench.clock.advance(1)
        assert await refused(bench, "a") is SequenceNotStarted

    serving(tmp_path, test)


def test_of_versions_that_were_replaced_one_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def test(bench: Bench) -> None:
        await factor(bench, "a", "s")
        await reload(bench)
        await factor(bench, "b", "s")
        write(bench, 1)
        await bench.plane.load("m")
        assert await factor(bench, "b") == 3
        assert await refused(bench, "a") is SequenceNotStarted
        assert await factor(bench, "c", "s") == 2
        assert gone(caplog)

    serving(tmp_path, test)


def test_a_sequence_in_the_backlog_goes_on_too(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await factor(bench, "a", "s")
        waiting = submit(bench, "b", "s")
        await reload(bench)
        assert await factor(bench, "c", "s") == 3
        later = submit(bench, "b", "e")
        assert await factor(bench, "a", "e") == 2
        assert [values(await reply.response())["y"] for reply in (waiting, later)] == [[[2, 2]], [[2, 2]]]

    serving(tmp_path, test, SEQUENCES.replace("{", "{ oldest { max_candidate_sequences: 1 }"))


def test_a_sequence_goes_on_when_a_newer_version_becomes_the_latest(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await factor(bench, "a", "s")
        await reload(bench, 2)
        assert bench.states() == {"m": {1: "DRAINING", 2: "READY"}}
        assert bench.registry.all_ready()
        (latest,) = bench.registry.loaded()
        assert latest.sequences() == (4, 0, 0)
        assert [await factor(bench, "a"), await factor(bench, "b", "s"), await factor(bench, "b", "e")] == [2, 3, 3]
        assert await refused(bench, "a", "2") is SequenceNotStarted
        assert await refused(bench, "a", "1") is NotReady
        assert await factor(bench, "a", "e") == 2
        await settled(bench)
        assert await refused(bench, "a") is SequenceNotStarted

    serving(tmp_path, test)


AROUND = """
platform: "ensemble" max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
ensemble_scheduling { step {
  model_name: "m" input_map { key: "x" value: "x" } output_map { key: "y" value: "y" }
} }
"""


@pytest.mark.parametrize("version", [1, 2])
def test_a_sequence_of_an_ensemble_goes_on_too(tmp_path: Path, version: int) -> None:
    async def test(bench: Bench) -> None:
        bench.add("around", 1, config=AROUND)
        await bench.plane.load("around")
        assert await factor(bench, "a", "s", model="around") == 2
        await reload(bench, version)
        assert await factor(bench, "a", model="around") == 2
        assert await factor(bench, "b", "s", model="around") == 3

    serving(tmp_path, test)


def test_sequences_of_a_version_that_stays_are_its_own(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await factor(bench, "a", "s", version="1")
        await reload(bench, 2)
        assert await refused(bench, "a") is SequenceNotStarted
        assert [await factor(bench, "a", "s"), await factor(bench, "a", version="1")] == [3, 2]

    serving(tmp_path, test, f"{SEQUENCES} {TWO_VERSIONS}")


def test_who_wants_the_version_back_does_not_wait_for_its_sequences(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await factor(bench, "a", "s")
        await reload(bench, 2)
        await factor(bench, "b", "s")
        (tmp_path / "m" / "2" / "model.onnx").unlink()
        (tmp_path / "m" / "2").rmdir()
        await bench.plane.load("m")
        assert bench.states() == {"m": {1: "READY", 2: "DRAINING"}}
        assert [await factor(bench, "b"), await factor(bench, "c", "s")] == [3, 2]
        assert await refused(bench, "a") is SequenceNotStarted

    serving(tmp_path, test)


@pytest.mark.parametrize("version", [1, 2])
def test_an_unload_waits_for_no_sequence(tmp_path: Path, version: int) -> None:
    async def test(bench: Bench) -> None:
        await factor(bench, "a", "s")
        await reload(bench, version)
        await factor(bench, "b", "s")
        await bench.plane.unload("m")
        assert bench.states() == {"m": {version: "UNAVAILABLE"}}
        assert await refused(bench, "a") is NotFound

    serving(tmp_path, test)


@pytest.mark.parametrize("ending", ["unload", "stop"])
@pytest.mark.parametrize("version", [1, 2])
def test_what_runs_in_the_old_version_is_waited_for_where_the_model_goes(
    tmp_path: Path, version: int, ending: str
) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, on_request=True)
        bench.add("m", 1, config=f"max_batch_size: 4 {SEQUENCES}")
        await bench.plane.load_all()
        running = submit(bench, "a", "s")
        await reload(bench, version)
        going = asyncio.create_task(bench.plane.unload("m") if ending == "unload" else bench.plane.unload_all())
        await turn()
        assert (going.done(), bench.states()["m"][version]) == (False, "READY"), "the new one goes after the old one"
        bench.gate.open(1_000)
        await going
        assert values(await running.response())["y"] == [[2, 2]]
        assert bench.states()["m"] == {version: "UNAVAILABLE"}
        if ending == "unload":
            await bench.plane.unload_all()

    run(main)


def test_a_stop_waits_for_no_sequence_of_a_version_whose_successor_has_failed(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await factor(bench, "a", "s")
        await reload(bench, 2)
        (successor,) = bench.registry.loaded()
        assert isinstance(successor, LoadedVersion)
        bench.registry.set_state("m", 2, State.DRAINING)
        await successor.abandon("it has gone bad")
        bench.registry.set_state("m", 2, State.UNAVAILABLE)

    serving(tmp_path, test)


def test_a_version_is_replaced_once_however_many_come(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def test(bench: Bench) -> None:
        await factor(bench, "a", "s")
        write(bench, 2, TREBLING)
        await reload(bench, 3)
        assert [await factor(bench, "a"), await factor(bench, "a", "e")] == [2, 2]
        await until(bench, lambda: bench.states() == {"m": {2: "READY", 3: "READY"}})
        assert caplog.text.count("is replaced, and stays") == 1

    serving(tmp_path, test, f"{SEQUENCES} {TWO_VERSIONS}")


def test_files_that_came_along_with_a_version_do_not_stay_with_its_sequences(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await bench.plane.load("m", Override(CONFIG_JSON, {"1/model.onnx": TREBLING.encode()}))
        await factor(bench, "a", "s")
        assert kept(bench) == ["m"]
        write(bench, 2)
        await bench.plane.load("m")
        assert kept(bench) == []
        assert [await factor(bench, "a"), await factor(bench, "b", "s")] == [3, 2]

    serving(tmp_path, test)


def test_requests_that_the_old_version_has_are_answered_whenever_it_goes(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, on_request=True)
        bench.add("m", 1, config=f"max_batch_size: 4 {SEQUENCES}")
        await bench.plane.load_all()
        first = submit(bench, "a", "s")
        await reload(bench)
        later = submit(bench, "a")
        bench.clock.advance(MAX_LINGER_SECONDS)
        bench.gate.open(1_000)
        assert [values(await reply.response())["y"] for reply in (first, later)] == [[[2, 2]], [[2, 2]]]
        await bench.plane.unload_all()

    run(main)


def test_a_model_without_sequences_goes_at_once(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        await factor(bench, "a")
        await reload(bench, 2)
        assert bench.states() == {"m": {2: "READY"}}
        assert await factor(bench, "a") == 3

    serving(tmp_path, test, "")
