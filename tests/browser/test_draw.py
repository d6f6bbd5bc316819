"""The view to draw in, with the committed networks: what a hand draws is recognised, wherever it is on the paper."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Page, Route, expect

from tests.browser import strokes
from tests.browser.drawing import best, give
from tests.browser.visits import Visits
from tests.pictures import encoded

COLOURS = "bar => [bar, bar.firstElementChild].map(part => getComputedStyle(part).backgroundColor)"
"""Of a bar's track, and of what is filled of it."""


def share(page: Page, rank: int) -> float:
    """How long the bar of that rank is, as a part of what it can be."""
    bar = page.locator(".bar").nth(rank)
    return bar.evaluate("bar => bar.firstElementChild.offsetWidth / bar.clientWidth")


@pytest.mark.parametrize(
    ("model", "character", "size", "corner"),
    [
        ("lenet5", "4", 1.0, (0.0, 0.0)),
        ("lenet5_modern", "3", 0.4, (0.55, 0.5)),
        ("dbn_digits", "0", 0.5, (0.0, 0.4)),
        ("letters26", "A", 0.7, (0.3, 0.0)),
    ],
)
def test_what_the_mouse_draws_is_recognised(
    visits: Visits, model: str, character: str, size: float, corner: tuple[float, float]
) -> None:
    page = visits.open(f"#/draw?model={model}")

    expect(page.get_by_label("Model", exact=True)).to_have_value(model)
    strokes.draw(page, character, size=size, at=corner)

    expect(best(page)).to_have_text(character)
    expect(page.locator(".bars li")).to_have_count(5)
    assert share(page, 0) > 0.9 > 0.1 > share(page, 1)
    track, filled = page.locator(".bar").first.evaluate(COLOURS)
    assert track != filled
    expect(page.locator(".times")).to_contain_text("ms from hand to screen")


def test_the_answer_follows_the_drawing(visits: Visits) -> None:
    page = visits.open("#/draw?model=lenet5")

    strokes.draw(page, "7")
    expect(best(page)).to_have_text("7")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".bars")).to_have_count(0)
    strokes.draw(page, "0")
    expect(best(page)).to_have_text("0")
    strokes.draw(page, "T")
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").click()
    expect(best(page)).to_have_text("0")
    page.get_by_label("Model", exact=True).select_option("letters26")
    expect(best(page)).to_have_text("O")


def test_a_hand_that_is_quicker_than_the_list_of_models_is_answered(visits: Visits) -> None:
    page = visits.open("#/models")
    waiting: list[Route] = []
    drawn = False

    def hold(route: Route) -> None:
        if drawn:
            route.continue_()
        else:
            waiting.append(route)

    page.route("**/v2/repository/index", hold)
    page.get_by_role("navigation").get_by_role("link", name="Draw").click()
    strokes.draw(page, "7")
    expect(page.locator(".bars")).to_have_count(0)
    drawn = True
    for route in waiting:
        route.continue_()

    expect(best(page)).to_have_text("7")


def test_a_keyboard_can_do_it_too(visits: Visits) -> None:
    page = visits.open("#/draw?model=letters26")
    paper = page.get_by_label("Paper:")

    paper.press("K")
    expect(best(page)).to_have_text("K")
    paper.press("Escape")
    expect(page.locator(".bars")).to_have_count(0)
    page.get_by_label("Model", exact=True).select_option("lenet5")
    page.get_by_role("button", name="A handwritten 6").press("Enter")
    expect(best(page)).to_have_text("6")


def test_a_finger_draws_without_moving_the_page(visits: Visits) -> None:
    page = visits.open("#/draw?model=lenet5", phone=True)
    canvas = page.locator(".paper-sheet canvas")

    assert canvas.evaluate("canvas => getComputedStyle(canvas).touchAction") == "none"
    box = canvas.bounding_box()
    assert box is not None
    touch = page.context.new_cdp_session(page)
    points = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in strokes.STROKES["7"][0]]
    for kind, places in (
        ("touchStart", points[:1]),
        *(("touchMove", [point]) for point in points[1:]),
        ("touchEnd", []),
    ):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in places]})

    expect(best(page)).to_have_text("7")


def chalk_digit() -> bytes:
    """A seven in a corner of a dark board, as PNG."""
    image = Image.new("RGB", (300, 200), (30, 60, 40))
    ImageDraw.Draw(image).line([(30, 40), (110, 40), (60, 150)], fill=(235, 235, 220), width=14, joint="curve")
    return encoded(image)


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_an_image_is_taken_for_its_ink(visits: Visits, event: str) -> None:
    page = visits.open("#/draw?model=lenet5")

    give(page, chalk_digit(), event)

    expect(best(page)).to_have_text("7")


def test_what_is_no_image_is_said_so(visits: Visits) -> None:
    page = visits.open("#/draw")

    page.locator("input[type=file]").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"no image"})
    expect(page.get_by_role("status").filter(has_text="no image that the browser can show")).to_be_visible()
    give(page, chalk_digit())
    expect(best(page)).to_be_visible()
    expect(page.get_by_text("no image that the browser can show")).to_have_count(0)


def test_it_speaks_portuguese(visits: Visits) -> None:
    page = visits.open("#/draw", language="pt-PT")

    expect(page.locator("h1")).to_have_text("Desenhe alguma coisa")
    strokes.draw(page, "2")
    expect(page.locator(".times")).to_contain_text("ms da mão ao ecrã")
    expect(page.locator(".bar-share").first).to_contain_text(",")
