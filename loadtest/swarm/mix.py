"""Which models are asked, and how often. Pure."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from loadtest.payload import Workload


@dataclass(frozen=True)
class Share:
    """A model, and its part of the requests: its weight ÷ the sum of all weights."""

    model: str
    weight: float


def parse_models(text: str) -> tuple[Share, ...]:
    """ "lenet5=3,letters26" → 3 to 1. A ValueError says what is wrong. A name has no comma and no "="."""
    shares = []
    for part in text.split(","):
        model, equals, weight = part.strip().partition("=")
        try:
            share = Share(model, float(weight) if equals else 1.0)
        except ValueError:
            raise ValueError(f"'{part}' is not MODEL or MODEL=WEIGHT: '{weight}' is not a number") from None
        if not model:
            raise ValueError(f"'{text}' is not MODEL[=WEIGHT],...: a model has no name")
        if not (isfinite(share.weight) and share.weight > 0):
            raise ValueError(f"'{part}': a weight is above 0")
        shares.append(share)
    twice = sorted({share.model for share in shares if sum(share.model == other.model for other in shares) > 1})
    if twice:
        raise ValueError(f"'{text}' names {twice} more than once")
    return tuple(shares)


class Mix:
    """Workloads of several models, asked in proportion to their weights; each goes through its requests in turn."""

    def __init__(self, workloads: Sequence[Workload], weights: Sequence[float], seed: int | None = None) -> None:
        self._lanes: list[tuple[Workload, Iterator[bytes]]] = [
            (workload, itertools.cycle(workload.bodies)) for workload in workloads
        ]
        self._cumulative = list(itertools.accumulate(weights))
        self._random = random.Random(seed)

    def next(self) -> tuple[Workload, bytes]:
        """Whom to ask now, and what: a serialised ModelInferRequest."""
        workload, bodies = self._random.choices(self._lanes, cum_weights=self._cumulative)[0]
        return workload, next(bodies)
