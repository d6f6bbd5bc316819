"""Locust as its users start it: workers, its page, HTTP v2. `test_load.py` has the plain run over gRPC."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.http_v2_server import SLOW_SECONDS, serving
from tests.real.conftest import ROOT, RunningServer
from tests.real.locust_page import LOCUST, SECONDS, free_port, get, page, state
from tests.real.waiting import wait_until

pytestmark = pytest.mark.timeout(300)


def locust(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LOCUST, "--headless", "--only-summary", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )


def test_workers_count_every_request_to_every_model_and_the_server_counts_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtest", "run", "GrpcUser", "GrpcStreamUser", "RestUser"]
    command += ["--model=lenet5=3,letters26", "--workers=2", "--users=6", "--seconds=3", "--p99-ms=30000"]
    done = subprocess.run(
        [*command, f"--out={tmp_path}"], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "python -m loadtest mlperf" in done.stdout
    models = json.loads((tmp_path / "verdict.json").read_text())["outcome"]["models"]
    assert [model["model"] for model in models] == ["lenet5", "letters26"]
    assert all(model["requests"] == model["counted"]["inferences"] == model["metric"] > 0 for model in models)
    with (tmp_path / "locust_percentiles.csv").open(newline="") as file:
        rows = {row["name"]: int(row["requests"]) for row in csv.DictReader(file)}
    assert rows.pop("Aggregated") == sum(rows.values()) == sum(model["requests"] for model in models)
    assert set(rows) == {
        f"{rpc} {name}" for rpc in ("ModelInfer", "ModelStreamInfer", "infer") for name in ("lenet5", "letters26")
    }
    assert "TotalCount" in (tmp_path / "locust_ModelStreamInfer_lenet5.hgrm").read_text()
    assert "verdict" not in done.stderr and "level" not in done.stderr
    assert "kept           p99" in (tmp_path / "report.html").read_text()


def with_a_worker() -> tuple[str, ...]:
    """Flags for a master and a worker of one command."""
    port = free_port()
    where = ("--master-bind-host=127.0.0.1", f"--master-bind-port={port}", f"--master-port={port}")
    return ("--processes=1", "--expect-workers-max-wait=60", *where)


def test_the_page_starts_chosen_users_and_shows_microseconds(shared_server: RunningServer, tmp_path: Path) -> None:
    address = shared_server.grpc_address
    with page(tmp_path, f"--host={address}", "--class-picker", *with_a_worker()) as url:
        assert '"extended_tabs": [{"key": "latencies"' in get(url)

        def swarm(**form: Any) -> None:
            answer = json.loads(get(f"{url}/swarm", user_count=2, spawn_rate=2, host=address, **form))
            assert answer["success"], answer

        wait_until(lambda: json.loads(get(f"{url}/worker-count"))["worker_count"] == 1, SECONDS)
        # As the page sends it, every field filled in.
        swarm(user_classes="GrpcUser", shape_class="Steps", model="no_such_model", steps="1", run_time="30")
        wait_until(lambda: "no_such_model" in (tmp_path / "locust.log").read_text(), SECONDS)
        wait_until(lambda: state(url) == "stopped", SECONDS)
        swarm(user_classes="GrpcStreamUser", shape_class="Default", model="lenet5", p99_ms="Infinity", samples="")
        wait_until(lambda: len(json.loads(get(f"{url}/latencies"))) == 2, SECONDS)
        assert json.loads(get(f"{url}/stop", now="1"))["success"]
        (row, total) = json.loads(get(f"{url}/latencies"))
        assert row["name"] == "ModelStreamInfer lenet5"
        assert total["requests"] == row["requests"] > 0
        assert total["failures"] == 0
        assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert get(f"{url}/latencies/csv").startswith("type,name,requests,")


def test_users_of_http_v2_send_samples_find_out_wrong_answers_and_wait_for_the_last(tmp_path: Path) -> None:
    models = {"right": 2, "wrong": 1, "busy": 1, "slow": 0.3}
    samples = {name: np.array([[index, index + 0.5]], np.float32) for index, name in enumerate(("one", "two"))}
    for model in models:
        (tmp_path / model).mkdir()
        for name, array in samples.items():
            np.save(tmp_path / model / f"{name}.npy", array)
    with serving(*models) as server:
        done = locust(
            "RestUser", f"--host={server.address}", f"--samples={tmp_path}", f"--latencies={tmp_path}/report",
            f"--model={','.join(f'{model}={weight}' for model, weight in models.items())}",
            "--users=4", "--spawn-rate=4", "--run-time=2s", "--stop-timeout=10",
            *with_a_worker(),
        )  # fmt: skip

    assert done.returncode == 1, done.stdout
    assert "503: too many requests" in done.stdout
    assert "outputs [], expected ['y']" in done.stdout
    rows = {row["name"]: row for row in json.loads((tmp_path / "report_latencies.json").read_text())["rows"]}
    for model in models:
        assert f"infer {model}" in rows, (server.seen, done.stdout)
        row = rows[f"infer {model}"]
        assert row["requests"] == sum(count for (name, _), count in server.seen.items() if name == model) > 0
        assert row["failures"] == (row["requests"] if model in ("wrong", "busy") else 0)
    assert rows["infer slow"]["min_ms"] > 1e3 * SLOW_SECONDS
    assert {data for _, data in server.seen} == {array.tobytes() for array in samples.values()}
