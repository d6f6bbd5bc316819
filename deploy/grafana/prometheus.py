"""Asking Prometheus what a dashboard's panels would ask: expressions filled in as Grafana fills them, over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

TIMEOUT_SECONDS = 30
ALL = ".*"
"""What Grafana puts in for "All" of our variables."""

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_LABEL_VALUES = re.compile(r"label_values\((.*), (\w+)\)")


class QueryError(Exception):
    """Prometheus does not understand a question, or cannot answer it."""


@dataclass(frozen=True, slots=True)
class Series:
    """Labels, and values over time: one value for the latest alone."""

    labels: Mapping[str, str]
    times: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel, as the dashboard's file has it."""

    expr: str
    legend: str

    def name(self, series: Series) -> str:
        """What the panel calls one of the query's series."""
        if self.legend == "__auto":
            return ", ".join(value for label, value in series.labels.items() if label != "__name__")
        return re.sub(r"\{\{(\w+)\}\}", lambda match: series.labels.get(match[1], ""), self.legend)


@dataclass(frozen=True, slots=True)
class PanelView:
    """One panel, as the dashboard's file has it."""

    title: str
    kind: str
    """timeseries, stat, heatmap or table."""
    x: int
    y: int
    width: int
    height: int
    unit: str
    targets: Sequence[Target] = ()
    json: Mapping[str, Any] = field(default_factory=dict)

    def columns(self) -> dict[str, str]:
        """A table's fields and their headings, from left to right: labels, then values."""
        (options,) = (step["options"] for step in self.json["transformations"] if step["id"] == "organize")
        order, renamed = options["indexByName"], options["renameByName"]
        return {name: renamed[name] for name in sorted(renamed, key=lambda name: order[name])}


def panels_of(dashboard: Mapping[str, Any]) -> Iterator[PanelView]:
    """Every panel that shows something; rows too, with no targets."""
    for panel in dashboard["panels"]:
        place, defaults = panel["gridPos"], panel.get("fieldConfig", {}).get("defaults", {})
        unit = panel.get("options", {}).get("yAxis", {}).get("unit") or defaults.get("unit", "")
        targets = [Target(target["expr"], target["legendFormat"]) for target in panel.get("targets", [])]
        yield PanelView(
            panel["title"], panel["type"], place["x"], place["y"], place["w"], place["h"], unit, targets, panel
        )


def fill_in(text: str, variables: Mapping[str, str], rate_interval: str) -> str:
    """`text` with Grafana's variables replaced. Raises KeyError for one that has no value."""
    values = {**variables, "__rate_interval": rate_interval}
    return _VARIABLE.sub(lambda match: values[match[1] or match[2]], text)


def choice(values: Sequence[str]) -> str:
    """What Grafana puts in for values that are chosen by hand."""
    escaped = [re.sub(r"([\\^$.|?*+()\[\]{}])", r"\\\\\1", value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus at `url`."""

    url: str

    def query(self, expr: str) -> list[Series]:
        """The latest values. Raises QueryError."""
        data = self.get("query", query=expr)
        if data["resultType"] == "scalar":
            data = {"result": [{"metric": {}, "value": data["result"]}]}
        return [_series(result["metric"], [result["value"]]) for result in data["result"]]

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """Values at each step. Raises QueryError."""
        data = self.get("query_range", query=expr, start=start, end=end, step=step)
        return [_series(result["metric"], result["values"]) for result in data["result"]]

    def label_values(self, query: str) -> list[str]:
        """What a variable's query `label_values(SELECTOR, LABEL)` offers. Raises QueryError."""
        match = _LABEL_VALUES.fullmatch(query)
        if match is None:
            raise QueryError(f"'{query}' is not label_values(SELECTOR, LABEL)")
        return [str(value) for value in self.get(f"label/{match[2]}/values", **{"match[]": match[1]})]

    def get(self, path: str, **parameters: object) -> Any:
        """The data of an answer of the HTTP API, version 1. Raises QueryError."""
        try:
            with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
                return json.load(response)["data"]
        except HTTPError as error:
            with error:
                raise QueryError(f"{parameters}: {error.read().decode(errors='replace')}") from error


def _series(labels: Mapping[str, str], points: Sequence[tuple[float, str]]) -> Series:
    return Series(labels, [float(time) for time, _ in points], [float(value) for _, value in points])
