"""Requests that the server sends to itself, for people to watch: Poisson arrivals, in an open loop.

They go into the engine as any other: into the queue and its bounds, statistics, metrics, and an account of the ledger
of their own. No wire is in their way: what they show is the queue and the model. Bounded in every way: one load at a
time, `MOST_PER_SECOND`, `MOST_SECONDS` until somebody says again that it shall go on, and inputs that are made once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from random import Random

from server.engine import Engine
from server.errors import ConvoyError, InvalidRequest, Reason, ShuttingDown
from server.ledger import Account
from server.messages import InferenceRequest, TensorSpec
from server.models.registry import Registry
from server.models.samples import Sample, random_requests
from server.models.work import Answer
from server.scheduling.clock import Alarm, Clock

MOST_PER_SECOND = 20_000.0
MOST_SECONDS = 60.0
MOST_ROWS = 64
TICK_SECONDS = 0.5e-3
"""Arrivals are let in together that come within it: an alarm for each would cost more than they do."""
MOST_AT_ONCE = 64
"""Requests that are sent before others have a turn of the event loop."""
LATE_SECONDS = 0.1
"""An event loop that was held up for longer has missed arrivals: they are skipped, and counted."""


@dataclass(frozen=True, slots=True)
class OfferedLoad:
    """What somebody wants to be sent. Raises `InvalidRequest` where it is too much."""

    model: str
    version: str
    """"" for the latest that serves."""
    rate: float
    """Requests per second, on average."""
    seconds: float
    """How long it lasts."""
    rows: int = 1
    """Of each request."""

    def __post_init__(self) -> None:
        for name, value, most in (("rate", self.rate, MOST_PER_SECOND), ("seconds", self.seconds, MOST_SECONDS)):
            if not 0 < value <= most:
                raise InvalidRequest(f"'{name}' must be more than 0 and at most {most:g}, not {value:g}")
        if not 1 <= self.rows <= MOST_ROWS:
            raise InvalidRequest(f"'rows' must be 1 to {MOST_ROWS}, not {self.rows}")


@dataclass(frozen=True, slots=True)
class LoadSnapshot:
    """What has become of the load that runs, or of the last one."""

    load: OfferedLoad | None
    """None: there was none."""
    seconds_left: float
    """0: it is over."""
    sent: int
    answered: int
    failed: Mapping[Reason, int]
    skipped: int
    """Arrivals that the event loop was too late for: they were not sent."""
    in_progress: int


class LoadGenerator:
    """Sends one load at a time. All of it runs on the event loop's thread."""

    def __init__(self, engine: Engine, registry: Registry, account: Account, clock: Clock, random: Random) -> None:
        """`account`: where its requests are accounted for."""
        self._engine = engine
        self._registry = registry
        self._account = account
        self._clock = clock
        self._random = random
        self._load: OfferedLoad | None = None
        self._alarm: Alarm | None = None
        """None while nothing is sent."""
        self._ends = 0.0
        self._due = inf
        self._specs: tuple[TensorSpec, ...] = ()
        self._samples: Sequence[Sample] = ()
        self._sent = 0
        self._answered = 0
        self._failed: Counter[Reason] = Counter()
        self._skipped = 0

    def begin(self, load: OfferedLoad) -> None:
        """Send this from now on, instead of what was sent so far. Counts go on where the model is the same.

        Raises `ConvoyError` where there is no such model, or one that no requests can be made for; what was sent so far
        goes on then. Raises `ShuttingDown` where the server goes down.
        """
        if self._engine.exiting:
            raise ShuttingDown("Server exiting")
        config = self._registry.find(load.model, load.version).config
        specs, samples = random_requests(config, load.rows)
        if self._load is None or (self._load.model, self._load.version) != (load.model, load.version):
            self._sent = self._answered = self._skipped = 0
            self._failed = Counter()
        self._load, self._specs, self._samples = load, specs, samples
        now = self._clock.now()
        self._ends = now + load.seconds
        # An exponential gap has no memory: whoever changes the rate may draw anew.
        self._due = now + self._random.expovariate(load.rate)
        if self._alarm is None:
            self._alarm = self._clock.alarm(self._send)
        self._alarm.set(self._due)

    def stop(self) -> None:
        """Send no more. What was sent is answered as ever."""
        self._ends = 0.0
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None

    def snapshot(self) -> LoadSnapshot:
        left = max(0.0, self._ends - self._clock.now())
        return LoadSnapshot(
            self._load, left, self._sent, self._answered, dict(self._failed), self._skipped, self._account.in_progress
        )

    def _send(self) -> None:
        """Send what is due, and set the alarm for what comes next."""
        assert self._load is not None and self._alarm is not None, "the alarm is of a load"
        now, rate = self._clock.now(), self._load.rate
        if now >= self._ends:
            self.stop()
            return
        if now - self._due > LATE_SECONDS:
            self._skipped += round((now - LATE_SECONDS - self._due) * rate)
            self._due = now - LATE_SECONDS
        for _ in range(MOST_AT_ONCE):
            if self._due > now:
                break
            self._due += self._random.expovariate(rate)
            self._send_one(self._load)
        self._alarm.set(min(max(self._due, now + TICK_SECONDS), self._ends))

    def _send_one(self, load: OfferedLoad) -> None:
        self._account.received += 1
        self._sent += 1
        buffers = self._random.choice(self._samples)
        request = InferenceRequest(load.model, load.version, "", self._specs, buffers)
        self._engine.infer(request, _Asked(self._ended, self._account.answer_again).answered)

    def _ended(self, answer: Answer) -> None:
        if isinstance(answer, ConvoyError):
            self._failed[answer.reason] += 1
            self._account.fail(answer.reason)
        else:
            self._answered += 1
            self._account.answered += 1


class _Asked:
    """One request, which ends once."""

    __slots__ = ("_again", "_ended")

    def __init__(self, ended: Callable[[Answer], None], again: Callable[[], None]) -> None:
        self._ended: Callable[[Answer], None] | None = ended
        self._again = again

    def answered(self, answer: Answer) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            self._again()
        else:
            ended(answer)
