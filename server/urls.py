"""URLs as people may see them: without what may be a secret."""

from __future__ import annotations

import re
from dataclasses import dataclass

_USER = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<user>[^/\s@'\"]+)@", re.IGNORECASE)
_QUERY = re.compile(r"((?:[a-z][a-z0-9+.-]*:/)?/[^\s?'\"<>]*)\?[^\s'\"<>]*", re.IGNORECASE)

_CONTAINER_SCHEMES = frozenset({"abfs", "abfss", "wasb", "wasbs"})
"""Azure's, where a container stands in the place of a user."""


def redacted(text: str) -> str:
    """`text` with every URL in it shortened, a path alone included: users, passwords, signatures and whatever a query
    holds are left out."""
    return _QUERY.sub(r"\1?…", _USER.sub(_without_user, text))


def _without_user(match: re.Match[str]) -> str:
    return match[0] if match["scheme"].lower() in _CONTAINER_SCHEMES else f"{match['scheme']}://…@"


@dataclass(frozen=True, slots=True, repr=False)
class RepositoryUrl:
    """A model repository at a distance, as fsspec names it. It prints without secrets."""

    text: str

    def __str__(self) -> str:
        return redacted(self.text)

    def left_out_of(self, text: str) -> str:
        """`text` redacted, and without what is secret in this URL, in whatever form it is told."""
        user, _, query = _USER.match(self.text), *self.text.partition("?")[1:]
        names = [query]
        if user is not None and user["scheme"].lower() not in _CONTAINER_SCHEMES:
            names += [user["user"], user["user"].partition(":")[2]]
        for name in filter(None, names):
            text = text.replace(name, "…")
        return redacted(text)

    __repr__ = __str__
