"""The benchmark beside peers, as its users run it: our server, a floor, and whoever else listens."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loadtest.__main__ import _parser
from loadtest.errors import LoadTestError
from loadtest.h2load import H2load
from loadtest.peers.base import Launch
from loadtest.peers.grpc_floor import GRPC_FLOOR
from loadtest.peers.ours import NGHTTP2
from loadtest.side_by_side.command import refuse_flags_of_the_other
from loadtest.side_by_side.external import parse_external
from loadtest.side_by_side.records import Records
from loadtest.side_by_side.subjects import LENET5, rows, workloads
from loadtest.side_by_side.turn import Tools, take_turn

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def h2load() -> H2load:
    try:
        return H2load.find()
    except LoadTestError as error:
        pytest.skip(str(error))


def bench(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtest", "bench", "--quick", "--out", str(out), *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )


def test_servers_take_turns_and_the_page_shows_them(
    h2load: H2load, shared_server: RunningServer, tmp_path: Path
) -> None:
    chosen = ("--subject", LENET5, "--only", "nghttp2")
    done = bench(tmp_path, *chosen, "--peer", f"grpc://{shared_server.grpc_address}")

    assert done.returncode == 0, done.stdout
    records = {record.server: record for record in Records(tmp_path / "turns")}
    assert [record.failure for record in records.values()] == [None] * 2, done.stdout
    for name, record in records.items():
        assert list(record.loads) == ["1", "16", "64"]
        for figures in record.loads.values():
            assert figures["requests_per_second"] > 0
            assert figures["cpu_us_per_request"] >= 0
            assert 0 < figures["p50_ms"] <= figures["p99_ms"]
        assert record.objective["limit_ms"] == 10
        assert record.server_figures["peak_memory_mib"] > 10
        assert ("start_seconds" in record.server_figures) == (not name.startswith("external"))
    page = (tmp_path / "benchmarks.md").read_text()
    for expected in ("Convoy, nghttp2", f"yours, {shared_server.grpc_address}", "## Where others"):
        assert expected in page

    again = bench(tmp_path, *chosen, "--resume")
    assert again.returncode == 0, again.stdout
    assert "round 1 of 1" not in again.stdout


def test_a_server_that_answers_wrongly_or_not_at_all_is_recorded_and_nothing_of_it_stays(
    h2load: H2load, tmp_path: Path
) -> None:
    workload = workloads([LENET5], tmp_path, REPOSITORY / "model_repository")[LENET5]
    inputs, answers = rows(workload.subject)
    tools = Tools(h2load, tmp_path, speed=20.0)
    other = [answer + 0.5 for answer in answers]

    wrong = take_turn(GRPC_FLOOR, Path(sys.executable), workload, inputs, [answers[0], *other[1:]], 1, tools)
    assert wrong.failure is None  # it answers every request with the same bytes, and nobody claims more

    lying = replace(GRPC_FLOOR, runs_model=True)
    wrong = take_turn(lying, Path(sys.executable), workload, inputs, answers, 1, tools)
    assert wrong.failure is not None and "other numbers than ONNX Runtime's" in wrong.failure

    broken = replace(NGHTTP2, launch=lambda _: Launch((sys.executable, "-c", "import no_such_library")))
    absent = take_turn(broken, Path(sys.executable), workload, inputs, answers, 1, tools)
    assert absent.failure is not None
    assert "ended before its first answer" in absent.failure
    assert "ModuleNotFoundError: No module named 'no_such_library'" in absent.failure


_ORPHANS = """
import json, sys, time
from pathlib import Path
import psutil
from loadtest.peers.base import Launch
from loadtest.side_by_side.processes import adopt_orphans, server_processes

child = "import time; x = bytearray(50 << 20); print('child', flush=True); time.sleep(600)"
parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)"
adopt_orphans()
log = Path(sys.argv[1])
with server_processes(Launch((sys.executable, "-c", parent)), log) as server:
    server.process.wait()
    while "child" not in log.read_text():
        time.sleep(0.01)
    server.refresh()
    seen = {"processes": len(server.processes()), "bytes": server.own_bytes(), "cpu": server.cpu_seconds()}
print(json.dumps({**seen, "left": len(psutil.Process().children(recursive=True))}))
"""


def test_a_process_that_outlives_its_parent_is_counted_and_ended(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ORPHANS, str(tmp_path / "log")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["processes"] == 1
    assert seen["bytes"] > 50 << 20
    assert seen["cpu"] > 0
    assert seen["left"] == 0


def test_the_process_of_an_own_server_is_found_by_its_port(shared_server: RunningServer) -> None:
    external = parse_external(f"grpc://{shared_server.grpc_address}", None)

    assert external.pid == shared_server.process.pid
    assert external.without_cpu is None


@pytest.mark.parametrize("url", ["localhost:8001", "http://localhost:8001", "grpc://localhost", "grpc://h:1/x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not grpc://HOST:PORT"):
        parse_external(url, None)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("small", "--quick"), "--quick has no meaning with a WORKLOAD"),
        (("--requests", "5"), "--requests has no meaning without a WORKLOAD"),
        (("--model", "other"), "--subject picks among the models"),
        (("--peer-pid", "5"), "--peer-pid needs --peer"),
    ],
)
def test_flags_that_mean_nothing_are_refused(flags: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(LoadTestError, match=complaint):
        refuse_flags_of_the_other(_parser().parse_args(["bench", *flags]))
