"""The command line of `python -m loadtest tune`."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.figures import finite
from loadtest.flag_values import address, count, positive, shape, share
from loadtest.payload import parse_shape
from loadtest.tune.candidates import Axis, Candidate, apply
from loadtest.tune.config_file import write_config
from loadtest.tune.hosts import Host, OwnServers, RemoteServer
from loadtest.tune.judging import Aim, Failure, Goal, Measurement
from loadtest.tune.measuring import LoadSpec, Measurer
from loadtest.tune.report import as_json, describe, notes, round_line
from loadtest.tune.search import Budget, Result, Search
from loadtest.tune.space import Space

DEFAULT_IN_FLIGHT = 16
AS_IT_IS = frozenset(Axis)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `tune` to the commands of a parser."""
    parser = commands.add_parser(
        "tune",
        help="which configuration of a model serves a load best, by measuring",
        description="Tries instances, threads, batch sizes, delays and slo_ms of a model under a load, and chooses.",
    )
    parser.add_argument("model", help="a folder of the model repository")
    parser.add_argument(
        "--model-repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="read, and only written with --write (%(default)s)",
    )
    parser.add_argument(
        "--url",
        type=address,
        metavar="HOST:PORT",
        help="gRPC address of a running server, measured as it is (default: own servers)",
    )
    parser.add_argument(
        "--reload",
        action="store_true",
        help="with --url: have that server load the model with every candidate, and as it was at the end",
    )
    parser.add_argument(
        "--objective", type=Goal, choices=list(Goal), default=Goal.THROUGHPUT, help="what is to be best (%(default)s)"
    )
    parser.add_argument("--p99-ms", type=positive, metavar="MS", help="a candidate whose p99 is longer is out")
    parser.add_argument(
        "--max-error-rate", type=share, default=0.0, metavar="SHARE", help="of requests refused, 0 to 1 (%(default)s)"
    )
    load = parser.add_mutually_exclusive_group()
    load.add_argument(
        "--in-flight", type=count, metavar="N", help=f"closed loop: requests on their way ({DEFAULT_IN_FLIGHT})"
    )
    load.add_argument("--rate", type=positive, metavar="N", help="open loop: Poisson arrivals per second")
    parser.add_argument("--seconds", type=positive, default=2.0, help="of one measurement (%(default)s)")
    parser.add_argument(
        "--shape",
        type=shape,
        action="append",
        default=[],
        metavar="NAME:DIM,DIM,...",
        help="whole shape of one input, batch axis included; else each variable dimension is 1; may be repeated",
    )
    parser.add_argument(
        "--keep",
        type=Axis,
        choices=list(Axis),
        action="append",
        default=[],
        help="what must stay as it is; may be repeated",
    )
    parser.add_argument("--cores", type=count, metavar="N", help="that the server may use (default: those we may use)")
    parser.add_argument(
        "--rounds",
        type=count,
        default=Budget.rounds,
        metavar="N",
        help="of the final, and of the present configuration first (%(default)s)",
    )
    parser.add_argument("--max-measurements", type=count, default=60, metavar="N", help="in all (%(default)s)")
    parser.add_argument("--max-minutes", type=positive, default=10.0, metavar="N", help="in all, about (%(default)s)")
    parser.add_argument("--write", action="store_true", help="write the choice into the model's config.pbtxt")
    parser.add_argument("--json", action="store_true", help="the last line is the report as one JSON object")
    parser.add_argument("--out", type=Path, default=Path("runs/tune"), metavar="DIR", help="for reports (%(default)s)")


def tune(arguments: argparse.Namespace) -> bool:
    """Carry it out. Returns whether the choice keeps the limits. Raises `LoadTestError`."""
    if arguments.url is not None and arguments.write:
        raise LoadTestError("--write needs --model-repository: what a server at --url was loaded from is not known")
    if arguments.url is not None and arguments.objective is Goal.CPU:
        raise LoadTestError("--objective cpu needs a server of our own: the processor time of one at --url is not seen")
    if arguments.url is None and arguments.reload:
        raise LoadTestError("--reload is about the server at --url; without it, each candidate has a server of its own")
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    with _host(arguments) as host:
        if not host.can_change:
            print(
                f"tune: the server at {arguments.url} is measured as it is. Instances, threads, batch sizes, delays "
                "and slo_ms cannot be tried there without --reload"
            )
        result, aim = _search(arguments, host)
    print(describe(result, aim))
    for note in notes(result, host.workload.rows):
        print(f"note: {note}")
    report = finite(as_json(result, aim))
    (out / "tune.json").write_text(json.dumps(report, indent=2) + "\n")
    (out / "tune.txt").write_text(describe(result, aim) + "\n")
    print(f"written to {out / 'tune.txt'} and {out / 'tune.json'}")
    if arguments.write and isinstance(host, OwnServers):
        _write(arguments.model_repository / arguments.model, host, result)
    if arguments.json:
        print(json.dumps(report))
    return result.choice.keeps_limits


def _host(arguments: argparse.Namespace) -> OwnServers | RemoteServer:
    shapes = dict(map(parse_shape, arguments.shape))
    if arguments.url is not None:
        return RemoteServer(arguments.url, arguments.model, shapes, can_change=arguments.reload)
    return OwnServers(arguments.model_repository, arguments.model, shapes, arguments.out)


def _search(arguments: argparse.Namespace, host: Host) -> tuple[Result, Aim]:
    in_flight = None if arguments.rate is not None else arguments.in_flight or DEFAULT_IN_FLIGHT
    load = LoadSpec(in_flight, arguments.rate, arguments.seconds)
    measurer = Measurer(host, load, arguments.p99_ms, arguments.out)
    rows = host.workload.rows
    cores = arguments.cores or len(os.sched_getaffinity(0))
    fixed = frozenset(arguments.keep) if host.can_change else AS_IT_IS
    search = Search(
        present=host.present,
        space=Space(cores, rows, in_flight, arguments.p99_ms, fixed),
        aim=Aim(arguments.objective, arguments.p99_ms, arguments.max_error_rate),
        budget=Budget(arguments.max_measurements, arguments.max_minutes * 60, arguments.rounds),
        measure=_Spoken(measurer),
        clock=time.monotonic,
    )
    what = f"{in_flight} requests in flight" if in_flight is not None else f"{arguments.rate:g} requests/s"
    print(f"tune: {what} of {rows} rows, {cores} cores; now {host.present} (instances × threads)", flush=True)
    return search.run(), search.aim


class _Spoken:
    """Measures, and says so."""

    def __init__(self, measurer: Measurer) -> None:
        self._measurer = measurer
        self._count = 0

    def __call__(self, candidate: Candidate) -> Measurement | Failure:
        seen = self._measurer.measure(candidate)
        self._count += 1
        said = f"{candidate}: failed: {seen.reason}" if isinstance(seen, Failure) else round_line(candidate, seen)
        print(f"tune: {self._count:3} {said}", flush=True)
        return seen


def _write(model_folder: Path, host: OwnServers, result: Result) -> None:
    chosen = result.choice.trial.candidate
    if not result.choice.keeps_limits:
        print("nothing was written: the choice does not keep the limits")
        return
    if chosen == result.present:
        print("nothing was written: the present configuration stays")
        return
    written = write_config(model_folder, host.text, apply(host.config, result.present, chosen))
    print(f"{written.path} now says so" + (f"; what it was is in {written.backup}" if written.backup else ""))
    for comment in written.lost_comments:
        print(f"note: a comment is gone with the field that it stood in: {comment}")
