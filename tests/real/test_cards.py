"""Model cards over HTTP: each is that of the load that answers, and restricted as metadata are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import tritonclient.http as triton

from tests import onnx_models
from tests.real.conftest import StartServer
from tests.repositories import add_model

KEY = {"admin-key": "root"}
NAMES = {"model_name": "m", "model_version": "1"}


def card(url: str, headers: dict[str, str] = KEY) -> tuple[int, Any]:
    """Status and content of the card of model 'm'."""
    try:
        with urlopen(Request(f"{url}/v2/models/m/card", headers=headers), timeout=30) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)["error"]


def test_a_card_is_that_of_the_load_that_answers(start_server: StartServer, tmp_path: Path) -> None:
    file = add_model(tmp_path, "m", onnx_models.affine()) / "1" / "card.json"
    file.write_text('{"accuracy": {"right": 1, "of": 2}}')
    server = start_server(
        "--model-control-mode=explicit", "--load-model=m", "--http-restricted-api=metadata:admin-key=root",
        model_repository=tmp_path,
    )  # fmt: skip
    first = (200, NAMES | {"accuracy": {"right": 1, "of": 2}})
    assert card(server.http_url) == first
    assert card(server.http_url, {}) == (403, "This API is restricted, expecting header 'admin-key'")

    with triton.InferenceServerClient(server.http_url.removeprefix("http://")) as client:
        file.write_text('{"accuracy": {"right": 2, "of": 2}}')
        assert card(server.http_url) == first
        client.load_model("m")
        assert card(server.http_url) == (200, NAMES | {"accuracy": {"right": 2, "of": 2}})

        file.write_text("{")
        client.load_model("m")
        status, said = card(server.http_url)
        assert status == 404
        assert said.startswith("model 'm' version 1 has no card: card.json of version 1: is no JSON")
        assert client.is_model_ready("m")

        client.load_model("m", config="{}", files={"file:1/model.onnx": onnx_models.affine().SerializeToString()})
        assert card(server.http_url)[1].endswith("has no card: there is no card.json in its version's folder")
    assert "model 'm' version 1 has no card: card.json" in server.log.read_text()
