"""`bench-check`: is our server, beside the floors in the same run, worse than loadtest/baseline.json says?"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from loadtest.bench.workloads import machine
from loadtest.errors import LoadTestError
from loadtest.h2load import H2load
from loadtest.peers.catalogue import FLOORS, REFERENCE
from loadtest.peers.ours import GRPCIO
from loadtest.side_by_side.processes import adopt_orphans
from loadtest.side_by_side.ratios import Ratio, as_json, compare, from_json, ratios_of
from loadtest.side_by_side.records import Records
from loadtest.side_by_side.run import participants, take_all
from loadtest.side_by_side.subjects import LENET5, rows, workloads
from loadtest.side_by_side.turn import Tools

BASELINE = Path(__file__).parents[1] / "baseline.json"
_IN_FLIGHT = (1, 64)
_OURS = (REFERENCE, GRPCIO)


def check(*, baseline: Path, update: bool, rounds: int, model_repository: Path, out: Path) -> bool:
    """Measures, and prints a sentence per ratio. Returns whether none is worse than the baseline's, beyond noise.

    With `update` the baseline is written instead. LoadTestError where it is missing, or no ratio could be measured.
    """
    before = {} if update else _read(baseline)
    shutil.rmtree(out / "turns", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    adopt_orphans()
    workload = replace(workloads([LENET5], out, model_repository)[LENET5], in_flight=_IN_FLIGHT, objective=None)
    data = {LENET5: rows(workload.subject)}
    records = Records(out / "turns")
    _, turns = participants([*_OURS, *FLOORS], data, Tools(H2load.find(), out, speed=1.0))
    take_all(turns, {LENET5: workload}, rounds, records)
    now = ratios_of(records, [peer.name for peer in _OURS], [peer.name for peer in FLOORS])
    if not now:
        raise LoadTestError(f"no ratio could be measured: see the failures above, and the logs in {out}")
    if update:
        of = machine()
        baseline.write_text(
            json.dumps({"machine": of, "rounds": rounds, "ratios": as_json(now)}, indent=1, ensure_ascii=False) + "\n"
        )
        print(f"written to {baseline}")
        return True
    moves = compare(before, now)
    print("\n".join(move.sentence() for move in moves))
    worse = sum(move.regressed for move in moves)
    print(f"{worse} of {len(moves)} ratios are worse than {baseline.name} says, beyond noise")
    blurred = sum(move.blurred for move in moves)
    if blurred:
        print(f"{blurred} of them are so noisy that a quarter more or less would not show: close other programs")
    return not worse


def _read(baseline: Path) -> dict[str, Ratio]:
    try:
        fields = json.loads(baseline.read_text())
        known = fields["ratios"]
    except FileNotFoundError as error:
        raise LoadTestError(f"there is no {baseline}: write it with --update") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LoadTestError(f"{baseline}: not a baseline: {error!r}") from error
    of = machine()
    for name in ("processor", "cores"):
        if fields.get("machine", {}).get(name) != of[name]:
            print(f"note: the baseline's {name} is {fields.get('machine', {}).get(name)}, here it is {of[name]}")
    return from_json(known)
