"""What a request to load a model may bring along: a configuration for that in its file, and files for its folder.

Files are kept in a private folder of this server, one for each load, for as long as something serves from them.
Rules of this file:
- A name is a path below the model's folder, part by part a plain file name: nothing is ever written elsewhere.
- Nothing is written where the disk would be full after it.
- Whatever goes wrong leaves no file behind.
- Nothing that came along is ever run but as a model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor

from server.errors import ConfigInvalid, InvalidRequest, LoadFailed, TooLarge
from server.files import MAX_NAME_BYTES, problem_of_name
from server.models import config as model_config
from server.models import repository
from server.models.config import ConfigMessage
from server.models.opening import Configuration
from server.models.outlook import not_polled
from server.models.repository import ModelFolder
from server.tensors import Buffer

MAX_FILES = 1000
MAX_PARTS = 8
MAX_CONFIG_CHARACTERS = 1 << 20
SPARE_BYTES = 64 << 20
"""What must remain free on the disk."""

FILE_PREFIX = "file:"
_CONFIGURATIONS = (repository.CONFIG_FILENAME, repository.CONFIGS_FOLDER)


@dataclass(frozen=True, slots=True)
class Override:
    """What a load is to take instead of what the repository has."""

    config: str
    """The configuration, as JSON."""
    files: Mapping[str, Buffer] = field(default_factory=dict)
    """Paths in the model's folder, and contents. Where there are any, nothing of the repository's folder is used."""

    @property
    def size(self) -> int:
        """What it holds of the memory, in bytes."""
        return len(self.config) + sum(map(len, self.files.values()))


def check_model_name(name: str) -> None:
    """Raises `InvalidRequest` for what cannot be the name of a model's folder. Two of the sentences are Triton's."""
    if not name.strip():
        raise InvalidRequest("Model name cannot be empty. Please enter a valid name to deploy.")
    shown = name[:MAX_NAME_BYTES]
    if name.strip() == ".." or "/" in name:
        raise InvalidRequest(f"invalid model name '{shown}', model name must not contain path traversal characters")
    if problem := problem_of_name(name):
        raise InvalidRequest(f"invalid model name '{shown}', {problem}")


def configuration(name: str, override: Override) -> Configuration:
    """The configuration that came along. Raises `InvalidRequest` where it is none, or asks for what cannot be."""
    message = ConfigMessage()
    if len(override.config) > MAX_CONFIG_CHARACTERS:
        problem = f"it has {len(override.config)} characters, {MAX_CONFIG_CHARACTERS} are allowed"
        raise TooLarge(not_polled(name, f"Invalid config override: {problem}"))
    source = "load parameter 'config'"
    try:
        if not override.config.lstrip().startswith("{"):  # the parser takes an empty list for a message
            raise json_format.ParseError("it must be a JSON object")
        json_format.Parse(override.config, message)
        settings = model_config.load_settings(message, name, source)
    except (json_format.ParseError, RecursionError, ConfigInvalid) as error:
        problem = _unknown_field(override.config) or str(error).rstrip(".\n")
        raise InvalidRequest(not_polled(name, f"Invalid config override: {problem[:1000]}")) from None
    if override.files and settings.op_libraries:
        problem = "field 'model_operations.op_library_filename': code is taken from model repositories only"
        raise InvalidRequest(not_polled(name, f"Invalid config override: {problem}"))
    digest = hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()
    return Configuration(message, settings, source, digest)


def _unknown_field(config: str) -> str:
    """What is said of the first field that there is not, in the names of config.pbtxt; "" where the fault is another.

    The parser's own sentence lists the fields in names that no documentation has.
    """
    try:
        return _unknown_field_of(json.loads(config), ConfigMessage.DESCRIPTOR, "")
    except (ValueError, RecursionError):
        return ""


def _unknown_field_of(value: object, message: Descriptor, path: str) -> str:
    if not isinstance(value, dict):
        return ""
    known = {name: field for field in message.fields for name in (field.name, field.json_name)}
    for key, content in value.items():
        field = known.get(key)
        if field is None:
            names = ", ".join(field.name for field in message.fields)
            owner = f"'{path[:-1]}'" if path else "a configuration"
            return f"there is no field '{path}{key[:MAX_NAME_BYTES]}'; {owner} has: {names}"
        inner, parts = field.message_type, content if isinstance(content, list) else [content]
        if inner is not None and inner.GetOptions().map_entry:
            inner = inner.fields_by_name["value"].message_type
            parts = list(content.values()) if isinstance(content, dict) else []
        for part in parts if inner is not None else ():
            if problem := _unknown_field_of(part, inner, f"{path}{field.name}."):
                return problem
    return ""


class Overrides:
    """The files that came along with loads. All methods block, and run on one thread at a time for one model."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._beginning = threading.Lock()
        """Held while the root is made: models are loaded beside each other."""
        self._numbers = count(1)
        self._folders: dict[str, list[Path]] = {}
        """Model name → what lies here for it."""

    def write(self, name: str, files: Mapping[str, Buffer]) -> ModelFolder:
        """Make a model's folder of these files. Raises `InvalidRequest` for their names, `LoadFailed` for the disk."""
        check_files(files)
        root = self._private_root()
        _check_room(root, sum(map(len, files.values())))
        folder = root / str(next(self._numbers))
        try:
            for path, content in files.items():
                file = folder / name / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise LoadFailed(f"the files of model '{name}' cannot be kept: {error.strerror or error}") from error
        self._folders.setdefault(name, []).append(folder / name)
        found = repository.find([folder], name)
        assert found is not None, "it was made just now"
        return found

    def keep_only(self, name: str, in_use: Collection[Path]) -> None:
        """Remove the folders of a model that are not `in_use`."""
        kept = [path for path in self._folders.pop(name, ()) if path in in_use or not _removed(path.parent)]
        if kept:
            self._folders[name] = kept

    def close(self) -> None:
        """Remove everything."""
        self._folders.clear()
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    def _private_root(self) -> Path:
        with self._beginning:
            if self._root is None:
                try:
                    self._root = Path(tempfile.mkdtemp(prefix="convoy-files-"))
                except OSError as error:
                    raise LoadFailed(f"there is no place for files that come with a load: {error}") from error
            return self._root


