"""A real browser on a real server: one of each for the tests of a file, and a fresh profile for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser import chromium
from tests.browser.visits import Visits
from tests.real.conftest import RunningServer, start


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The committed models, all loaded, as `make serve` has them. Tests put back what they change."""
    server = start(tmp_path_factory.mktemp("server"), "--model-control-mode=explicit", "--load-model=*")
    yield server
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for the session: Playwright's event loop would be running in later tests of other files."""
    found = chromium.find()
    if found is None:
        pytest.skip("there is no Chromium: `make system-packages` gets it")
    program, environment = found
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, env=environment, args=chromium.ARGUMENTS, headless=True
        )
        yield browser
        browser.close()


@pytest.fixture
def visits(browser: Browser, server: RunningServer) -> Iterator[Visits]:
    """Opens pages of `server`. The test fails where one of them complains, or asks another host."""
    visits = Visits(browser, server.http_url)
    yield visits
    complaints = visits.close()
    assert complaints == []
