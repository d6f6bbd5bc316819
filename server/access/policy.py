"""The access policy: principals, what each may do with which models, and how each is known. Frozen; checked when made.

A principal has grants, and may do what one of them covers. Nothing else is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from server.access.buckets import Limits
from server.restricted_apis import ApiCategory

METRICS = "metrics"
"""The page of metrics, which Triton's restricted protocols do not know."""
READ = ":read"
"""Behind the name of an API: only what looks, and changes nothing."""
CHANGING = (
    ApiCategory.MODEL_REPOSITORY.value,
    ApiCategory.SHARED_MEMORY.value,
    ApiCategory.TRACE.value,
    ApiCategory.LOGGING.value,
)
"""APIs with parts that change the server, and parts that look at it."""
READING = tuple(name + READ for name in CHANGING)
APIS: tuple[str, ...] = (*(category.value for category in ApiCategory), METRICS, *READING)
"""What a grant may name. Triton's names; with `:read` for the looking part of an API that changes things too."""

ANONYMOUS = "anonymous"
"""The name of those who show no credential."""
EVERY_MODEL = "*"


@dataclass(frozen=True, slots=True)
class Grant:
    """Some APIs for some models."""

    models: tuple[str, ...]
    """Names; a `*` in one stands for any characters, also none."""
    apis: frozenset[str]
    """Of `APIS`. An API covers its own `:read`."""

    def covers(self, api: str, model: str | None) -> bool:
        """Whether it allows this; `model` None: it is not about a model, or about whichever the caller may see."""
        if api not in self.apis and api.removesuffix(READ) not in self.apis:
            return False
        return model is None or any(matches(pattern, model) for pattern in self.models)


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may do something."""

    name: str
    grants: tuple[Grant, ...]
    limits: Limits = field(default=Limits())
    tokens: tuple[bytes, ...] = field(default=(), repr=False)
    """SHA-256 of bearer tokens."""
    certificates: tuple[str, ...] = ()
    """Names in a client's certificate, any of which will do: `CN:…`, `DNS:…`, `URI:…`, `email:…`."""
    claims: Mapping[str, str] = field(default_factory=dict)
    """What a JWT must say, all of it; empty: no JWT will do."""

    def may(self, api: str, model: str | None) -> bool:
        """Whether some grant allows it."""
        return any(grant.covers(api, model) for grant in self.grants)

    def has_claims(self, claims: Mapping[str, object]) -> bool:
        """Whether a JWT with these is this principal's. A claim that is a list (of groups, say) needs to have ours."""
        return bool(self.claims) and all(
            wanted in given if isinstance(given := claims.get(name), list) else wanted == given
            for name, wanted in self.claims.items()
        )


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who may vouch for callers by JWT (RFC 7519)."""

    issuer: str
    audience: str
    jwks_file: Path
    """A JSON Web Key Set (RFC 7517) with public keys."""
    algorithms: tuple[str, ...]
    leeway_seconds: float
    """How much its clock and ours may differ."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Everybody who may do something."""

    principals: tuple[Principal, ...]
    anonymous: Principal
    """Those who show no credential."""
    issuers: tuple[Issuer, ...] = ()
    hint: str = ""
    """Where there are no principals: how what is closed is opened, for whoever is refused."""


def open_policy(closed: frozenset[str], hint: str) -> Policy:
    """Of a server without a policy file: everybody may do everything, but for changes of the `closed` APIs."""
    every = Grant((EVERY_MODEL,), frozenset(APIS) - closed)
    return Policy((), Principal(ANONYMOUS, (every,)), hint=hint)


def matches(pattern: str, name: str) -> bool:
    """Whether a name is as the pattern has it. Takes time in proportion to the name, whatever the pattern."""
    first, *others = pattern.split("*")
    if not others:
        return name == pattern
    if not name.startswith(first):
        return False
    position = len(first)
    *middle, last = others
    for part in middle:
        found = name.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return len(name) - position >= len(last) and name.endswith(last)
