"""Model cards: read from a version's folder, and shown on their page."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from server.frontends.rest.card import card_routes
from server.models.cards import MAX_CARD_BYTES, NO_CARD, Card, read_card
from server.models.lifecycle import State
from server.models.model import LoadedVersion
from server.models.registry import Registry
from server.models.repository import ModelFolder
from tests.fakes import PuppetClock, PuppetSession, fp32
from tests.unit.http_peer import Answer, Peer
from tests.unit.loaded import batching_config, doubled_and_negated, run

SHOWN = b'{"model_name":"m","model_version":"2","accuracy":{"right":9,"of":10}}'


def folder(root: Path, version: int = 2, **files: str) -> ModelFolder:
    """A model's folder whose version has these files, `card` for card.json."""
    path = root / "m" / str(version)
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / f"{name}.json").write_text(text)
    return ModelFolder("m", root / "m", (version,))


def get(path: str, card: Card = NO_CARD) -> Answer:
    """The page of a server whose model 'm' has version 2, with this card, and version 3, which is being loaded."""
    answers: list[Answer] = []

    async def main() -> None:
        registry = Registry()
        registry.set_state("m", 2, State.LOADING)
        session = PuppetSession([fp32("x", -1, -1)], [fp32("y", -1, -1), fp32("z", -1, -1)], doubled_and_negated)
        loaded = LoadedVersion(batching_config(), 2, [session], PuppetClock())
        loaded.card = card
        registry.set_ready("m", loaded)
        registry.set_state("m", 3, State.LOADING)
        answers.append(Peer(card_routes(registry)).ask("GET", path))
        await asyncio.gather(*(version.drain() for version in registry.loaded()))

    run(main)
    return answers[0]


@pytest.mark.parametrize("path", ["/v2/models/m/card", "/v2/models/m/versions/2/card"])
def test_the_card_is_shown_as_it_was_read(path: str) -> None:
    answer = get(path, Card(SHOWN))
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, SHOWN, "application/json")


@pytest.mark.parametrize(
    ("path", "card", "status", "error"),
    [
        ("/v2/models/m/card", NO_CARD, 404, "model 'm' version 2 has no card: there is no card.json in its version's"),
        ("/v2/models/m/card", Card(b"", "card.json: is no JSON"), 404, "version 2 has no card: card.json: is no JSON"),
        ("/v2/models/nobody/card", Card(SHOWN), 404, "Request for unknown model: 'nobody' is not found"),
        ("/v2/models/m/versions/3/card", Card(SHOWN), 503, "version 3 is not at ready state"),
        ("/v2/models/m/versions/x/card", Card(SHOWN), 400, "not a number"),
    ],
)
def test_what_has_no_card_says_why(path: str, card: Card, status: int, error: str) -> None:
    answer = get(path, card)
    assert answer.status == status
    assert error in answer.json["error"]


def test_a_card_names_its_version_first_whatever_the_file_says(tmp_path: Path) -> None:
    card = read_card(folder(tmp_path, card='{"accuracy": {"right": 9, "of": 10}, "model_name": "other"}'), 2)
    assert card.content == SHOWN
    assert card.problem == ""


def test_layers_join_the_card_or_stand_alone(tmp_path: Path) -> None:
    both = folder(tmp_path / "both", card='{"labels": ["0"], "layers": "old"}', layers='[{"kind": "conv"}]')
    alone = folder(tmp_path / "alone", layers='[{"kind": "conv"}]')
    names = {"model_name": "m", "model_version": "2"}
    layers = {"layers": [{"kind": "conv"}]}
    assert json.loads(read_card(both, 2).content) == names | {"labels": ["0"]} | layers
    assert json.loads(read_card(alone, 2).content) == names | layers


def test_a_version_without_files_has_no_card(tmp_path: Path) -> None:
    assert read_card(folder(tmp_path), 2) == NO_CARD


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"card": "{'accuracy'"}, "card.json of version 2: is no JSON: "),
        ({"card": '{"loss": NaN}'}, "card.json of version 2: is no JSON: "),
        ({"card": "[1, 2]"}, "card.json of version 2: holds no JSON object"),
        ({"card": "null"}, "card.json of version 2: holds no JSON object"),
        ({"card": '{"a":' * 500 + "1" + "}" * 500}, "the card of version 2: "),
        ({"card": '{"a":' * 5000 + "1" + "}" * 5000}, "card.json of version 2: is no JSON: "),
        (
            {"card": " " * (MAX_CARD_BYTES + 1)},
            f"has {MAX_CARD_BYTES + 1} bytes, and {MAX_CARD_BYTES} are read at most",
        ),
        ({"card": "{}", "layers": "[1,"}, "layers.json of version 2: is no JSON: "),
    ],
)
def test_a_bad_card_is_no_card_and_says_why(
    files: dict[str, str], problem: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card: Any = read_card(folder(tmp_path, **files), 2)
    assert card.content == b""
    assert problem in card.problem
    assert "model 'm' version 2 has no card: " in caplog.text


def test_a_card_does_not_lead_out_of_the_models_folder(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"key": "42"}')
    model = folder(tmp_path)
    (model.path / "2" / "card.json").symlink_to(secret)
    assert "lies outside of the model's folder" in read_card(model, 2).problem
