"""perf_analyzer, unmodified, against the server, whose ModelStatistics it reads before and after."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loadtest import perf_analyzer
from loadtest.perf_analyzer import PerfAnalyzer, UnavailableError
from loadtest.target import Target
from server.access.tokens import digest_of, shown
from tests.real.conftest import ROOT
from tests.real.test_sequences import write_repository

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer, StartServer

TOKEN = "t" * 32

pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="session")
def analyzer() -> PerfAnalyzer:
    try:
        return perf_analyzer.install()
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize(
    ("protocol", "mode", "in_flight"), [("grpc", "--sync", 1), ("grpc", "--async", 16), ("http", "--async", 4)]
)
def test_it_measures_the_server_and_finds_no_error(
    protocol: str, mode: str, in_flight: int, analyzer: PerfAnalyzer, shared_server: RunningServer, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{shared_server.ports[protocol]}"
    with Target(shared_server.grpc_address) as target:
        before = target.counts("lenet5")
        report = analyzer.run(
            *("-m", "lenet5", "-i", protocol, "-u", address),
            *(mode, "--concurrency-range", str(in_flight)),
            csv_file=tmp_path / "report.csv",
            seconds=120,
        )
        counted = target.counts("lenet5").since(before)

    assert not re.search("error|fail|warning", report.output, re.IGNORECASE), report.output
    assert report.number("Concurrency") == in_flight
    assert report.number("Inferences/Second") > 0
    # It sends before, between and after its windows too.
    (client_count,) = map(int, re.findall(r"Request count: (\d+)", report.output))
    assert 0 < client_count <= counted.successes
    assert (counted.inferences, counted.failures) == (counted.successes, 0)

    seen = {name: int(count) for name, count in re.findall(r"(\w+) count: (\d+)", report.output)}
    assert 0 < seen["Execution"] <= seen["Inference"] <= counted.inferences
    assert seen["request"] == seen["Inference"]
    for column in ("Server Queue", "Server Compute Input", "Server Compute Infer", "Server Compute Output"):
        assert report.number(column) >= 0, column
    assert report.number("Server Compute Infer") > 0
    on_the_server = sum(report.number(column) for column in report.row if re.match("Server (Queue|Compute)", column))
    assert on_the_server < report.number("p99 latency")


def test_its_sequences_are_served(analyzer: PerfAnalyzer, start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(model_repository=write_repository(tmp_path / "repository"))
    report = analyzer.run(
        *("-m", "direct", "-i", "grpc", "-u", server.grpc_address),
        *("--async", "--streaming", "--concurrency-range", "4", "--sequence-length", "10"),
        csv_file=tmp_path / "report.csv",
        seconds=120,
    )

    assert not re.search("error|fail|warning", report.output, re.IGNORECASE), report.output
    assert report.number("Inferences/Second") > 0
    with Target(server.grpc_address) as target:
        counted = target.counts("direct")
    (client_count,) = map(int, re.findall(r"Request count: (\d+)", report.output))
    assert (counted.failures, 0 < client_count <= counted.successes) == (0, True)


def test_it_shows_a_token(analyzer: PerfAnalyzer, start_server: StartServer, tmp_path: Path) -> None:
    (line,) = re.findall(r"^perf_analyzer (-.*)$", (ROOT / "docs/security.md").read_text(), re.MULTILINE)
    allow = 'allow = [{ apis = ["inference", "metadata", "model-config", "statistics"], models = ["lenet5"] }]'
    policy = f'[[principals]]\nname = "a"\ntokens = ["{shown(digest_of(TOKEN))}"]\n{allow}\n'
    (tmp_path / "policy.toml").write_text(policy)
    server = start_server(f"--auth-policy={tmp_path / 'policy.toml'}")
    words = shlex.split(line.replace("$TOKEN", TOKEN).replace("localhost:8001", server.grpc_address))
    words[words.index("affine")] = "lenet5"
    report = analyzer.run(*words, csv_file=tmp_path / "report.csv", seconds=120)
    assert re.search(r"Request count: [1-9]", report.output), report.output
