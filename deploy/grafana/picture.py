"""Draw a dashboard without Grafana, from its file and a Prometheus: for documentation, and to look at from a shell.

    python -m deploy.grafana.picture --prometheus http://localhost:9090 --minutes 15 overview overview.png

It shows what Grafana would: the same panels in the same places, asked for the same expressions, "All" being chosen.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from deploy.grafana.generate import DASHBOARDS, FOLDER
from deploy.grafana.numbers import readable
from deploy.grafana.prometheus import ALL, PanelView, Prometheus, QueryError, Series, fill_in, panels_of

COLUMN_PIXELS, ROW_PIXELS, DPI = 64, 30, 100
POINTS = 240
"""Values of a line."""
PAGE, PANEL, EDGE, TEXT, FAINT, GRID = "#111217", "#181b1f", "#2c3035", "#d0d1d6", "#8e9099", "#2a2d33"
LINK = "#6e9fff"
COLOURS = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#96d98d", "#ffb357", "#c0d8ff",
           "#e0b400", "#ca95e5")  # fmt: skip
NAMED = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2"}
LEGEND_LINES, TABLE_PIXELS = 2, 20


@dataclass(frozen=True, slots=True)
class Span:
    """The time that is drawn, in seconds since the epoch."""

    start: float
    end: float
    rate_interval: str

    @property
    def step(self) -> float:
        return max(1.0, (self.end - self.start) / POINTS)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", default="http://localhost:9090", metavar="URL", help="(%(default)s)")
    parser.add_argument("--minutes", type=float, default=15, help="how far to look back (%(default)s)")
    parser.add_argument("--rate-interval", default="20s", help="what rates are taken over (%(default)s)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="VARIABLE=VALUE", help="a variable that is chosen"
    )
    parser.add_argument("dashboard", choices=sorted(DASHBOARDS))
    parser.add_argument("out", type=Path, help="a PNG file")
    flags = parser.parse_args()
    now = time.time()
    span = Span(now - 60 * flags.minutes, now, flags.rate_interval)
    chosen = dict(setting.split("=", 1) for setting in flags.set)
    try:
        flags.out.write_bytes(draw(flags.dashboard, Prometheus(flags.prometheus), span, chosen))
    except (QueryError, OSError) as error:
        print(f"picture: {error}", file=sys.stderr)
        return 1
    return 0


def draw(name: str, prometheus: Prometheus, span: Span, chosen: Mapping[str, str]) -> bytes:
    """A PNG of the dashboard. Raises QueryError."""
    dashboard = json.loads((FOLDER / f"{name}.json").read_text())
    variables = {variable["name"]: ALL for variable in dashboard["templating"]["list"]} | dict(chosen)
    panels = list(panels_of(dashboard))
    rows = max(panel.y + panel.height for panel in panels)
    width, height = 24 * COLUMN_PIXELS, rows * ROW_PIXELS
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAGE)
    for panel in panels:
        canvas = Canvas(figure, panel, width, height)
        if panel.kind == "row":
            canvas.heading()
            continue
        canvas.frame()
        ask = Question(prometheus, variables, span)
        {"stat": _stat, "timeseries": _lines, "heatmap": _heat, "table": _table}[panel.kind](canvas, ask)
    raw = BytesIO()
    figure.savefig(raw, format="png", facecolor=PAGE)
    plt.close(figure)
    return _smaller(raw)


class Canvas:
    """One panel's place in the picture, in pixels from its own upper left corner."""

    def __init__(self, figure: Figure, panel: PanelView, width: int, height: int) -> None:
        self.figure, self.panel = figure, panel
        self._width, self._height = width, height
        self.left, self.top = panel.x * COLUMN_PIXELS + 3, panel.y * ROW_PIXELS + 3
        self.width, self.height = panel.width * COLUMN_PIXELS - 6, panel.height * ROW_PIXELS - 6

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes without a frame."""
        x, y = (self.left + left) / self._width, 1 - (self.top + top + height) / self._height
        axes = self.figure.add_axes((x, y, width / self._width, height / self._height), facecolor="none")
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def text(self, x: float, y: float, text: str, size: float = 8, colour: str = TEXT, **more: Any) -> None:
        """Text that begins at x, its middle at y."""
        place = ((self.left + x) / self._width, 1 - (self.top + y) / self._height)
        self.figure.text(*place, text, fontsize=size, color=colour, va="center", **more)

    def heading(self) -> None:
        """A row's title."""
        self.text(6, self.height / 2, f"▾  {self.panel.title}", 10, weight="bold")

    def frame(self) -> None:
        """The panel's box and title."""
        place = (self.left / self._width, 1 - (self.top + self.height) / self._height)
        size = (self.width / self._width, self.height / self._height)
        box = FancyBboxPatch(
            place,
            *size,
            boxstyle="square,pad=0",
            transform=self.figure.transFigure,
            facecolor=PANEL,
            edgecolor=EDGE,
            lw=0.8,
            zorder=-1,
        )
        self.figure.add_artist(box)
        self.text(10, 14, self.panel.title, 8.5)


