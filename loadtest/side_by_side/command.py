"""The flags of `python -m loadtest bench` without a workload, and of `bench-check`."""

from __future__ import annotations

import argparse
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.flag_values import count
from loadtest.peers.catalogue import PEERS
from loadtest.side_by_side.external import parse_external
from loadtest.side_by_side.guard import BASELINE, check
from loadtest.side_by_side.run import Options, side_by_side
from loadtest.side_by_side.subjects import LENET5, SUBJECTS

_ROUNDS, _QUICK_ROUNDS = 3, 1
_QUICK_SPEED = 4.0
_DOCS = Path("docs")
_BESIDE_PEERS = ("quick", "report_only", "resume", "only", "subject", "peer", "peer_pid")
_OF_WORKLOADS = ("requests", "connections", "streams")
_NAMES = tuple(peer.name for peer in PEERS)


def add_flags(bench: argparse.ArgumentParser) -> None:
    """Those that only the side-by-side benchmark has."""
    flags = bench.add_argument_group("side by side with peers (without a WORKLOAD)")
    flags.add_argument(
        "--quick", action="store_true", help="one round of short volleys; the report goes to the folder of the results"
    )
    flags.add_argument("--report-only", action="store_true", help="draw the report of the last run again")
    flags.add_argument(
        "--resume", action="store_true", help="keep what the last run has measured, and measure the rest"
    )
    flags.add_argument(
        "--only",
        action="append",
        default=[],
        choices=_NAMES,
        metavar="SERVER",
        help=f"one of {', '.join(_NAMES)}; may be repeated",
    )
    flags.add_argument(
        "--subject",
        action="append",
        default=[],
        choices=SUBJECTS,
        metavar="MODEL",
        help=f"one of {', '.join(SUBJECTS)}; may be repeated",
    )
    flags.add_argument("--peer", metavar="grpc://HOST:PORT", help="a running server of the v2 protocol takes part too")
    flags.add_argument(
        "--peer-pid", type=count, metavar="PID", help="its process, for CPU and memory (default: found by the port)"
    )


def refuse_flags_of_the_other(arguments: argparse.Namespace) -> None:
    """LoadTestError where a flag was given that means nothing with, or without, a workload."""
    others = _BESIDE_PEERS if arguments.workload else _OF_WORKLOADS
    for flag in others:
        if getattr(arguments, flag):
            way = "with a WORKLOAD" if arguments.workload else "without a WORKLOAD"
            raise LoadTestError(f"--{flag.replace('_', '-')} has no meaning {way}")
    if not arguments.workload and arguments.model != LENET5:
        raise LoadTestError("--model has no meaning without a WORKLOAD: --subject picks among the models")
    if arguments.peer_pid and not arguments.peer:
        raise LoadTestError("--peer-pid needs --peer")


def run_side_by_side(arguments: argparse.Namespace) -> None:
    """What `bench` does without a workload."""
    out = arguments.out or Path("runs/peers-quick" if arguments.quick else "runs/peers")
    try:
        external = parse_external(arguments.peer, arguments.peer_pid) if arguments.peer else None
    except ValueError as error:
        raise LoadTestError(f"--peer: {error}") from error
    partial = arguments.quick or arguments.only or arguments.subject
    side_by_side(
        Options(
            out=out,
            report=out if partial else _DOCS,
            model_repository=arguments.model_repository,
            rounds=arguments.rounds or (_QUICK_ROUNDS if arguments.quick else _ROUNDS),
            speed=_QUICK_SPEED if arguments.quick else 1.0,
            only=tuple(arguments.only),
            subjects=tuple(arguments.subject),
            external=external,
            resume=arguments.resume,
            report_only=arguments.report_only,
        )
    )


def add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`bench-check`."""
    parser = commands.add_parser("bench-check", help="our server against the floors, compared with the baseline")
    parser.add_argument("--update", action="store_true", help="write what was measured to the baseline")
    parser.add_argument("--baseline", type=Path, default=BASELINE, metavar="FILE", help="(%(default)s)")
    parser.add_argument("--rounds", type=count, default=5, help="2 or more (%(default)s)")
    parser.add_argument(
        "--model-repository", type=Path, default=Path("model_repository"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench-check"), metavar="DIR", help="for logs (%(default)s)"
    )


def run_check(arguments: argparse.Namespace) -> bool:
    """Whether no ratio is worse than the baseline's, beyond noise."""
    if arguments.rounds < 2:
        raise LoadTestError("--rounds: noise needs two rounds at least")
    return check(
        baseline=arguments.baseline,
        update=arguments.update,
        rounds=arguments.rounds,
        model_repository=arguments.model_repository,
        out=arguments.out,
    )
