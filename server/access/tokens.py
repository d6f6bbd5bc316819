"""Bearer tokens and what is kept of them.

A token is 256 random bits, so one round of SHA-256 without a salt keeps it as well as any slow hash would: nobody can
try 2^255 of them, and two equal ones do not happen. A slow hash (bcrypt, argon2) is for what people make up. It would
cost 100 ms for every wrong token, which strangers may send as often as they like.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest
from typing import TypeVar

T = TypeVar("T")

PREFIX = "sha256:"
"""What is in front of a digest in the policy file, in hexadecimal digits."""
MIN_LENGTH = 32
"""Characters of a token: fewer could be guessed, if somebody got hold of the policy file."""


def new_token() -> str:
    """256 bits from the system's generator, in characters that headers and URLs take."""
    return "cvy_" + secrets.token_urlsafe(32)


def digest_of(token: str) -> bytes:
    """What is kept of a token."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def shown(digest: bytes) -> str:
    """As the policy file has it."""
    return PREFIX + digest.hex()


def parse_digest(text: str) -> bytes:
    """The digest that `shown` made a text of. Raises `ValueError`, without the text: it might be a token by mistake."""
    digits = text.removeprefix(PREFIX)
    if not text.startswith(PREFIX) or len(digits) != 64:
        raise ValueError(f"must be {PREFIX} and 64 hexadecimal digits, as `python -m server.access hash` prints them")
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise ValueError(f"has characters after {PREFIX} that are no hexadecimal digits") from None


def owner_of(token: str, owners: Iterable[tuple[bytes, T]]) -> T | None:
    """Whose token it is. Looks at all of them, each in constant time: how long it takes tells nothing."""
    digest = digest_of(token)
    found: T | None = None
    for kept, owner in owners:
        if compare_digest(digest, kept):
            found = owner
    return found
