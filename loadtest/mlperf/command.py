"""The command line of `python -m loadtest mlperf`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.flag_values import address, count, positive, seed, shape
from loadtest.mlperf.report import Bounds, Report
from loadtest.mlperf.scenarios import (
    DISTRIBUTIONS,
    OFFLINE_SAMPLES,
    Settings,
    multi_stream,
    offline,
    server,
    single_stream,
)
from loadtest.mlperf.search import search, within_capacity
from loadtest.mlperf.subject import PROTOCOLS, Subject, Wanted, subject
from loadtest.mlperf.sweep import write_sweep
from loadtest.payload import parse_shape

SCENARIOS = ("single-stream", "multi-stream", "server", "offline", "sweep")
_DESCRIPTION = """The scenarios of MLPerf Inference on a server over the wire. Exit code 0: the run is valid, 1: not.

single-stream: the next query when the last is answered. multi-stream: the same with eight samples a query. server:
Poisson arrivals at --rate, or a search for the highest rate that is valid. offline: all samples at once. sweep: the
server scenario at one rate after another, with a plot."""
_SWEEP_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of what the offline scenario gets out of the server."""
_LOOKED_AT_BY = {
    "rate": ("server",),
    "rates": ("sweep",),
    "max_late_ms": ("server", "sweep"),
    "in_flight": ("server", "sweep", "offline"),
    "processes": ("server", "sweep", "offline"),
}
"""Flags that not every scenario has a use for."""
_LATE_MS, _LATE_SHARE = 1.0, 0.2
_CAPACITY_SECONDS = 3.0
_CONFIRMATIONS = 4
_CONFIRM_QUERIES, _CONFIRM_SECONDS = 1_500.0, 120.0


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: list[argparse.ArgumentParser]
) -> None:
    """Add `mlperf` to the commands of a parser."""
    parser = commands.add_parser(
        "mlperf",
        parents=parents,
        help="MLPerf scenarios: open loop, valid or not and why",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenario", choices=SCENARIOS, help="see above")
    parser.add_argument(
        "--url", type=address, metavar="HOST:PORT", help="address of a running server (default: start a fresh one)"
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, default="grpc", help="(%(default)s)")
    parser.add_argument(
        "--shape",
        type=shape,
        action="append",
        default=[],
        metavar="NAME:DIM,DIM,...",
        help="whole shape of one input, batch axis included; else each variable dimension is 1; may be repeated",
    )
    parser.add_argument(
        "--rate", type=positive, metavar="N", help="server: requests per second (default: the highest that is valid)"
    )
    parser.add_argument(
        "--rates", type=_rates, metavar="N,N,...", help="sweep: the rates (default: 10 %% to 100 %% of the capacity)"
    )
    parser.add_argument(
        "--seconds",
        type=positive,
        default=10.0,
        help="length of a run; offline: the most it may take (%(default)g)",
    )
    parser.add_argument("--p99-ms", type=positive, default=15.0, help="server: the bound of p99 (%(default)g)")
    parser.add_argument(
        "--max-late-ms",
        type=positive,
        help=f"server: largest p99 of how late requests are sent ({_LATE_MS:g}, or a fifth of --p99-ms if more)",
    )
    parser.add_argument("--distribution", choices=DISTRIBUTIONS, default=DISTRIBUTIONS[0], help="(%(default)s)")
    parser.add_argument("--seed", type=seed, default=1, help="of the arrivals (%(default)s)")
    parser.add_argument("--tries", type=count, default=8, help="server without --rate: runs to search (%(default)s)")
    parser.add_argument("--samples", type=count, default=OFFLINE_SAMPLES, help="offline: how many (%(default)s)")
    parser.add_argument("--processes", type=count, help="of the generator (default: as the rate demands)")
    parser.add_argument("--connections", type=count, help="of each process (default: 4; HTTP, a request each: 64)")
    parser.add_argument("--in-flight", type=count, help="most requests under way (default: what 256 MiB hold)")
    parser.add_argument("--json", action="store_true", help="the last line is the report as JSON")


def mlperf(arguments: argparse.Namespace) -> bool:
    """Carries out what `add_command` has parsed, and prints it. Returns whether the run is valid."""
    for flag, scenarios in _LOOKED_AT_BY.items():
        if getattr(arguments, flag) is not None and arguments.scenario not in scenarios:
            name, readers = flag.replace("_", "-"), " and ".join(scenarios)
            print(f"mlperf: {arguments.scenario} does not look at --{name}, which is for {readers}", file=sys.stderr)
    out: Path = arguments.out or Path("runs/mlperf")
    out.mkdir(parents=True, exist_ok=True)
    wanted = Wanted(
        model=arguments.model,
        protocol=arguments.protocol,
        shapes=dict(map(parse_shape, arguments.shape)),
        url=arguments.url,
        model_repository=arguments.model_repository,
        out=out,
        connections=arguments.connections,
    )
    late_ms = arguments.max_late_ms or max(_LATE_MS, _LATE_SHARE * arguments.p99_ms)
    settings = Settings(
        seconds=arguments.seconds,
        bounds=Bounds(arguments.p99_ms, late_ms),
        distribution=arguments.distribution,
        seed=arguments.seed,
        processes=arguments.processes,
        in_flight=arguments.in_flight,
        samples=arguments.samples,
    )
    with subject(wanted) as asked:
        if arguments.scenario == "sweep":
            return _sweep(asked, settings, arguments.rates, out, as_json=arguments.json)
        if arguments.scenario == "server" and arguments.rate is None:
            return _search(asked, settings, arguments.tries, as_json=arguments.json)
        report = _run(arguments.scenario, asked, settings, arguments.rate)
    _print(report, as_json=arguments.json)
    return report.valid


def _run(scenario: str, asked: Subject, settings: Settings, rate: float) -> Report:
    match scenario:
        case "single-stream":
            return single_stream(asked, settings)
        case "multi-stream":
            return multi_stream(asked, settings)
        case "offline":
            return offline(asked, settings)
    return server(asked, settings, rate)


def _print(report: Report, *, as_json: bool, **more: object) -> None:
    print(f"mlperf: {report.scenario}: {report.line()}", flush=True)
    if report.estimate_ms is not None:
        print(f"mlperf: early-stopping estimate of the percentile: {report.estimate_ms:.3f} ms", flush=True)
    if as_json:
        print(json.dumps({**report.as_json(), **more}), flush=True)


def _capacity(asked: Subject, settings: Settings) -> float:
    """Requests per second that the server gets done. A LoadTestError where it answers none."""

    def attempt(in_flight: int) -> Report:
        report = offline(asked, replace(settings, seconds=_CAPACITY_SECONDS, in_flight=in_flight))
        what = f"up to {in_flight:,} in flight: {report.achieved:,.1f}/s, {report.refused:,} refused"
        print(f"mlperf: capacity, {what}", flush=True)
        return report

    report = within_capacity(attempt, min(settings.in_flight or asked.most_in_flight, settings.samples))
    if not report.achieved:
        raise LoadTestError(f"there is no rate to begin with: {report.reason}. Name one, with --rate or --rates")
    return report.achieved


def _search(asked: Subject, settings: Settings, tries: int, *, as_json: bool) -> bool:
    def attempt(rate: float) -> Report:
        report = server(asked, settings, rate)
        print(f"mlperf: try: {report.line()}", flush=True)
        return report

    def confirm(rate: float) -> Report:
        seconds = max(2 * settings.seconds, min(_CONFIRM_SECONDS, _CONFIRM_QUERIES / rate))
        report = server(asked, replace(settings, seconds=seconds, seed=settings.seed + 1), rate)
        print(f"mlperf: confirmation, {seconds:.0f} s: {report.line()}", flush=True)
        return report

    found = search(attempt, confirm, _capacity(asked, settings), tries, _CONFIRMATIONS)
    if found.generator_limited:
        print("mlperf: a higher rate failed for want of generator: the server may do better", flush=True)
    _print(found.final, as_json=as_json, higher_rates_generator_limited=found.generator_limited)
    return found.final.valid


def _sweep(asked: Subject, settings: Settings, rates: list[float] | None, out: Path, *, as_json: bool) -> bool:
    if rates is None:
        capacity = _capacity(asked, settings)
        rates = [share * capacity for share in _SWEEP_SHARES]
    reports = []
    for rate in rates:
        reports.append(server(asked, settings, rate))
        print(f"mlperf: sweep: {reports[-1].line()}", flush=True)
    title = f"{asked.model}: {settings.distribution} arrivals, {settings.seconds:g} s each"
    for file in write_sweep(reports, settings.bounds, title, out):
        print(f"written to {file}")
    valid = [report for report in reports if report.valid]
    _print(valid[-1] if valid else reports[0], as_json=as_json)
    return bool(valid)


def _rates(text: str) -> list[float]:
    return sorted(positive(part) for part in text.split(","))
