"""Model repositories on disk, read only.

    <root>/<model>/config.pbtxt, labels.txt, …      config.pbtxt is optional
    <root>/<model>/configs/<name>.pbtxt             taken instead of it, where the server is told a name
    <root>/<model>/warmup/<file>                    inputs of model_warmup samples, as raw tensor contents
    <root>/<model>/initial_state/<file>             what states of sequences begin with, as raw tensor contents
    <root>/<model>/<version>/model.onnx             versions are positive decimal integers
    <root>/<model>/<version>/card.json, layers.json what is shown of a version; both optional

Folders whose names begin with a dot are ignored, and so is whatever has no place in this layout. The configuration and
every file that it names must lie inside the model's folder, symbolic links resolved: a configuration is no key to the
rest of the disk. The model's folder itself may be a link to anywhere: that is for whoever owns the repository.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.errors import ConfigInvalid, LoadFailed
from server.files import problem_of_name, read_file

CONFIG_FILENAME = "config.pbtxt"
CONFIGS_FOLDER = "configs"
WARMUP_FOLDER = "warmup"
INITIAL_STATE_FOLDER = "initial_state"

MAX_CONFIG_BYTES = 1 << 20
MAX_LABEL_BYTES = 16 << 20

_NAMES_SHOWN = 10

_VERSION = re.compile(r"[1-9][0-9]*", re.ASCII)
_MAX_VERSION = 2**63 - 1  # an int64 on the wire


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One model on disk."""

    name: str
    path: Path
    versions: tuple[int, ...]
    """Ascending."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What all roots hold."""

    models: tuple[ModelFolder, ...]
    """Sorted by name; only those without a problem."""
    problems: Mapping[str, str]
    """Model name → why it cannot be served."""


def scan(roots: Sequence[Path]) -> Scan:
    """List the models of all roots. Raises LoadFailed where a root cannot be listed."""
    found = _model_paths(roots)
    models: list[ModelFolder] = []
    problems: dict[str, str] = {}
    for name, paths in sorted(found.items()):
        try:
            models.append(_model_folder(name, paths))
        except LoadFailed as error:
            problems[name] = str(error)
    return Scan(tuple(models), problems)


def find(roots: Sequence[Path], name: str) -> ModelFolder | None:
    """The model of this name, looked for by its name alone; None where no root has it. Raises LoadFailed where it is in
    two roots, or cannot be listed, and for what is no name: it leads nowhere."""
    if problem := problem_of_name(name):
        raise LoadFailed(f"'{name}' is no name of a model: {problem}")
    paths = [root / name for root in roots if os.path.isdir(root / name)]
    return _model_folder(name, paths) if paths else None


def names(roots: Sequence[Path]) -> dict[str, str]:
    """Names of the models of all roots, and why they cannot be served: "" mostly. Raises LoadFailed where a root cannot
    be listed."""
    return {name: _twice(name, paths) if len(paths) > 1 else "" for name, paths in _model_paths(roots).items()}


def config_path(folder: ModelFolder, config_name: str = "") -> Path:
    """The configuration that counts: the one of this name, where the model has it, else config.pbtxt."""
    if config_name:
        named = folder.path / CONFIGS_FOLDER / f"{config_name}.pbtxt"
        if os.path.lexists(named):
            return named
    return folder.path / CONFIG_FILENAME


def read_config(folder: ModelFolder, config_name: str = "") -> str | None:
    """The text of the configuration, or None where the model has none. Raises LoadFailed."""
    path = config_path(folder, config_name)
    return _read_text(_inside(folder, path), MAX_CONFIG_BYTES) if os.path.lexists(path) else None


def model_file(folder: ModelFolder, version: int, filename: str) -> Path:
    """The path of a version's model file. Raises LoadFailed where it is missing or outside the model's folder."""
    version_path = folder.path / str(version)
    entries = _entries(version_path, f"{version_path}: version {version} of model '{folder.name}'")
    if not entries:
        raise LoadFailed(f"{version_path}: the version folder is empty; put {filename} into it")
    path = _inside(folder, version_path / filename)
    if os.path.exists(path) and not os.path.isfile(path):
        raise LoadFailed(f"{path}: is no file, but a folder or a device; put the model's file in its place")
    if not os.path.isfile(path):
        names = ", ".join(entry.name for entry in entries[:_NAMES_SHOWN])
        names += ", …" * (len(entries) > _NAMES_SHOWN)
        raise LoadFailed(f"{path}: no such file, the folder has: {names}; rename it or set default_model_filename")
    return path


