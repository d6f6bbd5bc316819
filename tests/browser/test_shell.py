"""The shell around the views: where one is, by the address; languages; keyboards; tokens."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.visits import Visits

VIEWS = ("layers", "convolution", "convoy", "models", "draw")


def test_every_view_has_an_address_and_a_link(visits: Visits) -> None:
    page = visits.open()

    for name in VIEWS:
        link = page.get_by_role("navigation").locator(f"a[href='#/{name}']")
        link.click()
        expect(link).to_have_attribute("aria-current", "page")
        expect(page).to_have_title(re.compile(re.escape(link.inner_text())))
        expect(page.locator("main")).to_be_focused()


def test_it_speaks_the_browsers_language_and_keeps_the_one_that_is_chosen(visits: Visits) -> None:
    page = visits.open(language="pt-BR")

    expect(page.locator("html")).to_have_attribute("lang", "pt")
    expect(page.get_by_role("navigation")).to_contain_text("Desenhar")
    page.get_by_label("Língua").select_option("en")
    expect(page.get_by_role("navigation")).to_contain_text("Draw")
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_a_keyboard_reaches_the_content_past_the_navigation(visits: Visits) -> None:
    page = visits.open("#/models")

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.locator("main")).to_be_focused()
