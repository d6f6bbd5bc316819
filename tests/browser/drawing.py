"""What tests do on the view to draw in, and where its answer is."""

from __future__ import annotations

import base64

from playwright.sync_api import Locator, Page

DROP = """([paper, [base64, type, event]]) => {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "file", { type }));
  const init = { bubbles: true, cancelable: true };
  if (event === "paste") window.dispatchEvent(new ClipboardEvent("paste", { ...init, clipboardData: transfer }));
  else paper.dispatchEvent(new DragEvent("drop", { ...init, dataTransfer: transfer }));
}"""


def give(page: Page, file: bytes, event: str = "drop") -> None:
    """Drop a file on the paper, or paste it."""
    paper = page.locator(".paper").element_handle()
    page.evaluate(DROP, [paper, [base64.b64encode(file).decode(), "image/png", event]])


def best(page: Page) -> Locator:
    """The label of the best class."""
    return page.locator(".bars li .bar-label").first
