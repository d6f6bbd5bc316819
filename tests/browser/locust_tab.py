"""Locust's page in a browser: a load that a person starts and ends there, and the tab of its latencies."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Locator, Page

from tests.real.locust_page import SECONDS, get, state
from tests.real.waiting import wait_until

ROW = "ModelInfer lenet5"


def latencies(url: str) -> dict[str, dict[str, Any]]:
    """What Locust has, by the rows' names."""
    return {row["name"]: row for row in json.loads(get(f"{url}/latencies"))}


def load_a_little(page: Page, url: str, least_requests: int = 1) -> Locator:
    """The tab's table after a load of two users, whom a person started and, after so many requests, stopped."""
    page.goto(url)
    page.get_by_label("Number of users").fill("2")
    page.get_by_label("Ramp up").fill("2")
    page.get_by_role("button", name="Start", exact=True).click()
    wait_until(lambda: latencies(url).get(ROW, {"requests": 0})["requests"] >= least_requests, SECONDS)
    page.get_by_role("button", name="Stop", exact=True).click()
    wait_until(lambda: state(url) == "stopped", SECONDS)
    page.reload()
    page.get_by_role("tab", name="Latencies (HDR)").click()
    return page.get_by_role("table").filter(has_text=ROW)
