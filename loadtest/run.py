"""`python -m loadtest run`: Locust users on a server, a report, and a verdict by error rate and p99."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from loadtest.errors import LoadTestError
from loadtest.payload import parse_shape
from loadtest.processes import our_server, running
from loadtest.target import Target
from loadtest.verdict import Limits, Outcome, describe, judge

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
# Locust lets the requests in flight finish for that long, and must then be gone after a while.
_STOP_SECONDS = 20
_GRACE_SECONDS = 60


@dataclass(frozen=True)
class LoadTest:
    """What `run` is asked to do."""

    model: str
    users: int
    seconds: int
    shapes: tuple[str, ...]
    """NAME:DIM,DIM,...: see `payload.parse_shape`."""
    limits: Limits
    url: str | None
    """"host:port" of a running server; None starts one that serves `model_repository`."""
    model_repository: Path
    out: Path


def run(test: LoadTest) -> bool:
    """Carries out `test`, prints figures and verdict, and leaves report.html, CSV files and verdict.json in `test.out`.

    Returns whether every limit was kept.
    """
    test.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        metrics = None
        address = test.url
        if address is None:
            print("load: starting a fresh server")
            server = stack.enter_context(running(our_server(test.model_repository), test.out, "server"))
            address = server.address
            metrics = f"http://127.0.0.1:{server.ports['metrics']}/metrics"
        print(f"load: {test.users} users on '{test.model}' at {address} for {test.seconds} s")
        outcome = _measure(test, address, metrics)
    checks = judge(outcome, test.limits)
    passed = all(check.passed for check in checks)
    print(describe(outcome))
    for check in checks:
        print(f"{'kept  ' if check.passed else 'BROKEN'}  {check.text}")
    _print_failures(test.out)
    verdict = {"passed": passed, "outcome": asdict(outcome), "checks": [asdict(check) for check in checks]}
    (test.out / "verdict.json").write_text(json.dumps(verdict, indent=2) + "\n")
    print(f"report         {test.out / 'report.html'}")
    print(f"verdict        {'PASSED' if passed else 'FAILED'}")
    return passed


def _measure(test: LoadTest, address: str, metrics: str | None) -> Outcome:
    with Target(address) as target:
        rows = target.workload(test.model, dict(map(parse_shape, test.shapes)), count=1).rows
        counts_before = target.counts(test.model)
        metric_before = _inference_count(metrics, test.model) if metrics else 0.0
        entries = _locust(test, address)
        counted = target.counts(test.model).since(counts_before)
        metric = _inference_count(metrics, test.model) - metric_before if metrics else None
    latencies: Counter[float] = Counter()
    for entry in entries:
        latencies.update({float(latency): count for latency, count in entry["response_times"].items()})
    return Outcome(
        requests=sum(entry["num_requests"] for entry in entries),
        failures=sum(entry["num_failures"] for entry in entries),
        seconds=max((entry["last_request_timestamp"] - entry["start_time"] for entry in entries), default=0.0),
        latencies_ms=dict(latencies),
        rows=rows,
        counted=counted,
        metric=metric,
        alone=test.url is None,
    )


def _locust(test: LoadTest, address: str) -> list[dict[str, Any]]:
    """Runs Locust to its end and returns its statistics, an entry for each kind of request."""
    command = [sys.executable, "-m", "locust", "--locustfile", str(_LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--users", str(test.users), "--spawn-rate", str(test.users), "--run-time", f"{test.seconds}s"]
    command += ["--stop-timeout", str(_STOP_SECONDS), "--exit-code-on-error", "0", "--loglevel", "WARNING"]
    command += ["--html", str(test.out / "report.html"), "--csv", str(test.out / "locust")]
    command += ["--json-file", str(test.out / "locust"), "--host", address, "--model", test.model]
    for shape in test.shapes:
        command += ["--shape", shape]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, timeout=test.seconds + _STOP_SECONDS + _GRACE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LoadTestError(f"Locust did not end {_STOP_SECONDS + _GRACE_SECONDS} s after its time") from error
    if done.returncode != 0:
        raise LoadTestError(f"Locust ended with {done.returncode}, see above")
    entries: list[dict[str, Any]] = json.loads((test.out / "locust.json").read_text())
    return entries


def _inference_count(metrics: str, model: str) -> float:
    """nv_inference_count of `model`, all versions together, as scraped from `metrics`."""
    with urlopen(metrics, timeout=10) as answer:  # noqa: S310 -- the http address of a server started here
        text = answer.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "nv_inference_count" and sample.labels["model"] == model
    )


def _print_failures(out: Path) -> None:
    with (out / "locust_failures.csv").open(newline="") as file:
        for failure in islice(csv.DictReader(file), 5):
            print(f"failure        {failure['Occurrences']} times: {failure['Error']}")
