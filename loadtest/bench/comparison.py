"""Taking turns, and what comes of it: medians, spread, ratios, and a table of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loadtest.figures import Figures, medians, ratios, spread

Pair = tuple[str, str]
"""Two names whose ratio is of interest: the first divided by the second."""


@dataclass(frozen=True)
class Comparison:
    """The rounds of all that took part, by name."""

    rounds: Mapping[str, list[Figures]]
    pairs: tuple[Pair, ...]

    @property
    def medians(self) -> dict[str, Figures]:
        return {name: medians(rounds) for name, rounds in self.rounds.items()}

    @property
    def ratios(self) -> dict[str, Figures]:
        """Of the medians, by "one / other"."""
        of = self.medians
        return {f"{one} / {other}": ratios(of[one], of[other]) for one, other in self.pairs}

    def as_json(self) -> dict[str, object]:
        return {
            "medians": self.medians,
            "spread": {name: spread(rounds) for name, rounds in self.rounds.items()},
            "ratios": self.ratios,
            "rounds": dict(self.rounds),
        }

    def table(self) -> str:
        """A line per figure: each one's median with its spread, then the ratios."""
        spreads = {name: spread(rounds) for name, rounds in self.rounds.items()}
        keys = dict.fromkeys(key for figures in self.medians.values() for key in figures)
        lines = [["", *self.rounds, *self.ratios]]
        for key in keys:
            line = [key.replace("_per_", "/").replace("_", " ")]
            for name, figures in self.medians.items():
                line.append(_with_spread(figures[key], *spreads[name][key]) if key in figures else "")
            line += [_number(of[key]) if key in of else "" for of in self.ratios.values()]
            lines.append(line)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if index else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )


def take_turns(turns: Mapping[str, Callable[[], Figures]], rounds: int, pairs: tuple[Pair, ...]) -> Comparison:
    """Calls every turn once per round, in order."""
    seen: dict[str, list[Figures]] = {name: [] for name in turns}
    for number in range(1, rounds + 1):
        for name, turn in turns.items():
            seen[name].append(turn())
            print(f"bench: round {number} of {rounds}, {name}: {_first(seen[name][-1])}", flush=True)
    return Comparison(seen, pairs)


def _first(figures: Figures) -> str:
    key, value = next(iter(figures.items()))
    return f"{_number(value)} {key.replace('_', ' ')}"


def _with_spread(middle: float, low: float, high: float) -> str:
    return f"{_number(middle)} ({_number(low)}–{_number(high)})"


def _number(value: float) -> str:
    """Three or more significant digits."""
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f}"
