"""JSON Web Tokens: who an issuer says that a caller is (RFC 7519, with the advice of RFC 8725).

PyJWT checks signatures. What a token says of its own algorithm decides nothing: each key of the set is bound to the one
algorithm that it is for, before any token comes. So `none` is refused, and so is a token whose HMAC was made with a
public key. It refuses critical headers that it does not know, too. Time is an argument.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import jwt

from server.access.decisions import JwtInvalid
from server.access.policy import Issuer

MIN_RSA_BITS = 2048

REASONS: dict[type[Exception], str] = {
    jwt.InvalidSignatureError: "its signature is wrong",
    jwt.InvalidAlgorithmError: "its algorithm is not that of its key",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is from nobody whom this server trusts",
    jwt.MissingRequiredClaimError: "it has not all of exp, iss and aud",
}
"""What its owner is told, in words of ours: those of a library may quote it."""


class KeysInvalid(Exception):
    """A key set cannot be used. The message names the file."""


class Verifier:
    """One issuer's keys."""

    def __init__(self, issuer: Issuer, key_set: bytes) -> None:
        """`key_set`: what its file has. Raises `KeysInvalid`."""
        self.issuer = issuer
        self._keys: dict[str, jwt.PyJWK] = {}
        for position, key in enumerate(_keys(key_set, issuer)):
            where = f"{issuer.jwks_file}: keys[{position}]"
            if key.get("use", "sig") != "sig":
                continue  # for encryption
            bound = _bound(key, where)
            if bound.algorithm_name not in issuer.algorithms:
                continue  # of others who trust this issuer
            name = key.get("kid", "")
            if not isinstance(name, str) or name in self._keys:
                raise KeysInvalid(f"{where}: 'kid' must be a string that no other key has")
            self._keys[name] = bound
        if not self._keys:
            raise KeysInvalid(f"{issuer.jwks_file}: has no key to check signatures of {', '.join(issuer.algorithms)}")

    def verify(self, token: str, wall_seconds: float) -> tuple[Mapping[str, Any], float]:
        """What a token says, and until when it is valid (seconds of the wall clock, the leeway added).

        Raises `JwtInvalid` and `jwt.InvalidTokenError`.
        """
        key = self._key_of(jwt.get_unverified_header(token))
        claims = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=self.issuer.issuer,
            audience=self.issuer.audience,
            options={"require": ["exp", "iss", "aud"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
        leeway = self.issuer.leeway_seconds
        end = _time(claims, "exp") + leeway
        if wall_seconds >= end:
            raise JwtInvalid("it has expired")
        if "nbf" in claims and wall_seconds < _time(claims, "nbf") - leeway:
            raise JwtInvalid("it is not valid yet")
        return claims, end

    def _key_of(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        name = header.get("kid")
        if name is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        key = self._keys.get(name) if isinstance(name, str) else None
        if key is None:
            raise JwtInvalid("its key is not in the issuer's key set")
        return key


class Verifiers:
    """All issuers that the policy trusts."""

    def __init__(self, verifiers: Iterable[Verifier]) -> None:
        self._verifiers = {verifier.issuer.issuer: verifier for verifier in verifiers}

    def verify(self, token: str, wall_seconds: float) -> tuple[Mapping[str, Any], float]:
        """What a token says, and until when it is valid. Raises `JwtInvalid`."""
        try:
            # What it says of its issuer, unchecked, chooses who checks it; then the issuer is checked too.
            said = jwt.decode(token, options={"verify_signature": False}).get("iss")
            verifier = self._verifiers.get(said) if isinstance(said, str) else None
            if verifier is None:
                raise JwtInvalid(REASONS[jwt.InvalidIssuerError])
            return verifier.verify(token, wall_seconds)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise JwtInvalid(REASONS.get(type(error), "it cannot be read")) from None


def _keys(key_set: bytes, issuer: Issuer) -> list[dict[str, Any]]:
    try:
        content = json.loads(key_set)
    except (ValueError, RecursionError) as error:
        raise KeysInvalid(f"{issuer.jwks_file}: not JSON: {error}") from None
    keys = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise KeysInvalid(f"{issuer.jwks_file}: must be an object with a list 'keys' (RFC 7517)")
    return keys


def _bound(key: dict[str, Any], where: str) -> jwt.PyJWK:
    """A key, bound to the algorithm that it is for."""
    if key.get("kty") not in ("RSA", "EC", "OKP"):
        raise KeysInvalid(f"{where}: 'kty' must be RSA, EC or OKP: a key set has public keys, and no secrets")
    if "d" in key:
        raise KeysInvalid(f"{where}: is a private key, which only the issuer should have")
    try:
        bound = jwt.PyJWK(key)
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise KeysInvalid(f"{where}: {type(error).__name__}") from None
    if key["kty"] == "RSA" and bound.key.key_size < MIN_RSA_BITS:
        raise KeysInvalid(f"{where}: an RSA key must have {MIN_RSA_BITS} bits, and has {bound.key.key_size}")
    return bound


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e12 < value < 1e12:
        raise JwtInvalid(f"its '{name}' is no number of seconds")
    return float(value)
