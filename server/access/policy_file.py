"""The policy file and the key sets that it names, read again when they have changed. The one place here that reads.

A change is seen within a second of the next request. A file that cannot be used leaves the old policy in force: its
editor sees a warning in the log, and nobody is locked out, or in, by half of a file.
"""

from __future__ import annotations

import logging
import os
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from server.access.decisions import Access
from server.access.policy import Policy
from server.access.policy_text import PolicyInvalid, parse_policy
from server.files import given_by

if TYPE_CHECKING:
    from server.access.jwt_tokens import Verifiers

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How long it takes, at most, until a change counts; a look is one `stat` a file."""


class PolicyFile:
    """The access that a file grants, now."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError` where a file cannot be read, or means nothing."""
        self._path = path
        self._key_sets: tuple[Path, ...] = ()
        self._looked_at = -inf
        self._access = self._read(None)
        self._stamp = self._stamps()

    def access(self, now: float) -> Access:
        """What is in force."""
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._refresh()
        return self._access

    def _refresh(self) -> None:
        try:
            stamp = self._stamps()
            if stamp == self._stamp:
                return
            self._stamp = stamp  # also where it cannot be used: that is said once
            self._access = self._read(self._access)
            self._stamp = self._stamps()
            log.info("the access policy was read anew from %s", self._path)
        except OSError as error:
            log.warning("the access policy has changed but cannot be used, keeping the old one: %s", error)

    def _read(self, before: Access | None) -> Access:
        policy, verifiers = read_policy(self._path)
        self._key_sets = tuple(issuer.jwks_file for issuer in policy.issuers)
        return Access(policy, verifiers, before)

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self._path, *self._key_sets))


def read_policy(path: Path) -> tuple[Policy, Verifiers | None]:
    """A policy, and who checks its JWTs. Raises `OSError` with what is wrong, and where."""
    try:
        with given_by("--auth-policy", path):
            text = path.read_text(encoding="utf-8")
        policy = parse_policy(text, path)
    except (PolicyInvalid, UnicodeDecodeError) as error:
        raise OSError(f"--auth-policy: {error}") from None
    if not policy.issuers:
        return policy, None
    try:
        from server.access.jwt_tokens import KeysInvalid, Verifier, Verifiers
    except ImportError as error:
        raise OSError(f"--auth-policy {path}: [[jwt]]: {error}: pip install 'convoy[auth]'") from error
    try:
        return policy, Verifiers([Verifier(issuer, _key_set(path, issuer.jwks_file)) for issuer in policy.issuers])
    except KeysInvalid as error:
        raise OSError(f"--auth-policy: {error}") from None


def _key_set(policy: Path, path: Path) -> bytes:
    with given_by(f"--auth-policy {policy}: [[jwt]]: jwks_file", path):
        return path.read_bytes()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
