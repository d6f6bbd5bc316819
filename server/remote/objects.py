"""What a remote repository lists, sorted into models, and what in it cannot be trusted. Pure.

A key becomes a path on this machine, so every part of it must be an ordinary file name: a key that could lead elsewhere
spoils its model, which then stays as it is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MAX_NAME_BYTES = 255
"""What file systems take."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One object, as it was when it was listed."""

    path: str
    """Relative to the repository, parts between slashes; as it was listed, so anything may be in it."""
    size: int
    """Bytes."""
    tag: str
    """Another one, whenever the content is another: an ETag, a generation, a time."""
    md5: str = ""
    """Of the content, in hexadecimal; "" where the store does not tell."""


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """The files of one model."""

    name: str
    files: Mapping[str, RemoteFile]
    """By path within the model's folder, sorted."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the folders in the model's folder, sorted."""
        return tuple(sorted({path.split("/")[0] for path in self.files if "/" in path}))


@dataclass(frozen=True, slots=True)
class Listing:
    """All models of a repository."""

    models: Mapping[str, RemoteModel]
    problems: Mapping[str, str]
    """Model name → why nothing of it may be brought here."""
    ignored: tuple[str, ...] = ()
    """What is wrong with keys that could not be a model's."""


def sort_out(files: Iterable[RemoteFile]) -> Listing:
    """Models by name. Hidden files, and files beside the models, are left out."""
    found: dict[str, dict[str, RemoteFile]] = {}
    problems: dict[str, str] = {}
    ignored: list[str] = []
    for file in sorted(files, key=lambda file: file.path):
        name, slash, path = file.path.partition("/")
        if not slash or path.endswith("/"):
            continue
        problem = _problem(file.path)
        if problem and _problem(name):
            ignored.append(f"the key {file.path!r} {problem}; it is ignored")
        elif name.startswith("."):
            continue
        elif problem:
            problems.setdefault(name, f"the key {file.path!r} {problem}; remove it")
        elif not any(part.startswith(".") for part in path.split("/")):
            found.setdefault(name, {})[path] = file
    for name, inside in found.items():
        folders = {"/".join(parts[:end]) for parts in map(_parts, inside) for end in range(1, len(parts))}
        if both := sorted(folders & inside.keys()):
            problems.setdefault(name, f"{both[0]!r} is both a file and a folder; remove one of them")
    models = {name: RemoteModel(name, inside) for name, inside in found.items() if name not in problems}
    return Listing(models, problems, tuple(ignored))


def _parts(path: str) -> list[str]:
    return path.split("/")


def _problem(path: str) -> str:
    """Why a key cannot be a path below the cache; "" where it can."""
    for part in _parts(path):
        if part in ("", ".", ".."):
            return f"has the part {part!r}, which could lead out of the repository"
        if "\\" in part or any(ord(character) < 32 or ord(character) == 127 for character in part):
            return "has a backslash or a control character, which no file name should have"
        if len(part.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
            return f"has a part of more than {MAX_NAME_BYTES} bytes, which no file name can have"
    return ""
