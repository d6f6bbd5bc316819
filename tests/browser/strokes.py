"""Digits and letters as a hand draws them, stroke by stroke, in shares of the paper; and the mouse that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import cos, pi, sin

from playwright.sync_api import Page

Strokes = Sequence[Sequence[tuple[float, float]]]


def arc(
    x: float, y: float, rx: float, ry: float, start: float, end: float, points: int = 14
) -> list[tuple[float, float]]:
    """Part of an ellipse, from and to an angle in turns: 0 to the right, a quarter at the bottom."""
    angles = [2 * pi * (start + (end - start) * i / (points - 1)) for i in range(points)]
    return [(x + rx * cos(angle), y + ry * sin(angle)) for angle in angles]


STROKES: Mapping[str, Strokes] = {
    "0": [arc(0.5, 0.5, 0.2, 0.32, 0.75, 1.75, 24)],
    "2": [[*arc(0.5, 0.32, 0.17, 0.15, 0.5, 1.12), (0.33, 0.78), (0.68, 0.78)]],
    "3": [[*arc(0.48, 0.34, 0.17, 0.15, 0.6, 1.25), *arc(0.48, 0.65, 0.2, 0.17, 0.75, 1.4)]],
    "4": [[(0.55, 0.2), (0.3, 0.58), (0.72, 0.58)], [(0.6, 0.4), (0.58, 0.82)]],
    "7": [[(0.3, 0.22), (0.7, 0.22), (0.45, 0.82)]],
    "A": [[(0.3, 0.8), (0.5, 0.2), (0.7, 0.8)], [(0.38, 0.6), (0.62, 0.6)]],
    "T": [[(0.28, 0.22), (0.72, 0.22)], [(0.5, 0.22), (0.5, 0.8)]],
}


def draw(page: Page, name: str, *, size: float = 1.0, at: tuple[float, float] = (0.0, 0.0)) -> None:
    """Draw with the mouse, as large and from that corner of the paper."""
    box = page.locator(".paper-sheet canvas").bounding_box()
    assert box is not None
    for stroke in STROKES[name]:
        places = [
            (box["x"] + box["width"] * (at[0] + size * x), box["y"] + box["height"] * (at[1] + size * y))
            for x, y in stroke
        ]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place)
        page.mouse.up()
