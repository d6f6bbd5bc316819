"""What was measured: in all, for each kind of request, and at each number of users. Pure, time is an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import inf

from loadtest.swarm.latencies import Kind, Tally
from loadtest.verdict import Check, Limits

# A report that begins when the window opens may seem to begin a rounding error before.
_SAME_SECONDS = 1e-6


@dataclass(frozen=True)
class Level:
    """A number of users, and what they met. Of its time, the part after all of them had started."""

    users: int
    seconds: float
    requests: int
    failures: int
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds if self.seconds else 0.0

    def keeps(self, limits: Limits) -> bool:
        """A level without an answer keeps nothing."""
        return (
            self.requests > self.failures
            and self.failures <= limits.error_rate * self.requests
            and self.p99_ms <= limits.p99_ms
        )


class Window:
    """A level while it lasts. It opens once all its users have started."""

    def __init__(self, users: int) -> None:
        self.users = users
        self.opened_at = inf
        self._tally = Tally()
        self._seconds: dict[str, float] = {}

    def add(self, source: str, tallies: Mapping[Kind, Tally], seconds: float, now: float) -> None:
        """What `source` saw in the last `seconds`. What began before the window opened is left out."""
        if now - seconds < self.opened_at - _SAME_SECONDS:
            return
        for tally in tallies.values():
            self._tally.add(tally)
        self._seconds[source] = self._seconds.get(source, 0.0) + seconds

    def level(self) -> Level:
        """What is known of it by now. Sources report at their own times: the mean of what they cover counts."""
        seconds = sum(self._seconds.values()) / len(self._seconds) if self._seconds else 0.0
        tally = self._tally
        p50_ms, p99_ms = tally.percentile_ms(50), tally.percentile_ms(99)
        return Level(self.users, seconds, tally.requests, tally.failures, p50_ms, p99_ms)


class Book:
    """All that a test has measured so far."""

    def __init__(self) -> None:
        self.totals: dict[Kind, Tally] = {}
        self.levels: list[Level] = []
        """Those that are over, in their order."""
        self.window: Window | None = None

    def clear(self) -> None:
        """A test begins. A window that has been begun for it stays, and opens when its users have started."""
        self.totals = {}
        self.levels = []
        if self.window is not None:
            self.window = Window(self.window.users)

    def absorb(self, source: str, tallies: Mapping[Kind, Tally], seconds: float, now: float) -> None:
        """What `source` saw in the last `seconds`, and has not told before."""
        for kind, tally in tallies.items():
            self.totals.setdefault(kind, Tally()).add(tally)
        if self.window is not None:
            self.window.add(source, tallies, seconds, now)

    def begin_level(self, users: int, now: float) -> None:
        """Ends the level before, if there is one. Where nothing has to start or stop, it opens at once."""
        same = self.window is not None and self.window.users == users and self.window.opened_at < inf
        self.end_level()
        self.window = Window(users)
        if same:
            self.window.opened_at = now

    def users_are_there(self, now: float) -> None:
        """All users of the level have started, and those that are too many have stopped."""
        if self.window is not None:
            self.window.opened_at = now

    def end_level(self) -> None:
        if self.window is not None:
            self.levels.append(self.window.level())
            self.window = None


def ramp_check(levels: Sequence[Level], limits: Limits) -> Check:
    """What a ramp to failure has found: the last level before the first that broke a limit. Without any, it failed."""
    kept = list(takewhile(lambda level: level.keeps(limits), levels))
    broken = levels[len(kept) : len(kept) + 1]
    last = f"{describe(kept[-1])} kept the limits" if kept else "no level kept the limits"
    first = f"{describe(broken[0])} broke them" if broken else "none broke them"
    return Check(bool(kept), f"{last}; {first}")


def describe(level: Level) -> str:
    """A level in a line."""
    return (
        f"{level.users} users ({level.rate:.0f}/s, p50 {level.p50_ms:g} ms, p99 {level.p99_ms:g} ms, "
        f"{level.failures} of {level.requests} failed)"
    )
