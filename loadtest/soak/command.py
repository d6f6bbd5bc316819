"""`python -m loadtest soak`: a fresh server, clients in processes of their own, samples, and a verdict."""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.connection
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from loadtest import flag_values
from loadtest.bench.workloads import machine
from loadtest.errors import BadEndError, LoadTestError
from loadtest.processes import Running, our_server, running
from loadtest.soak import books, models
from loadtest.soak.player import Part, Played, play_part
from loadtest.soak.report import Soaked, table, write_report
from loadtest.soak.sampling import Page, Sample, lag_p99_us, read_page, take_sample
from loadtest.soak.tally import Tally
from loadtest.soak.verdict import Tolerance, judge
from loadtest.target import Target
from loadtest.verdict import Check

_SAMPLES = 200
_SLOWEST_SAMPLING_S = 1.0
_SETTLE_SECONDS = 60.0
_BUSY_SHARE = 0.8
_OVER_SECONDS = 300.0
"""How long clients may go on when their time is over: longer than any of their calls."""
_LEVELS = ("in_flight", "pending", "running_batches", "regions")
"""Of a sample: 0 as soon as nobody wants anything."""


@dataclass(frozen=True)
class Settings:
    """What was asked for."""

    seconds: float
    rate: float
    in_flight: int
    processes: int
    seed: int
    engine: str
    rss_rise_mib: float
    descriptors_rise: float
    threads_rise: float

    def tolerances(self) -> Iterator[tuple[Tolerance, str, float]]:
        """With the field of a sample that each is for, and what makes its unit of it."""
        yield Tolerance("RSS", "MiB", self.rss_rise_mib), "rss_bytes", 2.0**-20
        yield Tolerance("descriptors", "open", self.descriptors_rise), "descriptors", 1.0
        yield Tolerance("threads", "running", self.threads_rise), "threads", 1.0


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds `soak` to the command line."""
    command = commands.add_parser(
        "soak",
        parents=[common],
        help="everything that clients do, for half an hour, on a fresh server: is it all flat?",
    )
    own = "(%(default)s)"
    command.add_argument("--seconds", type=flag_values.positive, default=1800.0, help=f"how long {own}")
    command.add_argument("--rate", type=flag_values.positive, default=100.0, help=f"things done per second {own}")
    command.add_argument("--in-flight", type=flag_values.count, default=48, help=f"at most, of each process {own}")
    command.add_argument("--processes", type=flag_values.count, default=1, help=f"of clients {own}")
    command.add_argument("--seed", type=flag_values.seed, default=0, help=f"of the schedule {own}")
    command.add_argument("--engine", choices=("auto", "nghttp2", "grpcio"), default="auto", help=f"for gRPC {own}")
    rises = (
        ("rss-rise-mib", 16.0, "MiB of RSS"),
        ("descriptors-rise", 8.0, "descriptors"),
        ("threads-rise", 4.0, "threads"),
    )
    for flag, default, what in rises:
        command.add_argument(
            f"--{flag}",
            type=flag_values.positive,
            default=default,
            help=f"how many {what} more after the warm-up {own}",
        )


def run_soak(arguments: argparse.Namespace) -> bool:
    """Soaks, and says what came of it. Returns whether it passed."""
    settings = Settings(**{field.name: getattr(arguments, field.name) for field in fields(Settings)})
    folder = arguments.out or Path("runs/soak")
    folder.mkdir(parents=True, exist_ok=True)
    repository = folder / "models"
    loaded = models.write_repository(repository, arguments.model_repository)
    about = machine()
    command = [*our_server(repository, settings.engine), "--model-control-mode=explicit", "--allow-client-shm=true"]
    command += ["--cache-config=local,size=1048576", *(f"--load-model={name}" for name in loaded)]
    observed: _Observed | None = None
    try:
        with running(command, folder, "server") as server:
            observed = _observe(server, settings, repository, loaded)
        end = Check(True, "the server ended with 0 after SIGTERM")
    except BadEndError as error:
        end = Check(False, str(error))
    if observed is None:
        raise LoadTestError(end.text)
    checks = [*observed.checks(settings), end, _log_check(folder / "server.log")]
    soaked = Soaked(
        vars(settings), about, observed.samples, observed.played, observed.tally, checks, list(observed.notes())
    )
    write_report(soaked, folder)
    print(table(soaked))
    print(f"written to {folder}/soak.json, soak.md and soak.png")
    return soaked.passed


@dataclass(frozen=True)
class _Observed:
    """What there is to judge."""

    before: Sample
    samples: list[Sample]
    after: Sample
    """When all clients had gone."""
    played: list[Played]
    tally: Tally
    books: list[Check]
    page: Page

    def checks(self, settings: Settings) -> Iterator[Check]:
        yield from books.client_checks(self.tally)
        for tolerance, field, scale in settings.tolerances():
            points = [(sample.at_s, getattr(sample, field) * scale) for sample in self.samples]
            yield judge(tolerance, points, settings.seconds)
        for level in _LEVELS:
            value = getattr(self.after, level)
            yield Check(value == 0, f"{level.replace('_', ' ')} after the end: {value:.0f}")
        text = f"descriptors after the end: {self.after.descriptors}, {self.before.descriptors} at the start"
        yield Check(self.after.descriptors <= self.before.descriptors, text)
        yield from self.books

    def notes(self) -> Iterator[str]:
        if not self.page.has("convoy_ledger_received_total"):
            yield books.NO_LEDGER
        late = sorted(second for played in self.played for second in played.late_s)
        shares = ", ".join(f"{played.cpu_share:.0%}" for played in self.played)
        late_ms = late[len(late) * 99 // 100] * 1e3
        yield f"clients used {shares} of a core, and began what was due {late_ms:.1f} ms late at the 99th percentile"
        if max(played.cpu_share for played in self.played) > _BUSY_SHARE:
            yield "clients were short of CPU: take a lower --rate, or more --processes"
        yield f"the server's event-loop lag, p99: at most {lag_p99_us(self.page) / 1e3:g} ms"
        rss = max(sample.rss_bytes for sample in self.samples) / 2**20
        rest = self.after.rss_bytes / 2**20
        yield f"RSS at most {rss:.1f} MiB, {rest:.1f} MiB after the end; {len(self.samples)} samples"


def _observe(server: Running, settings: Settings, repository: Path, loaded: list[str]) -> _Observed:
    before = take_sample(server, 0.0)
    samples, played = _play(server, settings, repository)
    after = _settled(server, before)
    tally = Tally()
    for part in played:
        tally.add(part.tally)
    page = read_page(server.ports["metrics"])
    with Target(server.address) as target:
        statistics = {model: target.counts(model) for model in loaded}
    checks = [
        *books.model_checks(tally, statistics, page),
        *books.failure_checks(tally, page),
        *books.ledger_checks(tally, page),
    ]
    return _Observed(before, samples, after, played, tally, checks, page)


def _play(server: Running, settings: Settings, repository: Path) -> tuple[list[Sample], list[Played]]:
    """Clients in processes of their own, so that this one has nothing to do but to look."""
    context = multiprocessing.get_context("spawn")
    clients = []
    for number in range(settings.processes):
        mine, its = context.Pipe()
        part = Part(
            number, settings.processes, settings.seed, settings.seconds, settings.rate, settings.in_flight,
            server.ports, repository,
        )  # fmt: skip
        process = context.Process(target=play_part, args=(part, its), daemon=True)
        process.start()
        its.close()
        clients.append(mine)
    for client in clients:
        _received(client)
    for client in clients:
        client.send(None)
    began = time.monotonic()
    interval = min(_SLOWEST_SAMPLING_S, settings.seconds / _SAMPLES)
    samples: list[Sample] = []
    played: list[Played] = []
    waiting: list[Any] = list(clients)
    while waiting:
        due = began + (len(samples) + 1) * interval
        for ready in multiprocessing.connection.wait(waiting, max(0.0, due - time.monotonic())):
            played.append(_received(ready))
            waiting.remove(ready)
        now = time.monotonic() - began
        if now > settings.seconds + _OVER_SECONDS:
            raise LoadTestError(f"clients still run {_OVER_SECONDS:.0f} s after their time")
        samples.append(take_sample(server, now))
    return samples, played


def _received(client: Any) -> Any:
    try:
        return client.recv()
    except EOFError:
        raise LoadTestError("a process of clients died; what it said is above") from None


def _settled(server: Running, before: Sample) -> Sample:
    """The server as soon as it is as it was before, or when it had its time."""
    give_up = time.monotonic() + _SETTLE_SECONDS
    while True:
        sample = take_sample(server, 0.0)
        is_idle = all(getattr(sample, level) == 0 for level in _LEVELS)
        if (is_idle and sample.descriptors <= before.descriptors) or time.monotonic() > give_up:
            return sample
        time.sleep(0.2)


def _log_check(log: Path) -> Check:
    """Errors and tracebacks in the server's log."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if re.search(r"^\S+ \S+ E |Traceback", line)]
    return Check(not lines, f"errors in {log}: {len(lines)}{''.join(f'; {line[:200]}' for line in lines[:3])}")