def op_library(folder: ModelFolder, filename: str) -> Path:
    """The path of a shared library with operators. Raises LoadFailed where it is missing or outside the folder."""
    path = _inside(folder, folder.path / filename)
    if not os.path.isfile(path):
        field = "model_operations.op_library_filename"
        raise LoadFailed(f"{path}: no such operator library; add it or remove {field} from {CONFIG_FILENAME}")
    return path


def read_labels(folder: ModelFolder, filename: str) -> tuple[str, ...]:
    """The class names of a label file, one a line; a line's position is its class. Raises LoadFailed."""
    path = _inside(folder, folder.path / filename)
    if not os.path.isfile(path):
        raise LoadFailed(f"{path}: no such label file; add it or remove label_filename from {CONFIG_FILENAME}")
    return tuple(line.strip() for line in _read_text(path, MAX_LABEL_BYTES).rstrip().split("\n"))


def read_version_file(folder: ModelFolder, version: int, filename: str, most_bytes: int) -> bytes | None:
    """The contents of a file in a version's folder, of at most so many bytes; None where there is none. Raises
    LoadFailed."""
    path = folder.path / str(version) / filename
    return read_file(_inside(folder, path), most_bytes) if os.path.lexists(path) else None


def read_warmup_file(folder: ModelFolder, filename: str, most_bytes: int) -> bytes:
    """The contents of a warm-up input, of at most so many bytes. Raises LoadFailed."""
    return _read_bytes(folder, WARMUP_FOLDER, filename, most_bytes, "zero_data or random_data")


def read_initial_state(folder: ModelFolder, filename: str, most_bytes: int) -> bytes:
    """The contents of a file that a state begins with, of at most so many bytes. Raises LoadFailed."""
    return _read_bytes(folder, INITIAL_STATE_FOLDER, filename, most_bytes, "zero_data")


def _read_bytes(folder: ModelFolder, subfolder: str, filename: str, most_bytes: int, instead: str) -> bytes:
    path = _inside(folder, folder.path / subfolder / filename)
    if not os.path.isfile(path):
        raise LoadFailed(f"{path}: no such file; add it, or use {instead} in {CONFIG_FILENAME}")
    return read_file(path, most_bytes)


def version_number(folder_name: str) -> int | None:
    """The version that a folder of this name in a model's folder holds; None where it is no version."""
    if not _VERSION.fullmatch(folder_name) or len(folder_name) > len(str(_MAX_VERSION)):
        return None
    number = int(folder_name)
    return number if number <= _MAX_VERSION else None


def _model_paths(roots: Sequence[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for root in roots:
        for path in _folders(root, f"--model-repository {root}:"):
            found.setdefault(path.name, []).append(path)
    return found


def _model_folder(name: str, paths: Sequence[Path]) -> ModelFolder:
    if len(paths) > 1:
        raise LoadFailed(_twice(name, paths))
    return ModelFolder(name, paths[0], _versions(paths[0]))


def _twice(name: str, paths: Sequence[Path]) -> str:
    places = " and ".join(str(path.parent) for path in paths)
    return f"model '{name}' is in more than one repository: {places}; keep one of them"


def _versions(model_path: Path) -> tuple[int, ...]:
    numbers = [version_number(path.name) for path in _folders(model_path, f"{model_path}: model folder")]
    return tuple(sorted(number for number in numbers if number is not None))


def _folders(path: Path, what: str) -> list[Path]:
    return [entry for entry in _entries(path, what) if os.path.isdir(entry)]


def _entries(path: Path, what: str) -> list[Path]:
    """What is in a folder, hidden entries left out, sorted by name. `what` names it in errors."""
    try:
        return sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError:
        raise LoadFailed(f"{what} does not exist") from None
    except OSError as error:
        raise LoadFailed(f"{what} cannot be listed: {error.strerror}") from error


def _inside(folder: ModelFolder, path: Path) -> Path:
    """`path` itself, once it is sure to lie inside the model's folder."""
    try:
        inside = path.resolve().is_relative_to(folder.path.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, before Python 3.13; a zero byte
        raise LoadFailed(f"{path}: cannot be resolved: {error}") from error
    if not inside:
        raise LoadFailed(f"{path}: lies outside of the model's folder {folder.path}; move the file into it")
    return path


def _read_text(path: Path, most_bytes: int) -> str:
    try:
        # Not `read_text`: that takes the beginning of a byte order mark for nothing at all.
        text = read_file(path, most_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigInvalid(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
