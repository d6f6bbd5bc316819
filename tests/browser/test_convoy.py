"""The convoy view: a load is offered, batches are seen, and an objective changes what becomes of an overload."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from playwright.sync_api import Page, expect

from tests.browser.visits import PATIENCE_MS, Visits, accessibility_problems
from tests.real.conftest import MODEL_REPOSITORY, RunningServer, start
from tests.real.waiting import wait_until

MODEL = "lenet5_modern"
OBJECTIVE_MS = 200
"""Far more than a batch takes on a busy machine, and far less than a full queue does on a quick one."""


MANY = 1e9

IN_RANGE = """([name, least, most]) => {
  const text = document.querySelector(`[data-figure=${name}] .tile-value`)?.textContent ?? "";
  const value = parseFloat(text.replaceAll(",", "")) * (text.endsWith(" s") ? 1000 : 1);
  return least <= value && value <= most;
}"""


def wait_for_figure(page: Page, name: str, least: float, most: float) -> None:
    """Return once a figure of the moment, as a person reads it, is in this range; times in milliseconds."""
    page.wait_for_function(IN_RANGE, arg=[name, least, most], timeout=PATIENCE_MS)


def answer(server: RunningServer, path: str) -> Any:
    with urlopen(server.http_url + path, timeout=30) as response:
        return json.load(response)


def load_runs(server: RunningServer) -> bool:
    return bool(answer(server, "/v2/playground/load")["running"])


def is_as_in_its_folder(server: RunningServer) -> bool:
    config = answer(server, f"/v2/models/{MODEL}/config")
    return config["max_batch_size"] == 64 and "slo_ms" not in config["parameters"]


def offer(page: Page, factor: str) -> None:
    page.get_by_label("Load, in multiples").fill(factor)
    page.get_by_role("button", name="Start the load").click()


def test_an_objective_keeps_answers_in_time_where_a_window_lets_all_be_late(
    visits: Visits, server: RunningServer
) -> None:
    page = visits.open("#/convoy")
    expect(page.get_by_label("Model", exact=True)).to_have_value(MODEL)
    page.get_by_label("Objective, in milliseconds").fill(str(OBJECTIVE_MS))

    offer(page, "3")
    expect(page.locator("[data-policy=window]")).to_be_visible()
    expect(page.locator("[data-reading=windowFull]")).to_be_visible()
    expect(page.locator("[data-reason=queue_full]")).to_be_visible()
    wait_for_figure(page, "waiting", 500, MANY)
    wait_for_figure(page, "goodput", 0, 0)
    wait_for_figure(page, "p99", OBJECTIVE_MS, MANY)
    expect(page.get_by_role("table").last.locator("tbody tr").first).to_be_visible()
    expect(page.locator("[data-batches='0']")).to_have_count(0)

    page.get_by_role("radio", name=re.compile("Latency objective")).check()
    expect(page.locator("[data-policy=slo]")).to_be_visible()
    expect(page.locator("[data-reading=sloRefuses]")).to_be_visible()
    expect(page.locator("[data-reason=overloaded]")).to_be_visible()
    wait_for_figure(page, "waiting", 0, 400)
    wait_for_figure(page, "goodput", 1, MANY)
    assert accessibility_problems(page) == []

    page.get_by_role("button", name="Stop the load").click()
    expect(page.get_by_role("button", name="Start the load")).to_be_visible()
    assert not load_runs(server)
    page.get_by_role("button", name="Give it back now").click()
    wait_until(lambda: is_as_in_its_folder(server), PATIENCE_MS / 1000)


def test_who_leaves_takes_the_load_and_the_policy_along(visits: Visits, server: RunningServer) -> None:
    page = visits.open("#/convoy", phone=True, dark=True, language="pt-PT")
    page.get_by_label("Carga, em múltiplos").fill("0.5")
    page.get_by_role("button", name="Iniciar a carga").click()
    expect(page.get_by_role("button", name="Parar a carga")).to_be_visible()
    expect(page.locator("tbody tr").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert accessibility_problems(page) == []
    assert load_runs(server)

    page.get_by_role("navigation").get_by_role("link", name="Desenhar").click()

    wait_until(lambda: not load_runs(server) and is_as_in_its_folder(server), PATIENCE_MS / 1000)


@pytest.fixture
def fixed_server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server whose models nobody changes."""
    root = tmp_path / "models"
    root.mkdir()
    (root / MODEL).symlink_to(MODEL_REPOSITORY / MODEL)
    server = start(tmp_path, model_repository=root)
    yield server
    assert server.terminate() == 0, server.log.read_text()


def test_a_server_that_changes_no_models_is_watched_as_it_is(visits: Visits, fixed_server: RunningServer) -> None:
    page = visits.open("#/convoy", url=fixed_server.http_url)

    offer(page, "0.5")

    expect(page.get_by_text("This server loads no models on request")).to_be_visible()
    expect(page.get_by_role("radio").first).to_be_disabled()
    expect(page.get_by_role("button", name="Stop the load")).to_be_visible()
    expect(page.get_by_role("table").last.locator("tbody tr").first).to_be_visible()
    page.close()  # before the server stops, which it would complain about


def test_a_server_that_was_started_anew_is_not_taken_for_the_one_before(visits: Visits, server: RunningServer) -> None:
    page = visits.open("#/convoy")
    offer(page, "0.1")
    expect(page.get_by_role("button", name="Give it back now")).to_be_visible()
    expect(page.get_by_role("button", name="Stop the load")).to_be_visible()

    visits.may_lose_the_server = True
    page.route("**/v2/**", lambda route: route.abort())
    expect(page.get_by_text("The server does not answer").first).to_be_visible()
    expect(page.locator("[data-reading='']")).to_be_attached()
    assert page.request.delete(f"{server.http_url}/v2/playground/load").ok
    assert page.request.post(f"{server.http_url}/v2/repository/models/{MODEL}/load").ok
    page.unroute("**/v2/**")

    expect(page.get_by_role("button", name="Start the load")).to_be_visible()
    expect(page.get_by_role("button", name="Give it back now")).to_have_count(0)
    expect(page.locator("[data-reading=idle]")).to_be_visible()
    assert not load_runs(server)
