"""A policy file's text, TOML 1.0, as a `Policy`. Pure; what is wrong is told with file and field.

TOML rather than YAML: the standard library reads it, `no` is a word in it, and it has no aliases to blow up.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from server.access.buckets import Limits, Rate
from server.access.policy import ANONYMOUS, APIS, EVERY_MODEL, Grant, Issuer, Policy, Principal
from server.access.tokens import parse_digest
from server.restricted_apis import ApiCategory

T = TypeVar("T")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that a public key checks. Never `none`, and none with a secret that both sides know."""
DEFAULT_ALGORITHMS = ("RS256", "ES256", "EdDSA")
MAX_LEEWAY_SECONDS = 300.0

_NAME = re.compile(r"[\w.@:/+-]{1,128}", re.ASCII)
_CERTIFICATE = re.compile(r"(CN|DNS|URI|email):.{1,512}")


class PolicyInvalid(Exception):
    """The policy file cannot be used. The message names file and field."""


def parse_policy(text: str, file: Path) -> Policy:
    """The policy in a file's text. Raises `PolicyInvalid`."""
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PolicyInvalid(f"{file}: not TOML: {error}") from None
    table = _Table(content, f"{file}: ")
    anonymous = table.table("anonymous", _anonymous) or Principal(ANONYMOUS, (_HEALTH,))
    issuers = tuple(table.tables("jwt", lambda each: _issuer(each, file.parent)))
    principals = tuple(table.tables("principals", lambda each: _principal(each, several_issuers=len(issuers) > 1)))
    table.finish()
    _check_unique(file, principals)
    if len({issuer.issuer for issuer in issuers}) < len(issuers):
        raise PolicyInvalid(f"{file}: two [[jwt]] have the same issuer: put all its keys into one set")
    if any(principal.claims for principal in principals) and not issuers:
        raise PolicyInvalid(f"{file}: principals have 'claims', and there is no [[jwt]] to say who vouches for them")
    return Policy(principals, anonymous, issuers)


_HEALTH = Grant((), frozenset({ApiCategory.HEALTH.value}))
"""What everybody may, unless the file says otherwise: ask whether the server lives and is ready, as balancers do."""


def _anonymous(table: _Table) -> Principal:
    principal = Principal(ANONYMOUS, _grants(table), _limits(table))
    table.finish()
    return principal


def _principal(table: _Table, *, several_issuers: bool) -> Principal:
    name = table.text("name")
    if not _NAME.fullmatch(name) or name == ANONYMOUS:
        raise table.wrong("name", "must be 1 to 128 letters, digits or ._-@:/+, and not 'anonymous'")
    principal = Principal(
        name,
        _grants(table),
        _limits(table),
        table.texts("tokens", parse_digest),
        table.texts("certificates", _certificate),
        table.claims("claims"),
    )
    if not (principal.tokens or principal.certificates or principal.claims):
        raise table.wrong("", f"nothing tells '{name}' from others: give it tokens, certificates or claims")
    if several_issuers and principal.claims and "iss" not in principal.claims:
        raise table.wrong("claims", "needs 'iss' where there are several [[jwt]]: any of them could make up the rest")
    table.finish()
    return principal


def _grants(table: _Table) -> tuple[Grant, ...]:
    return tuple(table.tables("allow", _grant))


def _grant(table: _Table) -> Grant:
    apis = table.texts("apis", _api)
    if not apis:
        raise table.wrong("apis", f"must be a list of {', '.join(APIS)}")
    grant = Grant(table.texts("models", _pattern), frozenset(apis))
    table.finish()
    return grant


def _limits(table: _Table) -> Limits:
    limits = table.table("limits", _limits_of)
    return limits or Limits()


def _limits_of(table: _Table) -> Limits:
    limits = Limits(_rate(table, "requests"), _rate(table, "bytes"))
    table.finish()
    return limits


def _rate(table: _Table, what: str) -> Rate | None:
    per_second, burst = f"{what}_per_second", f"{what}_burst"
    rate = table.number(per_second, None, least=1e-6)
    if rate is None:
        if burst in table:
            raise table.wrong(burst, f"needs {per_second}")
        return None
    size = table.number(burst, max(1.0, rate), least=1.0)
    assert size is not None, "it has a default"
    return Rate(rate, size)


