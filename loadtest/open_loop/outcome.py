"""What became of the requests of a run, and the arithmetic on it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Booleans = np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Of every request of a schedule, in seconds from its beginning. All arrays are of one length."""

    due: Floats
    """When the schedule wanted it sent; ascending within a process."""
    sent: Floats
    """When it was handed to a connection; inf where it never was."""
    ended: Floats
    """When its answer, or its refusal, had come; inf where none did."""
    answered: Booleans
    """Whether it got an answer. One that ended without was refused, or its connection was lost."""
    held_back: Booleans
    """Whether it was due while every connection had as many in flight as it may."""
    seconds: float
    """Length of the schedule."""
    patience: float
    """How long was waited after that."""
    cpu_shares: tuple[float, ...]
    """CPU of each process of the generator ÷ the time it ran: 1 is a whole core."""
    cpu_seconds: float
    """The same of all of them, as time."""

    @property
    def scheduled(self) -> int:
        return len(self.due)

    @property
    def refused(self) -> int:
        return int(np.count_nonzero(np.isfinite(self.ended) & ~self.answered))

    @property
    def given_up(self) -> int:
        """Not ended, or not even sent."""
        return int(np.count_nonzero(~np.isfinite(self.ended)))

    @property
    def latencies_ms(self) -> Floats:
        """Of the answers, from scheduled to answered, ascending."""
        return np.sort(self.ended[self.answered] - self.due[self.answered]) * 1e3

    @property
    def latencies_from_sent_ms(self) -> Floats:
        """Of the answers, from sent to answered, ascending: without what the generator was late."""
        return np.sort(self.ended[self.answered] - self.sent[self.answered]) * 1e3

    def quantile_of_admitted_ms(self, share: float, *, from_sent: bool = False) -> float:
        """Of the requests that were not refused. What was given up took longer than any other: inf."""
        latencies_ms = self.latencies_from_sent_ms if from_sent else self.latencies_ms
        return quantile(np.append(latencies_ms, np.full(self.given_up, np.inf)), share)

    @property
    def waits_ms(self) -> Floats:
        """Of all requests, in their order, from scheduled on.

        One without an answer counts as waited for until the generator would have given it up, so it is never a good one
        as long as `patience` is longer than what is allowed.
        """
        ended = np.where(self.answered, self.ended, self.seconds + self.patience)
        return (ended - self.due) * 1e3

    @property
    def late_ms(self) -> Floats:
        """From scheduled to sent, ascending, of those that found room at once: what the generator itself was late."""
        prompt = np.isfinite(self.sent) & ~self.held_back
        return np.sort(self.sent[prompt] - self.due[prompt]) * 1e3

    @property
    def achieved(self) -> float:
        """Answers per second, from the beginning to the end of the schedule or the last answer, if that is later."""
        ended = self.ended[self.answered]
        return float(ended.size / max(self.seconds, ended.max())) if ended.size else 0.0


def quantile(ascending: Floats, share: float) -> float:
    """The smallest value that `share` of them do not exceed; 0 where there is none."""
    if not ascending.size:
        return 0.0
    return float(ascending[max(0, int(np.ceil(share * ascending.size)) - 1)])


def merged(outcomes: Sequence[Outcome]) -> Outcome:
    """What several processes saw of one schedule."""
    if len(outcomes) == 1:
        return outcomes[0]
    due, sent, ended, answered, held_back = (
        np.concatenate(column)
        for column in zip(*((o.due, o.sent, o.ended, o.answered, o.held_back) for o in outcomes), strict=True)
    )
    return Outcome(
        due=due,
        sent=sent,
        ended=ended,
        answered=answered,
        held_back=held_back,
        seconds=outcomes[0].seconds,
        patience=outcomes[0].patience,
        cpu_shares=tuple(share for outcome in outcomes for share in outcome.cpu_shares),
        cpu_seconds=sum(outcome.cpu_seconds for outcome in outcomes),
    )
