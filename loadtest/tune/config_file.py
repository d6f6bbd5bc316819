"""config.pbtxt with other settings: only the fields that change are written anew, comments elsewhere stay.

The text is cut into its top-level fields. What comes of the edit is parsed again; where that is not the configuration
that was meant, the whole file is printed by protobuf, which keeps no comments.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from loadtest.errors import LoadTestError
from proto import model_config_pb2 as pb

FILENAME, BACKUP = "config.pbtxt", "config.pbtxt.before-tuning"

_TOKEN = re.compile(
    r"""(?P<space>\s+) | (?P<comment>\#[^\n]*) | (?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    | (?P<open>[{<\[]) | (?P<close>[}>\]]) | (?P<colon>:) | (?P<end>[;,]) | (?P<word>[^\s\#"'{}<>\[\]:;,]+)""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Written:
    """What `write_config` did."""

    path: Path
    backup: Path | None
    """What the file was before; None where there was none."""
    lost_comments: tuple[str, ...]
    """Those that stood within fields that were written anew."""


@dataclass(frozen=True)
class _Field:
    """A top-level field, from its name to the end of its value."""

    name: str
    start: int
    end: int
    message: pb.ModelConfig
    """With this field alone."""


def read_config(model_folder: Path) -> tuple[str, pb.ModelConfig]:
    """The file's text and what it says; both empty where there is no file. A LoadTestError names file and line."""
    path = model_folder / FILENAME
    try:
        text = path.read_text()
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise LoadTestError(f"{path} cannot be read: {error}") from error
    try:
        return text, text_format.Parse(text, pb.ModelConfig())
    except (text_format.ParseError, ValueError) as error:
        raise LoadTestError(f"{path}: {error}") from error


def write_config(model_folder: Path, read: str, wanted: pb.ModelConfig) -> Written:
    """Makes the file, whose text was `read`, say `wanted`, at once or not at all. The old one is kept beside it.

    A LoadTestError where the file is another one by now, or cannot be written.
    """
    path, backup = model_folder / FILENAME, model_folder / BACKUP
    if read_config(model_folder)[0] != read:
        raise LoadTestError(f"{path} has changed since it was tuned; nothing was written")
    text = edited(read, wanted)
    # Servers that poll the folder do not look at hidden files.
    part = path.with_name(f".{FILENAME}.part")
    try:
        part.write_text(text)
        if path.exists():
            shutil.copymode(path, part)
            shutil.copy2(path, backup)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise LoadTestError(f"{path} cannot be written: {error}") from error
    kept = _comments(text)
    lost = tuple(comment for comment in _comments(read) if comment not in kept)
    return Written(path, backup if read else None, lost)


def edited(text: str, wanted: pb.ModelConfig) -> str:
    """`text` with those top-level fields written anew in which `wanted` differs."""
    present = text_format.Parse(text, pb.ModelConfig())
    try:
        attempt = _edited(text, present, wanted)
        if text_format.Parse(attempt, pb.ModelConfig()) == wanted:
            return attempt
    except (text_format.ParseError, ValueError):
        pass
    return text_format.MessageToString(wanted)


def _edited(text: str, present: pb.ModelConfig, wanted: pb.ModelConfig) -> str:
    found = list(_fields(text))
    replacements: list[tuple[_Field, str]] = []
    added: list[str] = []
    for name in _changed(present, wanted):
        held = [one for one in found if one.name == name]
        for number, one in enumerate(held):
            replacements.append((one, _printed(wanted, name) if number == 0 else ""))
        if not held:
            added.append(_printed(wanted, name))
    before, after = dict(present.parameters), dict(wanted.parameters)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) == after.get(key):
            continue
        held = [one for one in found if key in one.message.parameters]
        if not held:
            added.append(_printed_parameters({key: after[key].string_value}))
        for one in held:
            values = {name: value.string_value for name, value in one.message.parameters.items() if name != key}
            if key in after:
                values[key] = after[key].string_value
            replacements.append((one, _printed_parameters(values)))
    for one, instead in sorted(replacements, key=lambda item: item[0].start, reverse=True):
        end = one.end
        if not instead and text[end : end + 1] == "\n":
            end += 1
        text = text[: one.start] + instead + text[end:]
    return "\n".join([*([text.rstrip("\n")] if text.strip() else []), *added]) + "\n"


def _changed(present: pb.ModelConfig, wanted: pb.ModelConfig) -> list[str]:
    """Names of the top-level fields that differ, parameters left out."""
    names = {descriptor.name for message in (present, wanted) for descriptor, _ in message.ListFields()}
    return sorted(name for name in names - {"parameters"} if _only(present, name) != _only(wanted, name))


def _only(message: pb.ModelConfig, name: str) -> pb.ModelConfig:
    """A copy with this top-level field alone."""
    alone = pb.ModelConfig()
    alone.CopyFrom(message)
    for descriptor, _ in message.ListFields():
        if descriptor.name != name:
            alone.ClearField(descriptor.name)
    return alone


def _printed(message: pb.ModelConfig, name: str) -> str:
    return text_format.MessageToString(_only(message, name)).rstrip("\n")


def _printed_parameters(values: dict[str, str]) -> str:
    message = pb.ModelConfig()
    for key, value in values.items():
        message.parameters[key].string_value = value
    return text_format.MessageToString(message).rstrip("\n")


def _fields(text: str) -> Iterator[_Field]:
    """The top-level fields in order. Raises ValueError for what cannot be cut."""
    tokens = [token for token in _tokens(text) if token.lastgroup not in ("space", "comment")]
    position = 0
    while position < len(tokens):
        name, start = tokens[position].group(), tokens[position].start()
        position += 1
        if tokens[position].lastgroup == "colon":
            position += 1
        position = _past_value(tokens, position)
        if position < len(tokens) and tokens[position].lastgroup == "end":
            position += 1
        end = tokens[position - 1].end()
        yield _Field(name, start, end, text_format.Parse(text[start:end], pb.ModelConfig()))


def _past_value(tokens: list[re.Match[str]], position: int) -> int:
    """Behind a scalar, strings that belong together, or whatever is within brackets."""
    if tokens[position].lastgroup == "text":
        while position < len(tokens) and tokens[position].lastgroup == "text":
            position += 1
        return position
    depth = 0
    while True:
        kind = tokens[position].lastgroup
        depth += (kind == "open") - (kind == "close")
        position += 1
        if depth == 0:
            return position


def _tokens(text: str) -> Iterator[re.Match[str]]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"no token at {position}")
        yield match
        position = match.end()


def _comments(text: str) -> list[str]:
    return [token.group() for token in _tokens(text) if token.lastgroup == "comment"]
