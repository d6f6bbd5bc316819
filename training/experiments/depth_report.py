"""The results of the depth experiment for people: a CSV with every network, two tables in Markdown, a plot."""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.experiments.depth import Design, Result
from training.files import write_atomically
from training.runs import versions

COLOURS = {"plain": "tab:gray", "scaled": "tab:orange", "dbn": "tab:blue", "sdae": "tab:green"}


def write(folder: Path, design: Design, results: Sequence[Result], seconds: float) -> None:
    """`results.csv`, `report.md` and `accuracy.png`."""
    write_atomically(folder / "results.csv", to_csv(results).encode())
    write_atomically(folder / "report.md", to_markdown(design, results, seconds).encode())
    write_atomically(folder / "accuracy.png", to_png(design, results))


def to_csv(results: Sequence[Result]) -> str:
    """One line for each trained network, under the names of `Result`'s fields."""
    text = io.StringIO()
    names = [field.name for field in dataclasses.fields(Result)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for result in results:
        row = dataclasses.asdict(result)
        writer.writerow({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()})
    return text.getvalue()


def to_markdown(design: Design, results: Sequence[Result], seconds: float) -> str:
    """The settings and both comparisons; cells are mean ± standard deviation over the seeds, in %."""
    parts = [
        "# Accuracy by depth, with and without pre-training",
        "",
        "Made by `python -m training experiment depth`; what is compared with what: `training/experiments/depth.py`.",
        f"Held-out accuracy in %, mean ± standard deviation over {design.seeds} seeds.",
        f"{design.steps} steps of {design.batch_size} digits, pre-training {design.pretraining_epochs} epochs a layer.",
        f"{seconds:.0f} s with torch {versions()['torch']} on one thread.",
        "",
        f"## By depth, {design.width} units a layer",
        "",
        *_table(
            ("labels", "layers", "parameters"),
            design.starts,
            [
                (
                    (labelled, depth),
                    [r for r in results if r.twin_of is None and (r.labelled, r.depth) == (labelled, depth)],
                )
                for labelled in design.labelled
                for depth in design.depths
            ],
        ),
    ]
    if design.twins:
        parts += [
            "",
            "## Deep against shallow, as many parameters",
            "",
            *_table(
                ("labels", "layers × width", "parameters"),
                design.starts,
                [
                    ((labelled, f"{chosen[0].depth} × {chosen[0].width}"), chosen)
                    for labelled in design.labelled
                    for depth in design.twins
                    for chosen in (
                        [r for r in results if r.labelled == labelled and r.depth == depth and r.twin_of is None],
                        [r for r in results if r.labelled == labelled and r.twin_of == depth],
                    )
                    if chosen
                ],
            ),
        ]
    return "\n".join(parts) + "\n"


def to_png(design: Design, results: Sequence[Result]) -> bytes:
    """One column for each number of labels, below it the same from 80 % up. Bars are one deviation each way."""
    columns = len(design.labelled)
    figure = Figure(figsize=(4 * columns + 1, 7), layout="constrained")
    panels = figure.subplots(2, columns, sharex=True, sharey="row", squeeze=False)
    for column, labelled in enumerate(design.labelled):
        for axes in panels[:, column]:
            for place, start in enumerate(design.starts):
                chosen = [result for result in results if (result.start, result.labelled) == (start, labelled)]
                aside = 0.1 * (place - (len(design.starts) - 1) / 2)  # bars beside each other, not on top
                _draw(axes, chosen, aside, start)
            axes.grid(alpha=0.3)
        panels[0, column].set(title=f"{labelled} labels")
        panels[1, column].set(ylim=(80, 100), xlabel="hidden layers (□: one layer, as many parameters)")
    panels[0, 0].set(ylabel="held-out accuracy (%)")
    panels[1, 0].set(ylabel="the same, from 80 %")
    panels[0, -1].legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _draw(axes: Axes, results: Sequence[Result], aside: float, start: str) -> None:
    """One start in one panel: a line by depth, and open squares for the shallow twins."""
    colour = COLOURS[start]
    for twins, marks, inside, label in ((False, "o-", colour, start), (True, "s", "white", None)):
        depths, means, deviations = _points([result for result in results if (result.twin_of is not None) == twins])
        where = [depth + aside for depth in depths]
        axes.errorbar(where, means, deviations, fmt=marks, mfc=inside, color=colour, label=label, capsize=2, ms=4)


def _points(results: Sequence[Result]) -> tuple[list[int], list[float], list[float]]:
    """Where, mean and deviation; a twin stands at the depth that it is compared with."""
    depths = sorted({result.twin_of or result.depth for result in results})
    groups = [[100 * r.held_out_accuracy for r in results if (r.twin_of or r.depth) == depth] for depth in depths]
    return depths, [statistics.mean(group) for group in groups], [statistics.stdev(group) for group in groups]


def _table(
    heads: tuple[str, ...], starts: Sequence[str], rows: Sequence[tuple[tuple[object, ...], Sequence[Result]]]
) -> list[str]:
    lines = [f"| {' | '.join((*heads, *starts))} |", "|" + "---|" * (len(heads) + len(starts))]
    for keys, results in rows:
        cells = [cell([result.held_out_accuracy for result in results if result.start == start]) for start in starts]
        lines.append(f"| {' | '.join((*map(str, keys), f'{results[0].parameters:,}', *cells))} |")
    return lines


def cell(accuracies: Sequence[float]) -> str:
    """Mean ± standard deviation in %, from fractions."""
    mean, deviation = 100 * statistics.mean(accuracies), 100 * statistics.stdev(accuracies)
    return f"{mean:.1f} ± {deviation:.1f}"
