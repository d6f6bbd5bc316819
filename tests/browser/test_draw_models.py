"""The view to draw in, with models of other kinds, and with servers that do not answer as one would like."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from server.access.tokens import digest_of, shown
from tests import onnx_models
from tests.browser import strokes
from tests.browser.drawing import best, give
from tests.browser.visits import Visits
from tests.pictures import encoded
from tests.real.clients import wait_for_pending
from tests.real.conftest import RunningServer, start
from tests.real.zoo import held
from tests.repositories import add_model

LABELS = {"labels.txt": "red\ngreen\nblue\n"}
OUTPUT = 'output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" }'
PLANES = 'input { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 16, 24 ] }'
PIXELS = """
parameters { key: "image.resize" value { string_value: "16x24" } }
parameters { key: "image.scale" value { string_value: "1/255" } }
"""
CHANNELS_LAST = 'input { name: "x" data_type: TYPE_FP32 format: FORMAT_NHWC dims: [ 16, 24, 3 ] }'
BATCHED = "max_batch_size: 8"

TOKEN = "a-token-of-a-painter-who-is-let-in"
POLICY = f"""
[[principals]]
name = "painter"
tokens = ["{shown(digest_of(TOKEN))}"]

[[principals.allow]]
apis = ["metadata", "model-config", "model-repository", "inference"]
models = ["*"]
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    planes, last = onnx_models.mean_colour(16, 24), onnx_models.mean_colour(16, 24, channels_last=True)
    add_model(root, "pixels", planes, "\n".join((BATCHED, PLANES, OUTPUT, PIXELS)), files=LABELS)
    add_model(root, "tensors", last, "\n".join((BATCHED, CHANNELS_LAST, OUTPUT)), files=LABELS)
    add_model(root, "full", planes, "\n".join((held("max_queue_size: 1"), PLANES, OUTPUT)), files=LABELS)
    add_model(root, "affine", onnx_models.affine(), BATCHED)
    return root


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    flags = ("--model-control-mode=explicit", "--load-model=*")
    server = start(tmp_path_factory.mktemp("server"), *flags, model_repository=root)
    yield server
    assert server.terminate() == 0, server.log.read_text()


def post(server: RunningServer, path: str) -> None:
    with urlopen(Request(f"{server.http_url}/{path}", b"", method="POST"), timeout=60) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("model", ["pixels", "tensors"])
def test_a_colour_model_gets_the_colours_of_an_image(visits: Visits, model: str) -> None:
    page = visits.open(f"#/draw?model={model}")

    for colour in ("green", "red", "blue"):
        give(page, encoded(Image.new("RGB", (90, 60), colour)))
        expect(best(page)).to_have_text(colour)
    expect(page.get_by_label("Move the ink")).to_have_count(0)
    expect(page.locator(".seen")).to_contain_text("16 × 24 pixels")


def test_only_classifiers_of_pictures_are_offered(visits: Visits) -> None:
    page = visits.open("#/draw")

    expect(page.get_by_label("Model", exact=True).locator("option")).to_have_text(["full", "pixels", "tensors"])


def test_a_link_to_what_is_no_classifier_says_that_another_one_is_shown(visits: Visits) -> None:
    page = visits.open("#/draw?model=affine")

    expect(page.get_by_text("“affine” does not serve here")).to_be_visible()
    expect(page.get_by_label("Model", exact=True)).to_have_value("full")


def test_a_model_that_goes_is_missed_and_found_when_it_comes_back(visits: Visits, server: RunningServer) -> None:
    page = visits.open("#/draw?model=pixels")
    visits.expected_statuses = {400, 404, 503}
    expect(page.get_by_label("Model", exact=True)).to_have_value("pixels")

    post(server, "v2/repository/models/pixels/unload")
    strokes.draw(page, "3")
    expect(page.locator(".answers .notice")).to_contain_text("pixels")
    post(server, "v2/repository/models/pixels/load")
    expect(page.locator(".bars")).to_be_visible()
    expect(page.locator(".answers .notice")).to_have_count(0)


def test_a_repository_without_classifiers_says_so(visits: Visits, server: RunningServer) -> None:
    for model in ("pixels", "tensors", "full"):
        post(server, f"v2/repository/models/{model}/unload")
    page = visits.open("#/draw?model=pixels")
    expect(page.get_by_text("No classifier is loaded")).to_be_visible()
    for model in ("pixels", "tensors", "full"):
        post(server, f"v2/repository/models/{model}/load")
    page.get_by_role("button", name="Look again").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("pixels")


def test_a_full_queue_is_told_as_that(visits: Visits, server: RunningServer) -> None:
    page = visits.open("#/draw?model=full")
    visits.expected_statuses = {503}
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3, 16, 24], "data": [0] * 1152}]})
    head = f"POST /v2/models/full/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"

    with closing(socket.create_connection(("127.0.0.1", server.ports["http"]))) as waiting:
        waiting.sendall(f"{head}{body}".encode())
        wait_for_pending(server.metrics_url, "full", 1)
        strokes.draw(page, "7")
        expect(page.locator(".notice.warning")).to_contain_text("The server cannot do that now")
        page.get_by_role("button", name="Clear").click()
        expect(page.locator(".notice")).to_have_count(0)


def test_a_token_is_asked_for_and_then_used(browser: Browser, root: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    server = start(tmp_path, f"--auth-policy={policy}", model_repository=root)
    try:
        visits = Visits(browser, server.http_url)
        visits.expected_statuses = {401}
        page = visits.open("#/draw")
        dialog = page.get_by_role("dialog")

        for token in ("a-wrong-one", TOKEN):
            expect(dialog).to_be_visible()
            dialog.get_by_label("Token").fill(token)
            dialog.get_by_role("button", name="Use it").click()

        expect(page.get_by_label("Model", exact=True)).to_have_value("full")
        expect(dialog).to_be_hidden()
        page.reload()
        expect(page.get_by_label("Model", exact=True)).to_have_value("full")
        assert visits.close() == []
    finally:
        server.terminate()
