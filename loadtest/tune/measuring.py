"""A load on a served candidate → figures."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np

from loadtest.errors import LoadTestError, WrongAnswerError
from loadtest.figures import Counts
from loadtest.h2load import H2load, Volley, frame
from loadtest.open_loop import GrpcTraffic, play_apart, poisson, processes_for, quantile
from loadtest.target import INFER
from loadtest.tune.candidates import Candidate
from loadtest.tune.hosts import Host, Served
from loadtest.tune.judging import Failure, Measurement

_MIB = 1 << 20
_WARM_SECONDS = 0.4
_WARM_IN_FLIGHT = 4
"""Before arrivals at a rate."""
_PATIENCE_SECONDS = 2.0
"""For what has not been answered when the arrivals end."""


@dataclass(frozen=True)
class LoadSpec:
    """What is put on every candidate. Either `in_flight` or `rate`."""

    in_flight: int | None
    """Closed loop: so many requests are always on their way."""
    rate: float | None
    """Open loop: Poisson arrivals per second, whatever becomes of those before."""
    seconds: float
    """Of one measurement."""


class Measurer:
    """Serves candidates by a host, puts the load on them, and counts."""

    def __init__(self, host: Host, load: LoadSpec, p99_ms: float | None, out: Path) -> None:
        """`out` is a folder for the request and the generator's log. Raises LoadTestError."""
        self._host, self._load, self._p99_ms = host, load, p99_ms
        self._workload, self._model = host.workload, host.workload.model
        self._h2load = H2load.find()
        self._body, self._log = out / "request.grpc", out / "h2load.log"
        self._body.write_bytes(frame(self._workload.bodies[0]))

    def measure(self, candidate: Candidate) -> Measurement | Failure:
        """A fresh serving of `candidate`, warmed up and measured once."""
        try:
            with self._host.serve(candidate) as served:
                self._workload.check(served.target.answer(self._workload.bodies[0]))
                rate = self._load.rate
                return self._closed_loop(served) if rate is None else self._open_loop(served, rate)
        except (LoadTestError, WrongAnswerError) as error:
            return Failure(_last_line(str(error)))

    def _closed_loop(self, served: Served) -> Measurement:
        in_flight = self._load.in_flight or 1
        rate = self._warm_up(served, in_flight)
        requests = max(4 * in_flight, round(rate * self._load.seconds))
        before = _ServerSide.of(served, self._model)
        volley = self._fire(served, requests, in_flight)
        after = _ServerSide.of(served, self._model)
        counted = after.counts.since(before.counts)
        if served.process is not None and counted.successes + counted.failures != requests:
            raise LoadTestError(f"{requests} requests were sent, but the server counted {counted}")
        # h2load takes a refusal for an answer: the server knows better. Others' requests may be among its counts.
        answered = min(1.0, counted.successes / requests)
        return Measurement(
            rows_per_second=volley.requests_per_second * answered * self._workload.rows,
            p50_ms=volley.p50_ms,
            p99_ms=volley.p99_ms,
            refused_share=1 - answered,
            average_batch=counted.average_batch,
            cpu_us_per_request=after.cpu_us_since(before, requests),
            peak_rss_mib=after.peak_rss_mib,
        )

    def _open_loop(self, served: Served, rate: float) -> Measurement:
        self._warm_up(served, _WARM_IN_FLIGHT)
        before = _ServerSide.of(served, self._model)
        # All candidates get the same arrivals.
        seen = play_apart(
            GrpcTraffic(served.address, INFER, (self._body.read_bytes(),)),
            poisson(rate, self._load.seconds, seed=1),
            seconds=self._load.seconds,
            patience=_PATIENCE_SECONDS,
            processes=processes_for(rate),
        )
        after = _ServerSide.of(served, self._model)
        good = np.count_nonzero(seen.latencies_ms <= (inf if self._p99_ms is None else self._p99_ms))
        return Measurement(
            rows_per_second=good / seen.seconds * self._workload.rows,
            p50_ms=seen.quantile_of_admitted_ms(0.5),
            p99_ms=seen.quantile_of_admitted_ms(0.99),
            refused_share=(seen.refused + seen.given_up) / max(1, seen.scheduled),
            average_batch=after.counts.since(before.counts).average_batch,
            cpu_us_per_request=after.cpu_us_since(before, max(1, seen.scheduled)),
            peak_rss_mib=after.peak_rss_mib,
            generator_late_ms=quantile(seen.late_ms, 0.99),
        )

    def _warm_up(self, served: Served, in_flight: int) -> float:
        """Two volleys, the second of a good part of a second. Returns its requests per second."""
        rate = self._fire(served, 4 * in_flight, in_flight).requests_per_second
        return self._fire(served, max(4 * in_flight, round(rate * _WARM_SECONDS)), in_flight).requests_per_second

    def _fire(self, served: Served, requests: int, in_flight: int) -> Volley:
        connections = max(count for count in (1, 2, 3, 4) if in_flight % count == 0)
        return self._h2load.fire(
            served.address,
            self._body,
            requests=requests,
            connections=connections,
            streams=in_flight // connections,
            log=self._log,
        )


@dataclass(frozen=True)
class _ServerSide:
    """What can be seen of the server at one moment."""

    counts: Counts
    cpu_seconds: float | None
    peak_rss_mib: float | None

    @classmethod
    def of(cls, served: Served, model: str) -> _ServerSide:
        counts, process = served.target.counts(model), served.process
        if process is None:
            return cls(counts, None, None)
        return cls(counts, process.cpu_seconds(), process.peak_rss_bytes() / _MIB)

    def cpu_us_since(self, before: _ServerSide, requests: int) -> float | None:
        if self.cpu_seconds is None or before.cpu_seconds is None:
            return None
        return (self.cpu_seconds - before.cpu_seconds) / requests * 1e6


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else text
