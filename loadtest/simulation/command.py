"""The command line of `python -m loadtest simulate`."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from loadtest.flag_values import count, positive, seed
from loadtest.simulation.arrivals import ARRIVALS
from loadtest.simulation.costs import MeasuredCosts, read_costs
from loadtest.simulation.fleet import Balancer
from loadtest.simulation.points import OVERLAP_SECONDS, Scenario, run_points
from loadtest.simulation.policies import POLICIES, swept_policies
from loadtest.simulation.report import headline, notes, table, write_report

DEFAULT_LOADS = (0.5, 0.8, 1.0, 1.5, 2.0)
DEFAULT_SECONDS = 60.0
DEFAULT_OBJECTIVE = 5.0
"""Times the median of a single row, where the cost table names no objective."""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `simulate` to the commands of a parser."""
    parser = commands.add_parser(
        "simulate",
        help="batching policies in virtual time, from a cost table",
        description="Runs the server's own batching policies in virtual time: goodput, latency, batch sizes, refusals.",
    )
    parser.add_argument(
        "--costs",
        required=True,
        metavar="FILE|URL",
        help="cost table: a JSON file, or http://HOST:8000/v2/models/NAME/cost of a live server",
    )
    parser.add_argument("--policy", action="append", default=[], metavar="SPEC", help=f"of {POLICIES}; may be repeated")
    parser.add_argument("--sweep", action="store_true", help="add fixed delays and timeouts from 0 to the objective")
    parser.add_argument("--arrivals", default="poisson", metavar="SPEC", help=f"{ARRIVALS} (%(default)s)")
    parser.add_argument("--rate", type=positive, action="append", metavar="N", help="mean requests/s; may be repeated")
    parser.add_argument(
        "--load",
        type=positive,
        action="append",
        metavar="SHARE",
        help="rates as shares of the capacity, the most rows/s that the table promises; may be repeated "
        f"(without --rate and but for a trace: {' '.join(map(str, DEFAULT_LOADS))})",
    )
    parser.add_argument(
        "--seconds", type=positive, help=f"of virtual time ({DEFAULT_SECONDS:g}; a trace: its own length)"
    )
    parser.add_argument(
        "--objective-ms",
        type=positive,
        metavar="MS",
        help="an answer in this time is good (default: the table's, else 5 × its p50 of 1 row)",
    )
    parser.add_argument("--lanes", type=count, help="batches at a time, of a server (default: the table's instances)")
    parser.add_argument("--servers", type=count, default=1, help="each with a queue of its own (%(default)s)")
    parser.add_argument(
        "--balancer",
        type=Balancer,
        choices=list(Balancer),
        default=Balancer.ROUND_ROBIN,
        help="which server a request goes to (%(default)s)",
    )
    parser.add_argument("--rows", type=count, default=1, help="of every request, unless a trace says (%(default)s)")
    parser.add_argument("--seed", type=seed, default=1, help="equal seeds give equal results (%(default)s)")
    parser.add_argument("--processes", type=count, default=1, help="for points and stretches (%(default)s)")
    parser.add_argument(
        "--stretches",
        type=count,
        default=1,
        help="cut the time into so many, for more processes; each begins empty, before it counts (%(default)s)",
    )
    parser.add_argument(
        "--overlap",
        type=positive,
        default=OVERLAP_SECONDS,
        metavar="SECONDS",
        help="simulated before each stretch and not counted (%(default)s)",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/simulation"), metavar="DIR", help="(%(default)s)")


def simulate(arguments: argparse.Namespace) -> None:
    """Carry it out: a table on the terminal, a report in a folder. Raises `LoadTestError`."""
    costs = read_costs(arguments.costs)
    scenario = Scenario(
        costs,
        arguments.arrivals,
        objective=_objective(costs, arguments.objective_ms),
        seconds=arguments.seconds,
        lanes=arguments.lanes or costs.instances,
        servers=arguments.servers,
        balancer=arguments.balancer,
        rows=arguments.rows,
        seed=arguments.seed,
        stretches=arguments.stretches,
        overlap=arguments.overlap,
    )
    if scenario.seconds is None and not scenario.recorded:
        scenario = replace(scenario, seconds=DEFAULT_SECONDS)
    rates: list[float | None] = [*(arguments.rate or ())]
    rates += [load * scenario.capacity for load in arguments.load or ()]
    if not rates:
        rates = [None] if scenario.recorded else [load * scenario.capacity for load in DEFAULT_LOADS]
    policies = [*arguments.policy, *(swept_policies(scenario.objective) if arguments.sweep else ())]
    print(headline(scenario), flush=True)
    began = time.monotonic()
    points = list(run_points(scenario, list(dict.fromkeys(policies or ["window:0"])), rates, arguments.processes))
    wall_seconds = time.monotonic() - began
    print(table(points, scenario))
    print(notes(points, wall_seconds, arguments.processes, scenario))
    for path in write_report(points, scenario, arguments.out):
        print(path)


def _objective(costs: MeasuredCosts, asked_ms: float | None) -> float:
    if asked_ms is not None:
        return asked_ms / 1e3
    return costs.objective_seconds or DEFAULT_OBJECTIVE * costs.buckets[0].typical_seconds
