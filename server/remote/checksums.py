"""SHA-256 sums that lie beside a model: which files there are of them, and what they ask for. Pure.

SHA256SUMS      lines of `sha256sum`, paths relative to the folder that it lies in
<file>.sha256   the sum of one file beside it, alone or as a line of `sha256sum`
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from posixpath import basename, dirname, join, normpath

from server.errors import LoadFailed

SUMS = "SHA256SUMS"
SUFFIX = ".sha256"

_LINE = re.compile(r"([0-9a-fA-F]{64})(?:[ \t]+\*?(\S.*))?")


def is_sums(path: str) -> bool:
    """Whether a file is one of sums."""
    return basename(path) == SUMS or path.endswith(SUFFIX)


def expected_sums(texts: Mapping[str, str]) -> dict[str, str]:
    """Path → SHA-256 in hexadecimal, from the texts of files of sums; paths are relative to the model's folder.

    Raises `LoadFailed` for what is no sum, for a path outside of the model, and where two files disagree.
    """
    sums: dict[str, str] = {}
    for path, text in texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line.strip())
            if match is None:
                raise LoadFailed(f"{path}: line {number} is not a line of sha256sum")
            target = _target(path, match[2] or "")
            digest = match[1].lower()
            if sums.setdefault(target, digest) != digest:
                raise LoadFailed(f"{path}: line {number} and another file give different sums for {target}")
    return sums


def missing(sums: Iterable[str], files: Collection[str], left_out: Collection[str]) -> list[str]:
    """The paths that have a sum and no file; what lies in a folder that is left out need not be there."""
    return sorted(path for path in sums if path not in files and path.split("/")[0] not in left_out)


def _target(sums_path: str, name: str) -> str:
    if basename(sums_path) != SUMS:
        return sums_path.removesuffix(SUFFIX)
    target = normpath(join(dirname(sums_path), name))
    if not name or target.startswith(("/", "..")):
        raise LoadFailed(f"{sums_path}: {name!r} is no file of this model")
    return target
