"""Token buckets: so much a second, and so much at once after a rest. Time is an argument."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Rate:
    """So much a second, `burst` at once."""

    per_second: float
    burst: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a principal may ask; None: as much as it likes."""

    requests: Rate | None = None
    bytes: Rate | None = None
    """Of the messages of requests."""


class Bucket:
    """What may be taken now. Begins full."""

    __slots__ = ("_filled_at", "_level", "_rate")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._level = rate.burst
        self._filled_at = inf

    def seconds_until(self, amount: float, now: float) -> float:
        """How long until that amount may be taken; 0.0 for now.

        More than the whole burst is given when the bucket is full: what can never fit is not refused for ever.
        """
        rate = self._rate
        passed = max(0.0, now - self._filled_at)
        self._level = min(rate.burst, self._level + passed * rate.per_second)
        self._filled_at = now
        missing = min(amount, rate.burst) - self._level
        return missing / rate.per_second if missing > 0 else 0.0

    def take(self, amount: float) -> None:
        """Take it, into debt where it is more than there is: who comes next waits for it."""
        self._level -= amount


class Meter:
    """What one principal has asked, against its limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._requests = Bucket(limits.requests) if limits.requests else None
        self._bytes = Bucket(limits.bytes) if limits.bytes else None

    def admit(self, size: int, now: float) -> float:
        """Count a request of `size` bytes, and return 0.0; or count nothing, and return the seconds to wait."""
        wait = max(
            self._requests.seconds_until(1.0, now) if self._requests else 0.0,
            self._bytes.seconds_until(size, now) if self._bytes else 0.0,
        )
        if wait == 0.0:
            if self._requests:
                self._requests.take(1.0)
            if self._bytes:
                self._bytes.take(size)
        return wait