def _issuer(table: _Table, folder: Path) -> Issuer:
    leeway = table.number("leeway_seconds", 30.0, least=0.0, most=MAX_LEEWAY_SECONDS)
    assert leeway is not None, "it has a default"
    issuer = Issuer(
        table.text("issuer"),
        table.text("audience"),
        folder / table.text("jwks_file"),
        table.texts("algorithms", _algorithm) or DEFAULT_ALGORITHMS,
        leeway,
    )
    table.finish()
    return issuer


def _api(text: str) -> str:
    if text not in APIS:
        raise ValueError(f"unknown API '{text}'; there are {', '.join(APIS)}")
    return text


def _pattern(text: str) -> str:
    if not text:
        raise ValueError(f"a model's name is not empty; '{EVERY_MODEL}' is every model")
    return text


def _certificate(text: str) -> str:
    if not _CERTIFICATE.fullmatch(text):
        raise ValueError(f"must be CN:, DNS:, URI: or email: and a name, not '{text}'")
    return text


def _algorithm(text: str) -> str:
    if text not in ALGORITHMS:
        raise ValueError(f"'{text}' is none of {', '.join(ALGORITHMS)}")
    return text


def _check_unique(file: Path, principals: tuple[Principal, ...]) -> None:
    """One credential is one principal's, and one name is too."""
    for what, values in (
        ("the name", [(principal.name, principal.name) for principal in principals]),
        ("a token", [(token, principal.name) for principal in principals for token in principal.tokens]),
        ("a certificate", [(name, principal.name) for principal in principals for name in principal.certificates]),
        ("the claims", [(tuple(sorted(p.claims.items())), p.name) for p in principals if p.claims]),
    ):
        owners: dict[object, str] = {}
        for value, owner in values:
            if value in owners:
                raise PolicyInvalid(f"{file}: principals '{owners[value]}' and '{owner}' have {what} in common")
            owners[value] = owner


class _Table:
    """A table of the file: what is taken from it is checked, and what nobody takes is wrong."""

    def __init__(self, content: Mapping[str, Any], where: str) -> None:
        self._content = content
        self._where = where
        self._taken: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def wrong(self, key: str, problem: str) -> PolicyInvalid:
        """`key` "": the table itself."""
        return PolicyInvalid(f"{(self._where + key).removesuffix('.')} {problem}")

    def finish(self) -> None:
        """Raises `PolicyInvalid` for what was not asked for."""
        for key in self._content:
            if key not in self._taken:
                raise self.wrong(key, f"is not known here; there are {', '.join(sorted(self._taken))}")

    def text(self, key: str) -> str:
        value = self._take(key, str)
        if not value:
            raise self.wrong(key, "is missing, and must be a string")
        return str(value)

    def texts(self, key: str, check: Callable[[str], T]) -> tuple[T, ...]:
        values: list[T] = []
        for position, value in enumerate(self._take(key, list) or []):
            if not isinstance(value, str):
                raise self.wrong(f"{key}[{position}]", "must be a string")
            try:
                values.append(check(value))
            except ValueError as error:
                raise self.wrong(f"{key}[{position}]", str(error)) from None
        return tuple(values)

    def number(self, key: str, default: float | None, *, least: float, most: float = 1e15) -> float | None:
        value = self._take(key, int | float)
        if value is None:
            return default
        if isinstance(value, bool) or not isfinite(value) or not least <= value <= most:
            raise self.wrong(key, f"must be a number from {least:g} to {most:g}")
        return float(value)

    def claims(self, key: str) -> Mapping[str, str]:
        claims = self._take(key, dict) or {}
        for name, value in claims.items():
            if not isinstance(value, str):
                raise self.wrong(f"{key}.{name}", "must be a string")
        return claims

    def table(self, key: str, read: Callable[[_Table], T]) -> T | None:
        value = self._take(key, dict)
        return None if value is None else read(_Table(value, f"{self._where}{key}."))

    def tables(self, key: str, read: Callable[[_Table], T]) -> list[T]:
        values = self._take(key, list) or []
        found: list[T] = []
        for position, value in enumerate(values):
            where = f"{key}[{position}]"
            if not isinstance(value, dict):
                raise self.wrong(where, "must be a table")
            found.append(read(_Table(value, f"{self._where}{where}.")))
        return found

    def _take(self, key: str, kind: Any) -> Any:
        self._taken.add(key)
        value = self._content.get(key)
        if value is not None and not isinstance(value, kind):
            name = {str: "a string", list: "a list", dict: "a table"}.get(kind, "a number")
            raise self.wrong(key, f"must be {name}")
        return value
