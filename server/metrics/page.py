"""The metrics page: a snapshot and the machine, as text or as OpenMetrics."""

from __future__ import annotations

import gzip
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from server.metrics.families import families
from server.metrics.machine import Machine
from server.metrics.snapshots import Snapshot
from server.metrics.text import encode
from server.metrics_config import MetricsConfig


class Request(NamedTuple):
    """What a scraper asks for."""

    accept: str = ""
    accept_encoding: str = ""
    names: Collection[str] = ()
    """Names of the samples that are wanted; empty: all."""


class Page(NamedTuple):
    """What it gets."""

    content_type: str
    content_encoding: str
    """"" where the body is as it is."""
    body: bytes


class MetricsPage:
    """Renders snapshots. Touches nothing but them and the machine, so that any one thread may."""

    def __init__(self, config: MetricsConfig, machine: Machine) -> None:
        self._config = config
        self._machine = machine

    def families(self, snapshot: Snapshot) -> Iterator[Metric]:
        """Everything that the page shows."""
        yield from families(snapshot, self._config)
        yield from self._machine.families()

    def render(self, snapshot: Snapshot, request: Request) -> Page:
        """The page, in the format and the encoding that the scraper takes."""
        _, content_type = choose_encoder(request.accept)
        shown = self.families(snapshot)
        if request.names:
            shown = _named(shown, request.names)
        body = encode(shown, openmetrics=content_type.startswith("application/openmetrics-text"))
        if "gzip" not in _codings(request.accept_encoding):
            return Page(content_type, "", body)
        return Page(content_type, "gzip", gzip.compress(body, compresslevel=1, mtime=0))


def _named(shown: Iterable[Metric], names: Collection[str]) -> Iterator[Metric]:
    for family in shown:
        family.samples = [sample for sample in family.samples if sample.name in names]
        if family.samples:
            yield family


def _codings(accept_encoding: str) -> set[str]:
    """The codings that are accepted, those with a weight of 0 left out."""
    codings: set[str] = set()
    for part in accept_encoding.lower().split(","):
        coding, *parameters = (word.strip() for word in part.split(";"))
        if not any(parameter.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for parameter in parameters):
            codings.add(coding)
    return codings
