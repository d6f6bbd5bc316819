"""`python -m loadtest run`: Locust users on a server, a report, and a verdict by error rate and p99."""

from __future__ import annotations

import argparse
import csv
import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from loadtest.errors import LoadTestError
from loadtest.figures import Counts, finite, percentile
from loadtest.processes import ending_with_us, our_server, running
from loadtest.swarm import reports
from loadtest.swarm.flags import NO_SHAPE, as_arguments, plan_of, shapes_of
from loadtest.swarm.latencies import PERCENTILES, percentile_name, total
from loadtest.swarm.levels import Level, ramp_check
from loadtest.swarm.levels import describe as describe_level
from loadtest.swarm.mix import parse_models
from loadtest.swarm.plans import Plan, longest_seconds
from loadtest.target import Target
from loadtest.verdict import CLOSED_LOOP, Check, Limits, ModelOutcome, Outcome, count_checks, describe, limit_checks

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
# Locust lets the requests in flight finish for that long, and must then be gone after a while.
_STOP_SECONDS = 20
_GRACE_SECONDS = 60
_WORKERS_SECONDS = 60


@dataclass(frozen=True)
class LoadTest:
    """What `run` is asked to do."""

    flags: argparse.Namespace
    """Those of `swarm.flags`."""
    user_classes: tuple[str, ...]
    """Locust's names of users; none: GrpcUser."""
    users: int
    spawn_rate: float
    """Users started or stopped per second."""
    seconds: int | None
    """None, with a load shape: as long as that lasts by itself."""
    workers: int
    """Processes that send, beside one that directs them; 0: a single process does both."""
    url: str | None
    """"host:port" of a running server's gRPC; None starts one that serves `model_repository`."""
    model_repository: Path
    out: Path

    @property
    def limits(self) -> Limits:
        return Limits(self.flags.p99_ms, self.flags.max_error_rate)

    @property
    def models(self) -> list[str]:
        return [share.model for share in parse_models(self.flags.model)]

    @property
    def plan(self) -> Plan | None:
        shape = self.flags.load_shape
        if shape == NO_SHAPE:
            return None
        return plan_of(self.flags, shape, users=self.users, spawn_rate=self.spawn_rate, seconds=self.seconds)


@dataclass(frozen=True)
class _Server:
    address: str
    http_address: str | None
    metrics: str | None


def run(test: LoadTest) -> bool:
    """Carries out `test`, prints figures and verdict, and leaves its reports in `test.out`.

    Returns whether every limit was kept. Reports: report.html, verdict.json, Locust's CSV files (locust_*.csv), and
    in microseconds locust_percentiles.csv, locust_*.hgrm and locust_latencies.json.
    """
    plan = test.plan
    test.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        server = _server(stack, test)
        what = f"{test.users} users on {', '.join(test.models)} at {server.address}"
        print(f"load: {what}, load shape {plan.shape}" if plan else f"load: {what} for {test.seconds} s")
        outcome, levels = _measure(test, server)
    ramp = plan is not None and plan.shape == "ramp-to-failure"
    p99_ms = outcome.percentiles["p99_ms"]
    promises = [ramp_check(levels, test.limits)] if ramp else limit_checks(p99_ms, outcome.error_rate, test.limits)
    checks = promises + count_checks(outcome)
    text = _text(test, outcome, levels, checks)
    passed = all(check.passed for check in checks)
    verdict = {
        "passed": passed,
        "outcome": asdict(outcome) | {"requests": outcome.requests, "failures": outcome.failures},
        "levels": [asdict(level) | {"kept": level.keeps(test.limits)} for level in levels],
        "checks": [asdict(check) for check in checks],
        "note": CLOSED_LOOP,
    }
    (test.out / "verdict.json").write_text(json.dumps(finite(verdict), indent=2) + "\n")
    reports.add_text(test.out / "report.html", text)
    print(text)
    print(f"report         {test.out / 'report.html'}")
    print(f"verdict        {'PASSED' if passed else 'FAILED'}")
    return passed


def _text(test: LoadTest, outcome: Outcome, levels: Sequence[Level], checks: Sequence[Check]) -> str:
    judged = [(level.keeps(test.limits), f"level of {describe_level(level)}") for level in levels]
    judged += [(check.passed, check.text) for check in checks]
    with (test.out / "locust_failures.csv").open(newline="") as file:
        failures = [f"{row['Occurrences']} times: {row['Error']}" for row in islice(csv.DictReader(file), 5)]
    return "\n".join(
        [
            describe(outcome),
            *(f"{'kept  ' if kept else 'BROKEN'}         {text}" for kept, text in judged),
            *(f"failure        {text}" for text in failures),
            f"note           {CLOSED_LOOP}",
        ]
    )


def _server(stack: ExitStack, test: LoadTest) -> _Server:
    if test.url is not None:
        return _Server(test.url, test.flags.http_host or None, None)
    print("load: starting a fresh server")
    server = stack.enter_context(running(our_server(test.model_repository), test.out, "server"))
    return _Server(
        server.address,
        f"127.0.0.1:{server.ports['http']}",
        f"http://127.0.0.1:{server.ports['metrics']}/metrics",
    )