@dataclass(frozen=True, slots=True)
class Question:
    """What a panel asks."""

    prometheus: Prometheus
    variables: Mapping[str, str]
    span: Span

    def course(self, expr: str) -> list[Series]:
        """Values over the time that is drawn."""
        return self.prometheus.query_range(self._filled(expr), self.span.start, self.span.end, self.span.step)

    def latest(self, expr: str) -> list[Series]:
        """The latest values."""
        return self.prometheus.query(self._filled(expr))

    def _filled(self, expr: str) -> str:
        return fill_in(expr, self.variables, self.span.rate_interval)


def _stat(canvas: Canvas, ask: Question) -> None:
    found = ask.course(canvas.panel.targets[0].expr)
    values = [value for value in (found[0].values if found else []) if math.isfinite(value)]
    latest = values[-1] if values else math.nan
    defaults = canvas.panel.json["fieldConfig"]["defaults"]
    fixed = defaults.get("color", {}).get("fixedColor")
    colour = NAMED[fixed or _threshold(defaults["thresholds"]["steps"], latest)]
    if len(values) > 1:
        axes = canvas.axes(0, canvas.height * 0.58, canvas.width, canvas.height * 0.42)
        axes.fill_between(range(len(values)), values, color=colour, alpha=0.25, lw=0)
        axes.plot(values, color=colour, lw=1)
        axes.set(xlim=(0, len(values) - 1), ylim=(0, max(values) * 1.1 or 1), xticks=[], yticks=[])
    middle = canvas.width / 2
    canvas.text(
        middle, canvas.height * 0.45, readable(latest, canvas.panel.unit), 19, colour, ha="center", weight="bold"
    )


def _threshold(steps: Sequence[Mapping[str, object]], value: float) -> str:
    colour = str(steps[0]["color"])
    for step in steps[1:]:
        if value >= float(str(step["value"])):
            colour = str(step["color"])
    return colour


def _lines(canvas: Canvas, ask: Question) -> None:
    panel = canvas.panel
    found = [(target.name(series), series) for target in panel.targets for series in ask.course(target.expr)]
    shown = [(name, series) for name, series in found if any(v > 0 for v in series.values)] or found[:1]
    shown.sort(key=lambda line: _mean(line[1].values), reverse=True)
    axes = canvas.axes(62, 30, canvas.width - 76, canvas.height - 86)
    defaults = panel.json["fieldConfig"]["defaults"]
    if defaults["custom"]["stacking"]["mode"] == "normal" and len(shown) > 0:
        _stack(axes, shown, ask.span)
    else:
        for colour, (_, series) in zip(COLOURS * 3, shown, strict=False):
            axes.plot(series.times, series.values, color=colour, lw=1.2)
            axes.fill_between(series.times, series.values, color=colour, alpha=0.08, lw=0)
    _thresholds(axes, defaults)
    top = defaults.get("max") or max(axes.get_ylim()[1], 1e-9)
    _time_axis(axes, ask.span)
    axes.set_ylim(0, top * 1.02)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value, panel.unit)))
    _legend(canvas, shown)


def _stack(axes: Axes, shown: Sequence[tuple[str, Series]], span: Span) -> None:
    times = [span.start + i * span.step for i in range(round((span.end - span.start) / span.step) + 1)]
    base = [0.0] * len(times)
    for colour, (_, series) in zip(COLOURS * 3, shown, strict=False):
        values = {round((t - span.start) / span.step): v for t, v in zip(series.times, series.values, strict=True)}
        top = [b + (v if math.isfinite(v := values.get(i, 0.0)) else 0.0) for i, b in enumerate(base)]
        axes.fill_between(times, base, top, color=colour, alpha=0.4, lw=0)
        axes.plot(times, top, color=colour, lw=1)
        base = top


def _thresholds(axes: Axes, defaults: Mapping[str, object]) -> None:
    custom, thresholds = defaults["custom"], defaults.get("thresholds")
    assert isinstance(custom, dict)
    if isinstance(thresholds, dict) and custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        for below, step in zip(thresholds["steps"], thresholds["steps"][1:], strict=False):
            bad = below if below["color"] == "red" or step["color"] == "green" else step
            axes.axhline(step["value"], color=NAMED[bad["color"]], lw=0.8, ls=(0, (6, 4)), alpha=0.7)


