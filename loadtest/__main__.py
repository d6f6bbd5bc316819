"""`python -m loadtest`: the command line. Exit code 0: limits kept, 1: a limit broken, 2: not carried out."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from loadtest.bench.servers import Plan
from loadtest.bench.workloads import WORKLOADS, bench
from loadtest.errors import LoadTestError
from loadtest.flag_values import count
from loadtest.mlperf import command as scenarios
from loadtest.side_by_side import command as beside_peers
from loadtest.simulation.command import add_command, simulate
from loadtest.soak import command as soaking
from loadtest.swarm.command import add_run_command, run_load
from loadtest.tune import command as tuning

_ROUNDS = 5


def main() -> int:
    """The command line. Returns the exit code."""
    arguments = _parser().parse_args()
    # Whoever stops us stops the servers we started: SystemExit unwinds through the blocks that own them.
    for stop in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, lambda number, _: sys.exit(128 + number))
    try:
        if arguments.command == "bench":
            beside_peers.refuse_flags_of_the_other(arguments)
        if arguments.command == "bench" and not arguments.workload:
            beside_peers.run_side_by_side(arguments)
            return 0
        if arguments.command == "bench-check":
            return 0 if beside_peers.run_check(arguments) else 1
        if arguments.command == "bench":
            bench(
                Plan(
                    model=arguments.model,
                    model_repository=arguments.model_repository,
                    out=arguments.out or Path("runs/bench"),
                    rounds=arguments.rounds or _ROUNDS,
                    requests=arguments.requests,
                    connections=arguments.connections,
                    streams=arguments.streams,
                    idle_connections=arguments.idle_connections,
                ),
                arguments.workload,
            )
            return 0
        if arguments.command == "mlperf":
            return 0 if scenarios.mlperf(arguments) else 1
        if arguments.command == "simulate":
            simulate(arguments)
            return 0
        if arguments.command == "soak":
            return 0 if soaking.run_soak(arguments) else 1
        if arguments.command == "tune":
            return 0 if tuning.tune(arguments) else 1
        passed = run_load(arguments)
    except LoadTestError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0 if passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest", description="Load tests and benchmarks of a model server."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--model-repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="what a server that is started here serves (%(default)s)",
    )
    common.add_argument("--out", type=Path, metavar="DIR", help="where reports go (a folder in runs/)")

    one_model = argparse.ArgumentParser(add_help=False)
    one_model.add_argument("--model", default="lenet5", help="the model that is asked (%(default)s)")

    add_run_command(commands, common)

    side_by_side = commands.add_parser(
        "bench",
        parents=[one_model, common],
        help="servers side by side: ratios, tables; without a WORKLOAD: all peers, and the report",
    )
    side_by_side.add_argument(
        "workload",
        type=_workload,
        nargs="*",
        metavar="WORKLOAD",
        help=f"of {', '.join(WORKLOADS)} (default: our server beside its peers)",
    )
    side_by_side.add_argument(
        "--rounds", type=count, help=f"servers take turns in each ({_ROUNDS}; beside peers: 3, --quick: 1)"
    )
    own = "(default: each workload's own)"
    side_by_side.add_argument("--requests", type=count, help=f"in each round, per server; soak: in all {own}")
    side_by_side.add_argument("--connections", type=count, help=f"of h2load {own}")
    side_by_side.add_argument("--streams", type=count, help=f"in flight per connection of h2load {own}")
    side_by_side.add_argument("--idle-connections", type=count, default=10_000, help="idle: how many (%(default)s)")

    beside_peers.add_flags(side_by_side)

    beside_peers.add_check(commands)
    scenarios.add_command(commands, [one_model, common])
    add_command(commands)
    soaking.add_command(commands, common)
    tuning.add_command(commands)
    return parser


def _workload(text: str) -> str:
    if text not in WORKLOADS:
        raise argparse.ArgumentTypeError(f"'{text}' is not one of {', '.join(WORKLOADS)}")
    return text


if __name__ == "__main__":
    sys.exit(main())
