"""The errors that there are."""

from __future__ import annotations

from server.errors import ConvoyError


def every(error: type[ConvoyError]) -> list[type[ConvoyError]]:
    """All classes below this one."""
    return [kind for child in error.__subclasses__() for kind in (child, *every(child))]
