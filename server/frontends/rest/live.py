"""`GET /v2/models/{model}/live` and `/v2/models/{model}/versions/{version}/live`: what a version does now.

Made to be asked some times a second: with the `cursor` of the answer before as `since`, an answer has the batches that
came after it. The first question begins the observation, and it ends `KEEP_SECONDS` after the last.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from math import inf, isnan
from urllib.parse import parse_qs

from server.errors import ConvoyError, InvalidRequest
from server.frontends.rest.exchange import Exchange, Route, json_content
from server.frontends.statuses import AS_TRITON
from server.live import Observation
from server.models.config import ModelConfig
from server.models.registry import Registry
from server.models.served import Served
from server.statistics import VersionStatistics
from server.tensors import Buffer

KEEP_SECONDS = 10.0


class LiveRoutes:
    """The routes, and the observations that somebody still looks at."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._observed: list[tuple[VersionStatistics, Observation]] = []

    def routes(self) -> list[Route]:
        return [
            Route("GET", f"v2/models/{{model}}{version}/live", self._handle, "LiveFigures")
            for version in ("", "/versions/{version}")
        ]

    def _handle(self, exchange: Exchange, _: Buffer) -> None:
        try:
            query = parse_qs(exchange.head.query)
            seen = _number(query, "since")
            objective_ms = _number(query, "objective_ms")
            loaded = self._registry.find(exchange.parameters["model"], exchange.parameters.get("version", ""))
        except ConvoyError as error:
            AS_TRITON.fail(exchange, error)
            return
        now = time.monotonic()
        observation = self._observation(loaded.statistics, now)
        exchange.respond(HTTPStatus.OK, json_content(live_page(loaded, observation, now, seen, objective_ms)))

    def _observation(self, statistics: VersionStatistics, now: float) -> Observation:
        observation = statistics.observer
        if not isinstance(observation, Observation):
            statistics.observer = observation = Observation(statistics, now)
            if not self._observed:
                asyncio.get_running_loop().call_later(KEEP_SECONDS, self._end_unwatched)
            self._observed.append((statistics, observation))
        observation.asked = now
        return observation

    def _end_unwatched(self) -> None:
        """End what nobody has asked for lately, and come again while there is some left."""
        limit = time.monotonic() - KEEP_SECONDS
        kept = [each for each in self._observed if each[1].asked > limit]
        for statistics, observation in self._observed:
            if observation.asked <= limit:
                statistics.observer = None
        self._observed = kept
        if kept:
            asyncio.get_running_loop().call_later(KEEP_SECONDS, self._end_unwatched)


def live_page(
    loaded: Served, observation: Observation, now: float, seen: float | None, objective_ms: float | None
) -> dict[str, object]:
    """The answer as JSON has it. `seen`: a cursor of an answer before; what a cursor of an ended observation says is
    more than there is, and begins anew."""
    config = loaded.config
    objective_ms = objective_ms or config.objective_ms or None
    figures = observation.figures(now, None if objective_ms is None else objective_ms * 1000)
    before = 0 if seen is None or seen > observation.ran else int(seen)
    batches = observation.since(before)
    occupancy = loaded.occupancy()
    return {
        "model_name": config.name,
        "model_version": str(loaded.version),
        "policy": policy_name(config),
        "objective_ms": objective_ms,
        "now_us": round(now * 1e6),
        "waiting": {
            "requests": loaded.pending,
            "rows": occupancy.waiting_rows,
            "oldest_us": round(loaded.queue_age() * 1e6),
        },
        "running": {
            "batches": occupancy.running_batches,
            "requests": max(0, loaded.in_flight - loaded.pending),
        },
        "window_seconds": round(figures.seconds, 3),
        "latency_us": {"p50": _rounded(figures.p50_us), "p99": _rounded(figures.p99_us)},
        "answered_per_second": round(figures.answered, 2),
        "in_time_per_second": None if figures.in_time is None else round(figures.in_time, 2),
        "failed_per_second": {reason.value: round(rate, 2) for reason, rate in figures.failed.items()},
        "cursor": observation.ran,
        "missed_batches": observation.ran - before - len(batches),
        "batches": {
            "started_us": [batch.started_us for batch in batches],
            "rows": [batch.rows for batch in batches],
            "requests": [batch.requests for batch in batches],
            "duration_us": [batch.duration_us for batch in batches],
            "queue_delay_us": [batch.queue_delay_us for batch in batches],
        },
    }


def policy_name(config: ModelConfig) -> str:
    """How requests wait for each other: "slo", "window", "sequence", "ensemble", or "single" where they never share a
    batch."""
    if config.load.ensemble is not None:
        return "ensemble"
    if config.sequence is not None:
        return "sequence"
    if config.objective_ms:
        return "slo"
    return "window" if config.batching is not None else "single"


def _rounded(value_us: float) -> float | None:
    return None if isnan(value_us) else round(value_us, 1)


def _number(query: dict[str, list[str]], name: str) -> float | None:
    """A number from 0 of the query; None where it has none. Raises `InvalidRequest`."""
    text = query.get(name, [""])[-1]
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < inf:
        raise InvalidRequest(f"query parameter '{name}' must be a number from 0, not '{text[:32]}'")
    return value
