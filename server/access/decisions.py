"""Who a caller is, and whether it may: decisions on a `Policy`. Time is an argument; nothing is read, nothing logged.

A credential that was found valid is remembered, with whose it is, for as long as it is valid; so is what its principal
was allowed. A caller that asks the same again costs two look-ups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

from server.access.buckets import Limits, Meter
from server.access.policy import Policy, Principal
from server.access.tokens import owner_of
from server.errors import Forbidden, RateLimited, Unauthenticated

MAX_REMEMBERED = 1024
"""Valid credentials, and things that one of them was allowed: JWTs come anew, and patterns have stars."""
MAX_REMEMBERED_CREDENTIAL = 4096
MAX_REMEMBERED_NAME = 256
"""Characters of a credential and of a model's name; longer ones are looked at each time."""
BEARER = "bearer "
"""In front of a token (RFC 6750, 2.1), in small or capital letters."""
WRONG = "the credential is not valid here"
"""Of a token, whatever is wrong with it: who guesses learns nothing. A JWT's owner may be told, since its issuer's
signature, not a secret of ours, keeps it."""


class JwtInvalid(Exception):
    """A JWT is not valid here. The message says why, for the log, and has nothing of the token."""


class JwtVerifier(Protocol):
    """Who checks JWTs: `jwt_tokens.Verifiers`, which needs a library that only policies with issuers do."""

    def verify(self, token: str, wall_seconds: float) -> tuple[Mapping[str, Any], float]:
        """What it says, and until when it is valid (seconds of the wall clock). Raises `JwtInvalid`."""
        ...


@dataclass(slots=True)
class Caller:
    """Who asks."""

    principal: Principal
    until: float = inf
    """When its credential expires, on the monotonic clock."""
    allowed: set[tuple[str, str | None]] = field(default_factory=set)
    """What was found to be allowed: APIs and models."""

    @property
    def name(self) -> str:
        return self.principal.name

    def may(self, api: str, model: str | None) -> bool:
        """Whether the policy allows it; `model` None: whichever the caller may see."""
        if (api, model) in self.allowed:
            return True
        if not self.principal.may(api, model):
            return False
        if len(self.allowed) >= MAX_REMEMBERED:
            self.allowed.clear()
        if model is None or len(model) <= MAX_REMEMBERED_NAME:
            self.allowed.add((api, model))
        return True


class Access:
    """Decides by one policy."""

    def __init__(self, policy: Policy, jwts: JwtVerifier | None = None, before: Access | None = None) -> None:
        """`before`: whose place this one takes; limits that are the same go on from where they were."""
        self._policy = policy
        self._jwts = jwts
        self._anonymous = Caller(policy.anonymous)
        self._known: dict[str | tuple[str, ...], Caller] = {}
        self._tokens = [(token, principal) for principal in policy.principals for token in principal.tokens]
        self._certificates = {name: each for each in policy.principals for name in each.certificates}
        self._meters: dict[str, Meter] = {}
        for each in (policy.anonymous, *policy.principals):
            old = before.meter(each.name) if before is not None else None
            if each.limits != Limits():
                self._meters[each.name] = old if old and old.limits == each.limits else Meter(each.limits)

    def meter(self, name: str) -> Meter | None:
        """What a principal has asked lately; None where it has no limits."""
        return self._meters.get(name)

    def identify(self, authorization: str, certificate: tuple[str, ...], now: float, wall_seconds: float) -> Caller:
        """Who a caller is. Raises `Unauthenticated` for a wrong credential; without any, it is anonymous.

        `authorization`: that header, "" for none. It counts more than a certificate, which may be a proxy's.
        """
        key = authorization or certificate
        if not key:
            return self._anonymous
        caller = self._known.get(key)
        if caller is None or now >= caller.until:
            caller = self._by_token(authorization, now, wall_seconds) if authorization else self._by_names(certificate)
            if len(authorization) <= MAX_REMEMBERED_CREDENTIAL:
                if len(self._known) >= MAX_REMEMBERED:
                    self._known.clear()
                self._known[key] = caller
        return caller

    def check(self, caller: Caller, api: str, model: str | None = None) -> None:
        """Whether the caller may; `model` None: be it for one model. Raises `Unauthenticated` or `Forbidden`."""
        if not caller.may(api, model):
            raise self._refusal(caller, api, model)

    def admit(self, caller: Caller, api: str, model: str | None, size: int, now: float) -> None:
        """Let a request of `size` bytes in, and count it. Raises `Unauthenticated`, `Forbidden` or `RateLimited`."""
        self.check(caller, api, model)
        meter = self._meters.get(caller.name)
        wait = meter.admit(size, now) if meter is not None else 0.0
        if wait > 0.0:
            raise RateLimited(f"'{caller.name}' asks for more than its limits allow; again in {wait:.3g} s", wait)

    def _by_token(self, authorization: str, now: float, wall_seconds: float) -> Caller:
        if not authorization[: len(BEARER)].lower() == BEARER:
            raise Unauthenticated("the Authorization header must be 'Bearer' and a token", shown=True)
        token = authorization[len(BEARER) :].strip(" ")
        principal = owner_of(token, self._tokens)
        if principal is not None:
            return Caller(principal)
        if self._jwts is not None and token.count(".") == 2:
            try:
                claims, end = self._jwts.verify(token, wall_seconds)
            except JwtInvalid as error:
                raise Unauthenticated(f"{WRONG}: {error}", shown=True) from None
            for principal in self._policy.principals:
                if principal.has_claims(claims):
                    return Caller(principal, now + end - wall_seconds)
        raise Unauthenticated(WRONG, shown=True)

    def _by_names(self, certificate: tuple[str, ...]) -> Caller:
        for name in certificate:
            if name in self._certificates:
                return Caller(self._certificates[name])
        return self._anonymous

    def _refusal(self, caller: Caller, api: str, model: str | None) -> Forbidden | Unauthenticated:
        if not self._policy.principals:
            return Forbidden(f"'{api}' is closed here; {self._policy.hint}")
        about = f"'{api}'" if model is None else f"'{api}' of model '{model[:MAX_REMEMBERED_NAME]}'"
        if caller is self._anonymous:
            return Unauthenticated(f"{about} needs a credential: the header 'Authorization: Bearer TOKEN'", shown=False)
        return Forbidden(f"'{caller.name}' may not use {about}")