def check_files(files: Mapping[str, Buffer]) -> None:
    """Raises `InvalidRequest` for names that are no paths of files below a model's folder, or clash."""
    if len(files) > MAX_FILES:
        raise TooLarge(f"{len(files)} file parameters came, at most {MAX_FILES} are taken")
    folders: set[str] = set()
    for path in files:
        parts = path.split("/")
        shown = f"Invalid file parameter '{FILE_PREFIX}{path[:MAX_NAME_BYTES]}'"
        if ".." in parts or path.startswith("/"):
            raise InvalidRequest(f"{shown}: it must stay within model directory.")
        if len(parts) > MAX_PARTS:
            raise InvalidRequest(f"{shown}: it has more than {MAX_PARTS} parts")
        for part in parts:
            if problem := problem_of_name(part):
                raise InvalidRequest(f"{shown}: {problem}")
        if parts[0] in _CONFIGURATIONS:
            raise InvalidRequest(f"{shown}: the configuration is what the parameter 'config' says")
        folders.update("/".join(parts[:length]) for length in range(1, len(parts)))
    for path in folders.intersection(files):
        raise InvalidRequest(f"Invalid file parameter '{FILE_PREFIX}{path}': it is the folder of another file")


def _check_room(root: Path, size: int) -> None:
    free = shutil.disk_usage(root).free
    if size + SPARE_BYTES > free:
        raise LoadFailed(
            f"{root.parent}: {free} bytes are free, {size} are needed and {SPARE_BYTES} more must remain; make room"
        )


def _removed(folder: Path) -> bool:
    """Whether a folder could be removed."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
