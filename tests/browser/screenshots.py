"""The pictures of docs/playground.md and docs/loadtest.md, of a server of the committed models: `make
playground-screenshots` takes them."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser import chromium, locust_tab, strokes
from tests.browser.visits import Visits
from tests.real import locust_page
from tests.real.conftest import ROOT, RunningServer, start

FOLDER = ROOT / "docs" / "images"
MOST_BYTES = 150_000
CONVOY = {"width": 1080, "height": 710}
LOCUST = {"width": 1280, "height": 350}


def draw_a_digit(page: Page) -> None:
    strokes.draw(page, "3")
    expect(page.locator(".bars li").first).to_contain_text("3")


def see_a_card(page: Page) -> None:
    expect(page.locator(".matrix")).to_be_visible()


SHOW_THE_ROAD = "scrollTo(0, document.querySelector('.convoy').getBoundingClientRect().top + scrollY - 72)"


def overload_a_window(page: Page) -> None:
    page.set_viewport_size(CONVOY)
    page.emulate_media(reduced_motion="no-preference")
    page.get_by_label("Load, in multiples").fill("2")
    page.get_by_role("button", name="Start the load").click()
    expect(page.locator("[data-reading=windowFull]")).to_be_visible()
    expect(page.locator("[data-figure=goodput] .tile-value")).to_have_text("0")
    page.evaluate(SHOW_THE_ROAD)


def overload_an_objective(page: Page) -> None:
    page.set_viewport_size(CONVOY)
    page.emulate_media(reduced_motion="no-preference")
    page.locator("input[value=slo]").check()
    expect(page.locator("[data-policy=slo]")).to_be_visible()
    page.get_by_label("Load, in multiples").fill("2")
    page.get_by_role("button", name="Start the load").click()
    expect(page.locator("[data-reading=sloRefuses]")).to_be_visible()
    expect(page.locator("[data-figure=p99]")).to_contain_text(" ms")
    # The first rates are of the first moments of the load.
    expect(page.locator("[data-figure=goodput] .tile-value")).to_have_text(re.compile(r"^[3-9]\d\d$"), timeout=30_000)
    page.evaluate(SHOW_THE_ROAD)


def step_to_the_seven(page: Page) -> None:
    expect(page.locator(".agrees")).to_be_visible()
    page.get_by_role("button", name="W0, row 2, column 2").click()
    expect(page.locator(".convolution-total strong")).to_have_text("7")


def look_inside(page: Page) -> None:
    expect(page.locator(".bars li").first).to_contain_text("3")
    page.locator("[data-layer=convolution_1] li").nth(4).click()


def look_further_inside(page: Page) -> None:
    look_inside(page)
    page.get_by_role("button", name="c3").click()
    page.locator("[data-layer=convolution_2] li").nth(4).click()


class Shot(NamedTuple):
    """One picture."""

    place: str
    how: dict[str, Any]
    """How it is opened."""
    prepare: Callable[[Page], None]
    """What is done in it."""
    whole: bool = True
    """Or the part that a person sees first."""


SHOTS: Mapping[str, Shot] = {
    "draw": Shot("#/draw", {}, draw_a_digit),
    "draw-phone": Shot("#/draw", {"phone": True, "dark": True, "language": "pt"}, draw_a_digit),
    "layers": Shot("#/layers", {}, look_inside, whole=False),
    "layers-phone": Shot("#/layers", {"phone": True, "dark": True, "language": "pt"}, look_further_inside, whole=False),
    "convolution": Shot("#/convolution", {}, step_to_the_seven),
    "models": Shot("#/models?model=lenet5", {}, see_a_card, whole=False),
    "convoy-window": Shot("#/convoy", {}, overload_a_window, whole=False),
    "convoy-slo": Shot("#/convoy", {"dark": True}, overload_an_objective, whole=False),
}
"""By the file's name."""


def take(page: Page, path: Path, whole: bool) -> None:
    page.screenshot(path=path, full_page=whole, animations="disabled")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")
    if path.stat().st_size > MOST_BYTES:
        sys.exit(f"{path} has more than {MOST_BYTES:,} bytes")


def take_latencies(browser: Browser, folder: Path, server: RunningServer) -> None:
    """The tab of latencies on Locust's page."""
    with locust_page.page(folder, f"--host={server.grpc_address}") as url:
        page = browser.new_page(viewport=LOCUST)
        expect(locust_tab.load_a_little(page, url, least_requests=2000)).to_be_visible()
        take(page, FOLDER / "locust-latencies.png", whole=False)


def main() -> None:
    found = chromium.find()
    if found is None:
        sys.exit("there is no Chromium: `make system-packages` gets it")
    program, environment = found
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = start(Path(folder), "--model-control-mode=explicit", "--load-model=*")
        try:
            browser = playwright.chromium.launch(executable_path=program, env=environment, args=chromium.ARGUMENTS)
            for name, (place, how, prepare, whole) in SHOTS.items():
                visits = Visits(browser, server.http_url)
                page = visits.open(place, **how)
                prepare(page)
                path = FOLDER / f"playground-{name}.png"
                take(page, path, whole)
                if complaints := visits.close():
                    sys.exit("\n".join(complaints))
            take_latencies(browser, Path(folder), server)
            browser.close()
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
