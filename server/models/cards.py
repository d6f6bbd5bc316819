"""The model card of a version: what its training and export know of it, shown to people and programs as it is.

    <model>/<version>/card.json      a JSON object, as `python -m training export` writes it, or by any other hand
    <model>/<version>/layers.json    the layers of its network: the card's key `layers`

Both files may be missing. No key means anything to the server: a card is read once, when its version is loaded, and a
bad one costs the version nothing but the card.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import orjson

from server.errors import LoadFailed
from server.models.repository import ModelFolder, read_version_file

log = logging.getLogger(__name__)

CARD_FILENAME = "card.json"
LAYERS_FILENAME = "layers.json"

MAX_CARD_BYTES = 4 << 20
"""Of either file. A confusion matrix of 1,000 classes takes half of it."""


class Card(NamedTuple):
    """What there is to show."""

    content: bytes
    """A JSON object that begins with `model_name` and `model_version`; b"" where there is no card."""
    problem: str = ""
    """Why there is none that can be shown, though a file is there."""


NO_CARD = Card(b"")


def read_card(folder: ModelFolder, version: int) -> Card:
    """The card of a version. Blocks; raises nothing: what is wrong with the files is in the card, and in the log."""
    try:
        return _read_card(folder, version)
    except LoadFailed as error:
        log.warning("model '%s' version %d has no card: %s", folder.name, version, error)
        return Card(b"", str(error))


def _read_card(folder: ModelFolder, version: int) -> Card:
    card = read_version_file(folder, version, CARD_FILENAME, MAX_CARD_BYTES)
    layers = read_version_file(folder, version, LAYERS_FILENAME, MAX_CARD_BYTES)
    if card is None and layers is None:
        return NO_CARD
    said = {} if card is None else _parse(card, f"{CARD_FILENAME} of version {version}")
    if not isinstance(said, dict):
        raise LoadFailed(
            f"{CARD_FILENAME} of version {version}: holds no JSON object; python -m training card makes one"
        )
    named = {"model_name": folder.name, "model_version": str(version)}
    shown = {**named, **said, **named}
    if layers is not None:
        shown["layers"] = _parse(layers, f"{LAYERS_FILENAME} of version {version}")
    try:
        return Card(orjson.dumps(shown))
    except orjson.JSONEncodeError as error:  # nested more deeply than can be written
        raise LoadFailed(f"the card of version {version}: {error}") from error


def _parse(text: bytes, source: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise LoadFailed(f"{source}: is no JSON: {error}") from error
