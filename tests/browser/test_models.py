"""The view of the models: what there is and how good it is, loads and unloads, and servers that refuse some."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests import onnx_models
from tests.browser.visits import Visits, accessibility_problems
from tests.real.clients import http_status
from tests.real.conftest import MODEL_REPOSITORY, RunningServer, start
from tests.repositories import add_model

CARD = json.loads((MODEL_REPOSITORY / "lenet5" / "1" / "card.json").read_text())

POLICY = """\
[[principals]]
name = "reader"
tokens = ["sha256:{reader}"]
allow = [{{ apis = ["metadata", "model-config", "statistics", "model-repository:read"], models = ["*"] }}]

[[principals]]
name = "operator"
tokens = ["sha256:{operator}"]
allow = [{{ apis = ["metadata", "model-config", "statistics", "model-repository"], models = ["*"] }}]
"""


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[str]:
    """The address of a server of `folder`'s folder "models"."""
    server = start(folder, *flags, model_repository=folder / "models")
    try:
        yield server.http_url
    finally:
        assert server.terminate() == 0, server.log.read_text()


def section(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title, exact=True)


def listed(page: Page, name: str) -> Locator:
    return page.get_by_role("navigation", name="Models of the repository").get_by_role("link", name=name)


def test_a_model_shows_its_card_tensors_statistics_costs_and_configuration(visits: Visits) -> None:
    page = visits.open("#/models?model=lenet5")

    expect(listed(page, "lenet5 ready")).to_have_attribute("aria-current", "true")
    expect(section(page, "Model card")).to_contain_text("99.17%")
    expect(section(page, "Model card")).to_contain_text("357 of 360 right")
    expect(section(page, "Model card")).to_contain_text("recipe lenet5, seed 0, 100 epochs, on cpu")
    expect(section(page, "Model card")).to_contain_text("9 taken for 8")
    expect(section(page, "Inputs and outputs")).to_contain_text("[−1, 1, 32, 32]")
    expect(section(page, "Statistics").get_by_text("Succeeded", exact=True)).to_be_visible()
    expect(section(page, "Cost by batch").get_by_role("rowheader")).to_have_text(["1", "2", "4", "8", "16", "32", "64"])
    configuration = section(page, "Configuration")
    expect(configuration).to_contain_text("dynamic_batching: {}")
    expect(configuration).not_to_contain_text("batch_input")
    configuration.get_by_label("Show all fields").check()
    expect(configuration).to_contain_text("batch_input: []")


def test_the_confusion_matrix_is_a_table_of_the_cards_numbers(visits: Visits) -> None:
    page = visits.open("#/models?model=lenet5")

    table = page.get_by_role("group", name="Confusion matrix").get_by_role("table")
    expect(table.get_by_role("columnheader")).to_have_text(CARD["labels"])
    rows = table.get_by_role("row").filter(has=page.get_by_role("rowheader"))
    expect(rows).to_have_count(len(CARD["labels"]))
    shown = [row.get_by_role("cell").all_inner_texts() for row in rows.all()]
    assert shown == [[str(count) for count in row] for row in CARD["confusion"]]


def test_a_model_is_unloaded_and_loaded_again(visits: Visits, server: RunningServer) -> None:
    ready = f"{server.http_url}/v2/models/dbn_digits/ready"
    page = visits.open("#/models?model=dbn_digits")

    page.get_by_role("button", name="Unload").click()
    dialog = page.get_by_role("dialog", name="Unload dbn_digits?")
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_be_hidden()
    assert http_status(ready) == 200

    page.get_by_role("button", name="Unload").click()
    dialog.get_by_role("button", name="Unload").click()
    expect(page.get_by_text("dbn_digits is unloaded.")).to_be_visible()
    expect(listed(page, "dbn_digits not loaded")).to_be_visible()
    expect(section(page, "Model card")).to_have_count(0)
    assert http_status(ready) == 404

    page.get_by_role("button", name="Load", exact=True).click()
    expect(page.get_by_text("dbn_digits is loaded.")).to_be_visible()
    expect(listed(page, "dbn_digits ready")).to_be_visible()
    expect(section(page, "Model card")).to_contain_text("98.33%")
    assert http_status(ready) == 200


def test_a_model_that_is_not_there_is_named(visits: Visits) -> None:
    page = visits.open("#/models?model=nobody")
    expect(page.get_by_role("main")).to_contain_text("There is no model “nobody” on this server.")


def test_a_server_that_loads_nothing_on_request_says_so_and_why_a_model_does_not_serve(
    visits: Visits, tmp_path: Path
) -> None:
    add_model(tmp_path / "models", "affine", onnx_models.affine())
    add_model(tmp_path / "models", "broken", b"no model")
    visits.expected_statuses = {404}  # of the card that no model has here
    with serving(tmp_path) as url:
        page = visits.open("#/models", url=url)

        expect(listed(page, "affine ready")).to_have_attribute("aria-current", "true")
        expect(section(page, "Model card")).to_contain_text("there is no card.json in its version's folder")
        expect(page.get_by_role("button", name="Load again")).to_be_disabled()
        expect(page.locator(".model-controls [role=group]")).to_have_accessible_description(
            re.compile("loads its models at the start, and none on request")
        )

        listed(page, "broken unavailable").click()
        expect(page.get_by_role("alert")).to_contain_text("broken/1/model.onnx: is no ONNX model")
        expect(page.get_by_role("button", name="Load", exact=True)).to_be_disabled()


def test_a_policy_is_obeyed_with_a_token_that_can_be_forgotten(visits: Visits, tmp_path: Path) -> None:
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("reader", "operator")}
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.format(**hashes))
    add_model(tmp_path / "models", "affine", onnx_models.affine())
    visits.expected_statuses = {401, 403, 404}
    with serving(tmp_path, "--model-control-mode=explicit", "--load-model=*", f"--auth-policy={policy}") as url:
        page = visits.open("#/models", url=url)
        dialog = page.get_by_role("dialog", name="This server wants a token")
        refusal = page.get_by_role("main").get_by_role("alert")

        def show(token: str) -> None:
            dialog.get_by_label("Token").fill(token)
            dialog.get_by_role("button", name="Use it").click()

        expect(dialog).to_contain_text('Bearer realm="convoy"')
        assert accessibility_problems(page) == []
        show("nobody's")
        expect(dialog).to_contain_text('error="invalid_token"')
        show("reader")
        expect(listed(page, "affine ready")).to_be_visible()
        expect(section(page, "Configuration")).to_contain_text("max_batch_size")

        page.get_by_role("button", name="Load again").click()
        expect(refusal).to_contain_text("You may not do that here")
        page.get_by_role("button", name="Token").click()
        expect(dialog).to_contain_text("reader")
        show("operator")
        page.get_by_role("button", name="Load again").click()
        expect(page.get_by_text("affine is loaded.")).to_be_visible()
        kept = "[localStorage, sessionStorage].map((store) => Object.values(store).includes('operator'))"
        assert page.evaluate(kept) == [False, True]

        page.get_by_role("button", name="Token").click()
        dialog.get_by_role("button", name="Forget it").click()
        expect(refusal.first).to_contain_text("The server wants a token")  # each section asks anew, and is refused
        assert page.evaluate("sessionStorage.length") == 0
