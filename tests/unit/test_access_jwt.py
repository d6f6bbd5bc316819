"""JSON Web Tokens: what signs for a caller, and what only looks as if it did."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from server.access.decisions import JwtInvalid
from server.access.jwt_tokens import KeysInvalid, Verifier, Verifiers
from server.access.policy import Issuer
from server.access.policy_text import DEFAULT_ALGORITHMS

NOW = 1_700_000_000.0
RSA, EC, ED = (
    rsa.generate_private_key(65537, 2048),
    ec.generate_private_key(ec.SECP256R1()),
    ed25519.Ed25519PrivateKey.generate(),
)
SIGNERS: dict[str, tuple[Any, Any]] = {
    "RS256": (RSA, RSAAlgorithm),
    "ES256": (EC, ECAlgorithm),
    "EdDSA": (ED, OKPAlgorithm),
}
CLAIMS = {"iss": "issuer", "aud": "convoy", "sub": "me", "exp": NOW + 60}
FILE = Path("jwks.json")


def jwk(algorithm: str, **more: Any) -> dict[str, Any]:
    key, kind = SIGNERS[algorithm]
    return dict(kind.to_jwk(key.public_key(), as_dict=True)) | {"kid": algorithm} | more


def verifier(
    *keys: dict[str, Any], issuer: str = "issuer", algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
) -> Verifier:
    content = json.dumps({"keys": list(keys or map(jwk, SIGNERS))}).encode()
    return Verifier(Issuer(issuer, "convoy", FILE, algorithms, 30.0), content)


def signed(algorithm: str = "ES256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    said = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    return jwt.encode(said, SIGNERS[algorithm][0], algorithm, {"kid": algorithm} if headers is None else headers)


def verify(token: str, *verifiers: Verifier, now: float = NOW) -> Any:
    return Verifiers(verifiers or [verifier()]).verify(token, now)


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_each_algorithm_signs_for_a_caller(algorithm: str) -> None:
    claims, end = verify(signed(algorithm))
    assert (claims["sub"], end) == ("me", NOW + 90)


def test_a_token_names_no_key_where_there_is_one() -> None:
    assert verify(signed(headers={}), verifier(jwk("ES256")))[0]["sub"] == "me"
    with pytest.raises(JwtInvalid, match="its key is not in the issuer's key set"):
        verify(signed(headers={}))


def test_a_list_of_audiences_needs_to_have_ours() -> None:
    assert verify(signed(aud=["other", "convoy"]))[0]["sub"] == "me"


def part(content: dict[str, Any]) -> bytes:
    return urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")


def unsigned(header: dict[str, Any]) -> str:
    return b".".join((part(header), part(CLAIMS), b"")).decode()


def confused(header: dict[str, Any], secret: bytes) -> str:
    """HMAC with what everybody knows."""
    text = part(header) + b"." + part(CLAIMS)
    return (text + b"." + urlsafe_b64encode(hmac.digest(secret, text, sha256)).rstrip(b"=")).decode()


PUBLIC_PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
ALGORITHM, SIGNATURE, KEY = (
    "its algorithm is not that of its key", "its signature is wrong", "its key is not in the issuer's key set",
)  # fmt: skip
HEAD, _, TAIL = signed().split(".")
STRANGER = jwt.encode(CLAIMS, ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": "ES256"})
ENDLESS = jwt.encode(CLAIMS | {"exp": True}, EC, "ES256", {"kid": "ES256"})
FORGED = {
    "no algorithm": (unsigned({"alg": "none", "kid": "RS256"}), ALGORITHM),
    "no algorithm, shouted": (unsigned({"alg": "NONE", "kid": "RS256"}), ALGORITHM),
    "a public key as the secret": (confused({"alg": "HS256", "kid": "RS256"}, PUBLIC_PEM), ALGORITHM),
    "another key's algorithm": (signed("ES256", {"kid": "RS256"}), ALGORITHM),
    "a key that is not there": (signed(headers={"kid": "other"}), KEY),
    "a key in the token itself": (signed(headers={"kid": "x", "jwk": jwk("ES256")}), KEY),
    "another's signature": (STRANGER, SIGNATURE),
    "no signature": (signed().rpartition(".")[0] + ".", SIGNATURE),
    "other claims": (f"{HEAD}.{part(CLAIMS | {'sub': 'root'}).decode()}.{TAIL}", SIGNATURE),
    "critical headers": (signed(headers={"kid": "ES256", "crit": ["exp"], "exp": 1}), "it cannot be read"),
    "expired": (signed(exp=NOW - 30), "it has expired"),
    "not valid yet": (signed(nbf=NOW + 31), "it is not valid yet"),
    "no end": (signed(exp=None), "it has not all of exp, iss and aud"),
    "an end that is none": (ENDLESS, "its 'exp' is no number"),
    "no audience": (signed(aud=None), "it has not all of exp, iss and aud"),
    "another audience": (signed(aud="other"), "it is for another audience"),
    "no issuer": (signed(iss=None), "it is from nobody whom this server trusts"),
    "another issuer": (signed(iss="other"), "it is from nobody whom this server trusts"),
    "nothing": ("..", "it cannot be read"),
    "no JSON": ("YQ.YQ.YQ", "it cannot be read"),
    "deep JSON": (urlsafe_b64encode(b"[" * 100_000).decode() + ".e30.", "it cannot be read"),
    "not base64": ("a.b.ü", "it cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize(("token", "problem"), FORGED.values(), ids=FORGED)
def test_a_token_that_does_not_sign_for_its_caller_is_refused(token: str, problem: str) -> None:
    with pytest.raises(JwtInvalid) as caught:
        verify(token)
    assert problem in str(caught.value)
    assert not any(each in str(caught.value) for each in token.split(".") if len(each) > 3)


def test_a_verifier_takes_its_own_issuer_alone() -> None:
    with pytest.raises(jwt.InvalidIssuerError):
        verifier().verify(signed(iss="other"), NOW)


@given(st.text() | st.lists(st.text('abc._-{}[]:,1"', max_size=12), min_size=3, max_size=3).map(".".join))
def test_whatever_a_stranger_sends_is_a_token_that_is_refused(text: str) -> None:
    with pytest.raises(JwtInvalid):
        verify(text)


def test_clocks_may_differ_by_the_leeway() -> None:
    assert verify(signed(exp=NOW - 29.5, nbf=NOW + 30))[0]["sub"] == "me"


def test_an_issuer_does_not_sign_for_another() -> None:
    with pytest.raises(JwtInvalid, match="its key is not in the issuer's key set"):
        verify(signed("RS256", iss="b"), verifier(jwk("RS256")), verifier(jwk("ES256"), issuer="b"))


SMALL = rsa.generate_private_key(65537, 1024)
SETS: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", "not JSON"),
    "deep JSON": (b"[" * 100_000, "not JSON"),
    "no object": (b"[]", "must be an object with a list 'keys'"),
    "no keys": (b'{"keys": []}', "has no key to check signatures of RS256, ES256, EdDSA"),
    "a secret": (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "keys[0]: 'kty' must be RSA, EC or OKP"),
    "a private key": (
        json.dumps({"keys": [ECAlgorithm.to_jwk(EC, as_dict=True)]}).encode(), "keys[0]: is a private key",
    ),
    "half a key": (b'{"keys": [{"kty": "EC", "crv": "P-256"}]}', "keys[0]: InvalidKeyError"),
    "a small key": (
        json.dumps({"keys": [RSAAlgorithm.to_jwk(SMALL.public_key(), as_dict=True)]}).encode(),
        "keys[0]: an RSA key must have 2048 bits, and has 1024",
    ),
    "one name of two": (json.dumps({"keys": [jwk("ES256"), jwk("RS256", kid="ES256")]}).encode(), "keys[1]: 'kid'"),
    "keys for encryption": (json.dumps({"keys": [jwk("RS256", use="enc")]}).encode(), "has no key to check"),
    "keys of other algorithms": (json.dumps({"keys": [jwk("RS256", alg="RS512")]}).encode(), "has no key to check"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "problem"), SETS.values(), ids=SETS)
def test_a_key_set_that_cannot_be_used_is_told_of_with_its_file(content: bytes, problem: str) -> None:
    with pytest.raises(KeysInvalid) as caught:
        Verifier(Issuer("issuer", "convoy", FILE, DEFAULT_ALGORITHMS, 30.0), content)
    assert str(caught.value).startswith("jwks.json: ")
    assert problem in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)
