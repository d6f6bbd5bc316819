"""Pages that a test has open, and everything that they must not do meanwhile."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

PATIENCE_MS = 60_000
"""How long to wait for a state that will come: the machine may be busy with other tests."""
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}
LOCAL_SCHEMES = ("data", "blob")

AXE_OPTIONS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"], "resultTypes": ["violations"]}

expect.set_options(timeout=PATIENCE_MS)


class Visits:
    """Opens pages, each with a profile of its own."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self._url = url
        self._host = urlsplit(url).netloc
        self._contexts: list[BrowserContext] = []
        self._complaints: list[str] = []
        self.expected_statuses: set[int] = set()
        """Errors of the server that the test provokes, which a browser writes to its console."""
        self.may_lose_the_server = False
        """Whether requests without an answer are provoked, which a browser writes there too."""

    def open(
        self, place: str = "", *, language: str = "en-GB", dark: bool = False, phone: bool = False, url: str = ""
    ) -> Page:
        """A page at `place`, "#/draw" or the like, once its view is there. `url`: of another server."""
        context = self._browser.new_context(
            locale=language,
            color_scheme="dark" if dark else "light",
            viewport=PHONE if phone else DESKTOP,
            has_touch=phone,
            reduced_motion="reduce",
        )
        self._contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        host = urlsplit(url or self._url).netloc
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._complaints.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._on_request(request, host))
        page.goto(f"{url or self._url}/{place}")
        expect(page.locator("main h1")).to_be_visible()
        return page

    def close(self) -> list[str]:
        """Close all, and return what the pages complained about."""
        for context in self._contexts:
            context.close()
        return self._complaints

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        if any(f"status of {status} " in message.text for status in self.expected_statuses):
            return
        if self.may_lose_the_server and "net::ERR_FAILED" in message.text:
            return
        self._complaints.append(f"{message.type} in the console: {message.text}")

    def _on_request(self, request: Request, host: str) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in LOCAL_SCHEMES and parts.netloc != host:
            self._complaints.append(f"a request to another host: {request.url}")


def accessibility_problems(page: Page) -> list[str]:
    """What axe finds wrong, by the rules of WCAG 2.1 AA and good practice: a line for each element."""
    violations: list[dict[str, Any]] = Axe().run(page, options=AXE_OPTIONS).response["violations"]
    return [
        f"{violation['id']}: {node['target']}: {node['failureSummary']}"
        for violation in violations
        for node in violation["nodes"]
    ]


CUT_OFF = """() => [...document.querySelectorAll("header *, main *")].filter((each) => {
  if (!each.checkVisibility() || each.closest(".scrolls, .unseen, .skip")) return false;
  const isOutside = each.getBoundingClientRect().right > innerWidth + 1;
  return isOutside || (each.matches("button, a, label, h1, h2, h3, dt") && each.scrollWidth > each.clientWidth + 1
    && getComputedStyle(each).display !== "inline");
}).map((each) => `${each.tagName} ${each.className}: ${each.textContent.slice(0, 40)}`)"""


def cut_off(page: Page) -> list[str]:
    """What reaches beyond the window, and the words that are wider than their button or the like: a line for each."""
    found: list[str] = page.evaluate(CUT_OFF)
    return found
