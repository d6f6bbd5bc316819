"""The policy file on disk: read again when it has changed, and kept in force where it cannot be read."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from server.access import __main__ as commands
from server.access.policy_file import LOOK_SECONDS, PolicyFile
from server.access.tokens import digest_of, shown
from server.errors import Unauthenticated
from tests.unit.access_policies import BEARER, OTHER, principal


def write(path: Path, text: str) -> None:
    """As an editor does that never leaves half a file."""
    path.with_suffix(".new").write_text(text)
    os.replace(path.with_suffix(".new"), path)


def name(file: PolicyFile, authorization: str, now: float) -> str:
    return file.access(now).identify(authorization, (), now, 1000.0 + now).name


def test_a_token_that_was_taken_out_is_refused_within_a_second(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(principal("a"))
    file = PolicyFile(path)
    assert name(file, BEARER, 0.0) == "a"
    write(path, principal("b", token=OTHER))
    assert name(file, BEARER, LOOK_SECONDS / 2) == "a"
    with pytest.raises(Unauthenticated):
        name(file, BEARER, LOOK_SECONDS)
    assert name(file, f"Bearer {OTHER}", LOOK_SECONDS) == "b"


def test_a_file_that_cannot_be_used_leaves_the_old_policy_and_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(principal("a"))
    file = PolicyFile(path)
    write(path, "principals = 1")
    assert [name(file, BEARER, now) for now in (0.0, 2.0, 4.0)] == ["a"] * 3
    (said,) = caplog.messages
    assert "keeping the old one" in said and "principals must be a list" in said
    path.unlink()
    assert name(file, BEARER, 6.0) == "a"
    write(path, principal("c"))
    assert name(file, BEARER, 8.0) == "c"


def test_a_key_that_was_taken_out_signs_for_nobody_any_more(tmp_path: Path) -> None:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    sets = [json.dumps({"keys": [ECAlgorithm.to_jwk(key.public_key(), as_dict=True)]}) for key in keys]
    (tmp_path / "jwks.json").write_text(sets[0])
    path = tmp_path / "policy.toml"
    issuer = '[[jwt]]\nissuer = "i"\naudience = "a"\njwks_file = "jwks.json"\n'
    path.write_text(issuer + '[[principals]]\nname = "a"\nclaims = { sub = "s" }\n')
    token = "Bearer " + jwt.encode({"iss": "i", "aud": "a", "sub": "s", "exp": 5000}, keys[0], "ES256")
    file = PolicyFile(path)
    assert name(file, token, 0.0) == "a"
    write(tmp_path / "jwks.json", sets[1])
    with pytest.raises(Unauthenticated, match="its signature is wrong"):
        name(file, token, 2.0)


@pytest.mark.parametrize(
    "text", ["principals = 1", "\udcff", '[[jwt]]\nissuer = "i"\naudience = "a"\njwks_file = "none"\n']
)
def test_a_server_does_not_start_with_a_file_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(OSError, match=r"--auth-policy: .*policy\.toml|No such file|codec"):
        PolicyFile(path)


def test_a_new_token_and_its_hash_belong_together(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commands.main(["token"]) == 0
    token, kept = capsys.readouterr().out.splitlines()
    assert shown(digest_of(token)) == kept
    assert token.startswith("cvy_") and len(token) == 4 + 43  # 256 bits in base64
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{token}\n"))
    assert commands.main(["hash"]) == 0
    assert capsys.readouterr().out.strip() == kept
    commands.main(["token"])
    assert capsys.readouterr().out.splitlines()[0] != token


def test_a_token_that_could_be_guessed_is_not_hashed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hunter2\n"))
    assert commands.main(["hash"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "hunter2" not in said.err


def test_a_file_is_checked_before_a_server_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(principal("a", 'allow = [{ apis = ["inference"], models = ["m"] }]'))
    assert commands.main(["check", str(path)]) == 0
    assert capsys.readouterr().out == "a: inference of m\nanonymous: health of no model\n"
    path.write_text("wrong = 1")
    assert commands.main(["check", str(path)]) == 1
    assert f"{path}: wrong is not known here" in capsys.readouterr().err
