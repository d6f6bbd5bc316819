"""The whole benchmark: who takes part, the turns, and the report."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from loadtest.bench.workloads import machine
from loadtest.errors import LoadTestError
from loadtest.h2load import H2load
from loadtest.peers.base import Peer, Tensor
from loadtest.peers.catalogue import PEERS
from loadtest.peers.environments import interpreter, versions
from loadtest.side_by_side.external import External, take_external_turn
from loadtest.side_by_side.processes import adopt_orphans
from loadtest.side_by_side.records import Record, Records
from loadtest.side_by_side.report import write_report
from loadtest.side_by_side.subjects import SUBJECTS, Workload, rows, workloads
from loadtest.side_by_side.summary import Run, Server
from loadtest.side_by_side.turn import Tools, take_turn

_FAILURES_THAT_ARE_ENOUGH = 2


@dataclass(frozen=True)
class Options:
    """What `bench` is asked to do."""

    out: Path
    """For results, logs and generated models."""
    report: Path
    """The folder of benchmarks.md; its pictures go to `images` there."""
    model_repository: Path
    rounds: int
    speed: float
    """Volleys are so many times shorter."""
    only: tuple[str, ...]
    """Names of servers; empty: all."""
    subjects: tuple[str, ...]
    """Names of subjects; empty: all."""
    external: External | None
    resume: bool
    report_only: bool


Turn = Callable[[Workload, int], Record]
Rows = tuple[list[Tensor], list[Tensor]]
"""Requests, and what is expected of each."""


def side_by_side(options: Options) -> None:
    """Carries it out; what a server is to blame for is in the report, not an error."""
    if not options.report_only:
        _measure(options)
    try:
        run = Run.from_json(json.loads((options.out / "run.json").read_text()))
    except FileNotFoundError as error:
        raise LoadTestError(f"{options.out} has no results: run the benchmark first") from error
    print(f"written to {write_report(run, list(Records(options.out / 'turns')), options.report)}")


def _measure(options: Options) -> None:
    records = Records(options.out / "turns")
    if not options.resume:
        shutil.rmtree(records.folder, ignore_errors=True)
    options.out.mkdir(parents=True, exist_ok=True)
    adopt_orphans()
    tools = Tools(H2load.find(), options.out, options.speed)
    chosen = workloads(options.subjects or SUBJECTS, options.out, options.model_repository)
    data = {name: rows(workload.subject) for name, workload in chosen.items()}
    servers, turns = participants(
        [peer for peer in PEERS if not options.only or peer.name in options.only], data, tools
    )
    if options.external is not None:
        servers.append(_yours(options.external))
        turns[options.external.name] = partial(_external_turn, options.external, data, tools)
    began = time.monotonic()
    run = Run(
        machine={**machine(), "load_average_after": os.getloadavg()[0]},
        servers=tuple(servers),
        subjects={name: workload.subject.title for name, workload in chosen.items()},
        rounds=options.rounds,
        volley_seconds={name: workload.seconds / options.speed for name, workload in chosen.items()},
        minutes=0.0,
    )
    _write(run, options.out)
    take_all(turns, chosen, options.rounds, records)
    minutes = (time.monotonic() - began) / 60
    _write(
        replace(run, machine={**run.machine, "load_average_after": os.getloadavg()[0]}, minutes=minutes), options.out
    )


def _write(run: Run, out: Path) -> None:
    """Before the first turn already: the report of a run that was broken off can be drawn too."""
    (out / "run.json").write_text(json.dumps(run.as_json(), indent=1) + "\n")


def participants(peers: Sequence[Peer], data: Mapping[str, Rows], tools: Tools) -> tuple[list[Server], dict[str, Turn]]:
    """All of `peers` for the report, and how to take a turn with those that can be run."""
    servers: list[Server] = []
    turns: dict[str, Turn] = {}
    for peer in peers:
        try:
            python = interpreter(peer)
            found, absent = versions(peer, python), None
        except LoadTestError as error:
            found, absent = {}, str(error)
            print(f"bench: {peer.title} cannot run: {error}", flush=True)
        servers.append(
            Server(
                name=peer.name,
                title=peer.title,
                protocol=peer.protocol,
                configuration=peer.configuration,
                versions=found,
                absent=absent,
                without_cpu=None,
                ours=peer.ours,
                runs_model=peer.runs_model,
            )
        )
        if absent is None:
            turns[peer.name] = partial(_turn, peer, python, data, tools)
    return servers, turns


def _yours(external: External) -> Server:
    return Server(
        name=external.name,
        title=external.title,
        protocol="gRPC",
        configuration="as it is",
        versions={},
        absent=None,
        without_cpu=external.without_cpu,
        ours=False,
        runs_model=True,
    )


def take_all(turns: Mapping[str, Turn], chosen: Mapping[str, Workload], rounds: int, records: Records) -> None:
    """Round after round, subject after subject, all servers in turn; what there is already is not measured again.

    Every round begins with another server, and one that has failed twice with a subject is not started with it again.
    """
    failures: dict[tuple[str, str], int] = {}
    for number in range(1, rounds + 1):
        for subject, workload in chosen.items():
            names = list(turns)
            first = (number - 1) % len(names)
            for name in names[first:] + names[:first]:
                if records.have(name, subject, number) or failures.get((name, subject), 0) >= _FAILURES_THAT_ARE_ENOUGH:
                    continue
                began = time.monotonic()
                record = turns[name](workload, number)
                records.write(record)
                if record.failure:
                    failures[name, subject] = failures.get((name, subject), 0) + 1
                print(
                    f"bench: round {number} of {rounds}, {_line(record)}, {time.monotonic() - began:.0f} s", flush=True
                )


def _turn(peer: Peer, python: Path, data: Mapping[str, Rows], tools: Tools, workload: Workload, number: int) -> Record:
    return take_turn(peer, python, workload, *data[workload.subject.name], number, tools)


def _external_turn(
    external: External, data: Mapping[str, Rows], tools: Tools, workload: Workload, number: int
) -> Record:
    return take_external_turn(external, workload, *data[workload.subject.name], number, tools)


def _line(record: Record) -> str:
    if record.failure:
        return f"{record.subject}, {record.server}: {record.failure}"
    loads = ", ".join(f"{load['requests_per_second']:,.0f}/s ×{name}" for name, load in record.loads.items())
    return f"{record.subject}, {record.server}: {loads}"
