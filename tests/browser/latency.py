"""How long it takes from the hand's movement until its answer is on the screen: `python -m tests.browser.latency`.

The page measures it for every answer that it shows. Headless Chromium draws without a GPU, on the same cores as the
server, so that a desktop is rather quicker.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from tests.browser import chromium, strokes
from tests.browser.visits import Visits
from tests.real.conftest import start

MODELS = ("lenet5", "lenet5_modern", "dbn_digits", "letters26")
DRAWN = ("3", "0", "2", "A")
REMEMBER = """() => {
  window.shown = [];
  new MutationObserver(() => {
    const milliseconds = Number(document.querySelector("[data-shown]")?.dataset.shown);
    if (milliseconds && window.shown.at(-1) !== milliseconds) window.shown.push(milliseconds);
  }).observe(document.body, { subtree: true, childList: true, attributes: true });
}"""


def measure(page: Page) -> list[float]:
    """Milliseconds of every answer while a few characters are drawn."""
    expect(page.get_by_label("Model", exact=True)).to_be_visible()
    page.evaluate(REMEMBER)
    for name in DRAWN:
        strokes.draw(page, name)
        expect(page.locator("[data-shown]")).to_be_visible()
        page.get_by_role("button", name="Clear").click()
    return sorted(page.evaluate("window.shown"))


def main() -> None:
    found = chromium.find()
    if found is None:
        sys.exit("there is no Chromium: `make system-packages` gets it")
    program, environment = found
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = start(Path(folder))
        try:
            browser = playwright.chromium.launch(executable_path=program, env=environment, args=chromium.ARGUMENTS)
            for model in MODELS:
                times = measure(Visits(browser, server.http_url).open(f"#/draw?model={model}"))
                tenth = times[int(0.9 * len(times))]
                print(
                    f"{model:14} {len(times):4} answers, median {statistics.median(times):5.1f} ms, p90 {tenth:5.1f} ms"
                )
            browser.close()
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
