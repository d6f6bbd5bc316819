"""The tab that the load tests add to Locust's page, as a person sees it."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser

from tests.browser.locust_tab import ROW, latencies, load_a_little
from tests.browser.visits import PATIENCE_MS
from tests.real.conftest import start
from tests.real.locust_page import page

SHOWN = ("requests", "failures", "min_ms", "mean_ms", "p50_ms", "p75_ms", "p90_ms", "p95_ms", "p99_ms")


def test_the_tab_shows_what_the_histograms_have(browser: Browser, tmp_path: Path) -> None:
    server = start(tmp_path, "--model-control-mode=explicit", "--load-model=lenet5")
    try:
        with page(tmp_path, f"--host={server.grpc_address}") as url:
            tab = browser.new_page()
            tab.set_default_timeout(PATIENCE_MS)
            table = load_a_little(tab, url)
            row = latencies(url)[ROW]
            shown = table.get_by_role("row").filter(has_text=ROW).get_by_role("cell").all_inner_texts()
            tab.close()
    finally:
        server.terminate()

    assert shown[:2] == ["grpc", ROW]
    assert [float(text) for text in shown[2 : 2 + len(SHOWN)]] == [row[name] for name in SHOWN]
    assert row["requests"] > 0
    assert row["failures"] == 0
