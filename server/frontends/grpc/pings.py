"""How often a peer may ping (gRFC A8, "Client-side Keepalive"). Pure."""

from __future__ import annotations

from math import inf

QUIET_INTERVAL = 7200.0
"""Seconds between pings that a peer without an open call must keep, where it may ping without one only by the way."""


class PingGuard:
    """Counts a peer's strikes. A ping is one too many if it comes sooner than allowed after the last."""

    __slots__ = ("_interval", "_last", "_max_strikes", "_permit_without_calls", "_strikes")

    def __init__(self, interval: float, max_strikes: int, *, permit_without_calls: bool) -> None:
        self._interval = interval
        self._max_strikes = max_strikes
        self._permit_without_calls = permit_without_calls
        self._last = -inf
        self._strikes = 0

    def data_sent(self) -> None:
        """Answers have gone out: the peer may ask again."""
        self._last = -inf
        self._strikes = 0

    def allow(self, now: float, *, open_calls: int) -> bool:
        """Count a ping. False where the peer has used up its strikes."""
        interval = self._interval if open_calls or self._permit_without_calls else QUIET_INTERVAL
        if now < self._last + interval:
            self._strikes += 1
        self._last = now
        return not self._max_strikes or self._strikes <= self._max_strikes