def _measure(test: LoadTest, server: _Server) -> tuple[Outcome, Sequence[Level]]:
    with Target(server.address) as target:
        rows = _rows(test, target)
        before = {model: _counted(target, server, model) for model in test.models}
        entries = _locust(test, server)
        after = {model: _counted(target, server, model) for model in test.models}
    measured = reports.read(test.out / "locust")
    together = total(measured.totals)
    rounded: Counter[float] = Counter()
    for entry in entries:
        rounded.update({float(latency): count for latency, count in entry["response_times"].items()})
    models = []
    for model in test.models:
        mine = [entry for entry in entries if entry["name"].partition(" ")[2] == model]
        counts, metric = after[model]
        counts_before, metric_before = before[model]
        models.append(
            ModelOutcome(
                model=model,
                requests=sum(entry["num_requests"] for entry in mine),
                failures=sum(entry["num_failures"] for entry in mine),
                rows=rows[model],
                counted=counts.since(counts_before),
                metric=None if metric is None or metric_before is None else metric - metric_before,
            )
        )
    outcome = Outcome(
        models=tuple(models),
        seconds=max((entry["last_request_timestamp"] - entry["start_time"] for entry in entries), default=0.0),
        percentiles={percentile_name(percent): together.percentile_ms(percent) for percent in PERCENTILES},
        recorded=together.requests,
        rounded_p99_ms=percentile(rounded, 0.99),
        busy=measured.busy,
        alone=test.url is None,
    )
    return outcome, measured.levels


def _rows(test: LoadTest, target: Target) -> dict[str, int]:
    """Rows of each model's requests; a LoadTestError where there can be none, before anything is started."""
    flags = test.flags
    several = len(test.models) > 1
    rows = {}
    for model in test.models:
        samples = (Path(flags.samples) / model if several else Path(flags.samples)) if flags.samples else None
        rows[model] = target.workload(model, shapes_of(flags.shape), samples=samples, count=1).rows
    return rows


def _counted(target: Target, server: _Server, model: str) -> tuple[Counts, float | None]:
    return target.counts(model), _inference_count(server.metrics, model) if server.metrics else None


def _locust(test: LoadTest, server: _Server) -> list[dict[str, Any]]:
    """Runs Locust to its end and returns its statistics, an entry for each kind of request."""
    reports.forget(test.out / "locust")
    common = [sys.executable, "-m", "locust", "--locustfile", str(_LOCUSTFILE), "--loglevel", "WARNING"]
    common += ["--host", server.address, *as_arguments(test.flags), *test.user_classes]
    if server.http_address is not None:
        common += ["--http-host", server.http_address]
    director = [*common, "--headless", "--only-summary", "--exit-code-on-error", "0"]
    director += ["--users", str(test.users), "--spawn-rate", f"{test.spawn_rate:g}"]
    director += ["--stop-timeout", str(_STOP_SECONDS), "--html", str(test.out / "report.html")]
    for flag in ("--csv", "--json-file", "--latencies"):
        director += [flag, str(test.out / "locust")]
    if test.seconds is not None:
        director += ["--run-time", f"{test.seconds}s"]
    with ExitStack() as stack:
        if test.workers:
            port = _free_port()
            director += ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(port)]
            director += ["--expect-workers", str(test.workers), "--expect-workers-max-wait", str(_WORKERS_SECONDS)]
            worker = [*common, "--worker", "--master-host", "127.0.0.1", "--master-port", str(port)]
            for _ in range(test.workers):
                stack.enter_context(_worker(worker))
        try:
            # In a group of its own, as workers: Ctrl-C is for us, who end it.
            done = subprocess.run(
                director, stdin=subprocess.DEVNULL, timeout=_patience(test), check=False, process_group=0
            )
        except subprocess.TimeoutExpired as error:
            raise LoadTestError(f"Locust did not end {_STOP_SECONDS + _GRACE_SECONDS} s after its time") from error
    if done.returncode != 0:
        raise LoadTestError(f"Locust ended with {done.returncode}, see above")
    entries: list[dict[str, Any]] = json.loads((test.out / "locust.json").read_text())
    return entries


@contextmanager
def _worker(command: Sequence[str]) -> Iterator[None]:
    """A process of Locust that sends, and ends when its master has ended; otherwise than with 0 is an error."""
    process = subprocess.Popen(
        ending_with_us(command),
        stdin=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        yield
    except BaseException:
        process.terminate()
        raise
    finally:
        try:
            code = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    if code != 0:
        raise LoadTestError(f"a worker of Locust ended with {code}, see above: what it had measured is not complete")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _patience(test: LoadTest) -> float:
    """After how many seconds Locust must have ended."""
    lasting = test.seconds or 0 if test.plan is None else longest_seconds(test.plan)
    starting = test.users / test.spawn_rate + (_WORKERS_SECONDS if test.workers else 0)
    return lasting + starting + _STOP_SECONDS + _GRACE_SECONDS


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