def _heat(canvas: Canvas, ask: Question) -> None:
    found = sorted(ask.course(canvas.panel.targets[0].expr), key=lambda series: float(series.labels["le"]))
    axes = canvas.axes(62, 30, canvas.width - 76, canvas.height - 60)
    steps = round((ask.span.end - ask.span.start) / ask.span.step) + 1
    counts = [[math.nan] * steps for _ in found]
    for row, series in enumerate(found):
        for at, value in zip(series.times, series.values, strict=True):
            counts[row][round((at - ask.span.start) / ask.span.step)] = value
    cells = [[a - b for a, b in zip(line, below, strict=True)] for line, below in zip(counts[1:], counts, strict=False)]
    cells = [counts[0], *cells] if counts else []
    used = [row for row, line in enumerate(cells) if any(value > 0 for value in line)]
    if used:
        low, high = min(used), max(used) + 1
        body = [[math.sqrt(v) if v > 0 else math.nan for v in line] for line in cells[low:high]]
        axes.pcolormesh(
            [ask.span.start + i * ask.span.step for i in range(steps + 1)], range(high - low + 1), body, cmap="plasma"
        )
        names = [readable(float(series.labels["le"]), canvas.panel.unit) for series in found[low:high]]
        axes.set_yticks([row + 1 for row in range(high - low)], names)
    _time_axis(axes, ask.span)


def _time_axis(axes: Axes, span: Span) -> None:
    axes.set_xlim(span.start, span.end)
    axes.xaxis.set_major_locator(MaxNLocator(5, prune="both"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: time.strftime("%H:%M:%S", time.localtime(at))))
    axes.grid(color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=7, length=0)


def _legend(canvas: Canvas, shown: Sequence[tuple[str, Series]]) -> None:
    x, line = 12.0, 0
    for place, (colour, (name, series)) in enumerate(zip(COLOURS * 3, shown, strict=False)):
        text = f"{name}  {readable(_mean(series.values), canvas.panel.unit)}"
        width = 22 + 5.3 * len(text)
        if x + width > canvas.width and x > 12:
            x, line = 12.0, line + 1
        if line == LEGEND_LINES:
            canvas.text(canvas.width - 12, canvas.height - 12, f"+ {len(shown) - place}", 7, FAINT, ha="right")
            return
        y = canvas.height - 28 + 16 * line
        canvas.text(x, y, "▬", 7, colour)
        canvas.text(x + 14, y, text, 7, FAINT)
        x += width


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else 0.0


def _table(canvas: Canvas, ask: Question) -> None:
    panel = canvas.panel
    renamed = panel.columns()
    labels = [name for name in renamed if not name.startswith("Value")]
    units = {
        override["matcher"]["options"]: override["properties"][0]["value"]
        for override in panel.json["fieldConfig"]["overrides"]
    }
    columns = [heading for name, heading in renamed.items() if name.startswith("Value")]
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for heading, target in zip(columns, panel.targets, strict=True):
        for series in ask.latest(target.expr):
            key = tuple(series.labels.get(label, "") for label in labels)
            rows.setdefault(key, {})[heading] = readable(series.values[0], units[heading])
    headings = [renamed[label] for label in labels] + columns
    lines = [
        [*key, *(values.get(heading, "") for heading in columns)] for key, values in sorted(rows.items(), key=_order)
    ]
    widths = [3 + max(len(line[place]) for line in (headings, *lines)) for place in range(len(headings))]
    fitting = int((canvas.height - 60) / TABLE_PIXELS)
    x = 12.0
    for place, heading in enumerate(headings):
        canvas.text(x, 40, heading, 8, LINK, weight="bold")
        for number, line in enumerate(lines[:fitting]):
            canvas.text(x, 64 + TABLE_PIXELS * number, line[place], 8)
        x += (canvas.width - 24) * widths[place] / sum(widths)


def _order(row: tuple[tuple[str, ...], object]) -> list[tuple[float, str]]:
    """Numbers by their size."""
    return [(float(text), "") if text.isdigit() else (math.inf, text) for text in row[0]]


def _smaller(raw: BytesIO) -> bytes:
    """The same picture with a palette: a third of the bytes."""
    small = BytesIO()
    with Image.open(raw) as image:
        image.convert("RGB").quantize(255, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    sys.exit(main())
