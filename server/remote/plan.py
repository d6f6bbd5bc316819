"""What must be fetched for a model, and what may go. Pure: listings and the cache's content in, a plan out.

The cache keeps every file under a name that is made of all that says what it holds (`pool_name`), so whatever has
that name need not be fetched again, and nothing in the cache is ever written over. A model's folder is a snapshot: hard
links to such files, under a name made of theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from server.remote.objects import RemoteFile, RemoteModel


@dataclass(frozen=True, slots=True)
class Piece:
    """One file of a snapshot."""

    path: str
    """Within the model's folder."""
    file: RemoteFile
    sha256: str = ""
    """What its content must have; "" where nobody says."""

    @property
    def pool_name(self) -> str:
        """Its name in the cache."""
        return _digest(self.file.path, str(self.file.size), self.file.tag, self.sha256)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to bring one model here."""

    snapshot: str
    """The name of its folder: another one for any other content."""
    pieces: tuple[Piece, ...]
    fetch: tuple[Piece, ...]
    """Those of `pieces` that are not here yet."""

    @property
    def fetch_bytes(self) -> int:
        return sum(piece.file.size for piece in self.fetch)


def plan(model: RemoteModel, left_out: Collection[str], sums: Mapping[str, str], pool: Mapping[str, int]) -> Plan:
    """The snapshot of a model without the folders `left_out`. `pool` has the sizes of the files that are here."""
    pieces = tuple(
        Piece(path, file, sums.get(path, ""))
        for path, file in sorted(model.files.items())
        if "/" not in path or path.split("/")[0] not in left_out
    )
    name = _digest(*(text for piece in pieces for text in (piece.path, piece.pool_name)))
    fetch = tuple(piece for piece in pieces if pool.get(piece.pool_name) != piece.file.size)
    return Plan(f"{model.name}.{name[:16]}", pieces, fetch)


def unused(pool: Mapping[str, int], needed: Collection[str]) -> list[str]:
    """The files of the pool that may go. `pool` has how many links there are to each: one is the pool's own."""
    return sorted(name for name, links in pool.items() if links <= 1 and name not in needed)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).hexdigest()
