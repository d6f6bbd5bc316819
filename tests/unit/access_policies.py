"""Policies for tests of access."""

from __future__ import annotations

from pathlib import Path

from server.access.decisions import Access, JwtVerifier
from server.access.policy import Policy
from server.access.policy_text import parse_policy
from server.access.tokens import digest_of, shown

FILE = Path("/etc/policy.toml")
TOKEN, OTHER = "t" * 32, "o" * 32
BEARER = f"Bearer {TOKEN}"


def principal(name: str, *lines: str, token: str = TOKEN) -> str:
    """A principal of the file, known by a token."""
    return "\n".join(["[[principals]]", f'name = "{name}"', f'tokens = ["{shown(digest_of(token))}"]', *lines, ""])


def policy(text: str) -> Policy:
    return parse_policy(text, FILE)


def access(text: str, jwts: JwtVerifier | None = None, before: Access | None = None) -> Access:
    return Access(policy(text), jwts, before)
