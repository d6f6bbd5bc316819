"""Every view in both themes, at two widths and in both languages: by axe's rules, and with nothing cut off."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser import strokes
from tests.browser.drawing import best
from tests.browser.visits import DESKTOP, PHONE, Visits, accessibility_problems, cut_off


def draw_a_digit(page: Page) -> None:
    strokes.draw(page, "3")
    expect(best(page)).to_have_text("3")


def see_the_filters(page: Page) -> None:
    page.locator(".layer-filters button").click()
    expect(page.locator(".layer-filter-tables table").first).to_be_visible()
    expect(best(page)).to_have_text("A")


def compare_with_the_server(page: Page) -> None:
    expect(page.locator(".agrees")).to_be_visible()


def watch(page: Page) -> None:
    expect(page.locator(".tile").first).to_be_visible()
    expect(page.locator("[data-reading=idle]")).to_be_visible()


def see_a_model(page: Page) -> None:
    for part in (".json", ".matrix", "#costs-title ~ .scrolls", "#statistics-title ~ .figures"):
        expect(page.locator(part).first).to_be_visible()


VIEWS: dict[str, Callable[[Page], None]] = {
    "draw": draw_a_digit,
    "layers?model=letters26": see_the_filters,
    "convolution": compare_with_the_server,
    "convoy": watch,
    "models?model=lenet5": see_a_model,
}


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_accessible_in_both_themes_on_a_desktop_and_on_a_phone(visits: Visits, view: str) -> None:
    page = visits.open(f"#/{view}")
    VIEWS[view](page)

    for language, size in (("en", DESKTOP), ("pt", PHONE)):
        page.locator("select.language").select_option(language)
        expect(page.locator("html")).to_have_attribute("lang", language)
        page.set_viewport_size(size)
        assert cut_off(page) == []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert accessibility_problems(page) == [], f"{scheme}, {language}"
