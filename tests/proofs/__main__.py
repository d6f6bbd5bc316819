"""The small systems in their large sizes: minutes each. `make proofs`."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from tests.proofs.exploring import Counterexample, explore
from tests.proofs.systems import EXPLORATIONS

MOST_STATES = 5_000_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.proofs", description=__doc__)
    parser.add_argument("name", nargs="*", metavar="NAME", help=f"of {', '.join(EXPLORATIONS)} (default: all)")
    names = parser.parse_args().name or [*EXPLORATIONS]
    if unknown := [name for name in names if name not in EXPLORATIONS]:
        parser.error(f"there is no system {unknown[0]!r}; there are {', '.join(EXPLORATIONS)}")
    logging.disable(logging.CRITICAL)  # loads fail by the thousand
    broken = False
    for name in names:
        exploration = EXPLORATIONS[name]
        started = time.monotonic()
        try:
            seen = explore(exploration.memory(*exploration.large), MOST_STATES)
        except Counterexample as found:
            broken = True
            print(f"{name} {exploration.large}: BROKEN\n{found}", flush=True)
        else:
            print(
                f"{name} {exploration.large}: {seen.states:,} states, {seen.moves:,} moves between them, the farthest "
                f"{seen.longest} from the first; {time.monotonic() - started:.0f} s",
                flush=True,
            )
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
