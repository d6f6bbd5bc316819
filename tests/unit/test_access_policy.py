"""The policy file: what it says, and what is told of what it cannot say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.access.buckets import Limits, Rate
from server.access.policy import APIS, CHANGING, READ, Grant, matches, open_policy
from server.access.policy_text import DEFAULT_ALGORITHMS, PolicyInvalid
from server.access.tokens import digest_of
from tests.unit.access_policies import TOKEN, policy, principal

ISSUER = '[[jwt]]\nissuer = "i"\naudience = "a"\njwks_file = "keys/jwks.json"\n'
NAMED = '[[principals]]\nname = "a"\n'
CLAIMS = '[[principals]]\nname = "a"\nclaims = { sub = "s" }\n'
ALLOW = 'allow = [{ apis = ["inference"], models = ["m"] }]'


def test_a_principal_has_its_fields() -> None:
    (found,) = policy(
        principal("a", ALLOW, 'certificates = ["CN:a"]', "limits = { requests_per_second = 2, bytes_per_second = 0.5 }")
    ).principals
    assert (found.name, found.tokens, found.certificates) == ("a", (digest_of(TOKEN),), ("CN:a",))
    assert found.grants == (Grant(("m",), frozenset({"inference"})),)
    assert found.limits == Limits(Rate(2, 2), Rate(0.5, 1))


def test_an_issuer_has_its_fields_and_a_file_beside_the_policy() -> None:
    (found,) = policy(ISSUER).issuers
    assert (found.issuer, found.audience, found.jwks_file) == ("i", "a", Path("/etc/keys/jwks.json"))
    assert (found.algorithms, found.leeway_seconds) == (DEFAULT_ALGORITHMS, 30)


@pytest.mark.parametrize("seconds", [0, 300])
def test_an_issuers_leeway_may_be_as_much_as_there_is(seconds: int) -> None:
    (found,) = policy(f"{ISSUER}leeway_seconds = {seconds}").issuers
    assert found.leeway_seconds == seconds


def test_whoever_shows_nothing_may_ask_for_the_servers_health_unless_the_file_says_more() -> None:
    anonymous = policy("").anonymous
    assert [api for api in APIS if anonymous.may(api, None)] == ["health"]
    assert not anonymous.may("health", "m")
    assert policy('[anonymous]\nallow = [{ apis = ["metrics"] }]').anonymous.may("metrics", None)
    assert not policy("[anonymous]").anonymous.may("health", None)
    limited = policy("[anonymous]\nlimits = { requests_per_second = 4, requests_burst = 1 }").anonymous
    assert (limited.name, limited.limits) == ("anonymous", Limits(Rate(4, 1)))


WRONG = {
    "no TOML": ("a = ", "/etc/policy.toml: not TOML: "),
    "no end of brackets": ("a = " + "[" * 5000, "/etc/policy.toml: not TOML: "),
    "a field that there is not": (
        "pricipals = []",
        "/etc/policy.toml: pricipals is not known here; there are anonymous, jwt, principals",
    ),
    "a field of another type": ("principals = 1", "/etc/policy.toml: principals must be a list"),
    "a list of something else": ("principals = [1]", "principals[0] must be a table"),
    "no name": ("[[principals]]", "principals[0].name is missing"),
    "a reserved name": (principal("anonymous"), "principals[0].name must be"),
    "a name with a space": (principal("a b"), "principals[0].name must be"),
    "no way to know it": (NAMED, "principals[0] nothing tells 'a' from others"),
    "a token that is none": (NAMED + 'tokens = ["secret"]', "principals[0].tokens[0] must be sha256:"),
    "a token with other letters": (
        f'{NAMED}tokens = ["sha256:{"g" * 64}"]',
        "principals[0].tokens[0] has characters after sha256: that are no hexadecimal digits",
    ),
    "a hash without its kind": (f'{NAMED}tokens = ["{"a" * 64}"]', "principals[0].tokens[0] must be sha256:"),
    "half a hash": (f'{NAMED}tokens = ["sha256:{"a" * 63}"]', "principals[0].tokens[0] must be sha256:"),
    "a name that is a number": ("[[principals]]\nname = 1", "principals[0].name must be a string"),
    "limits that are none": (principal("a", "limits = 1"), "principals[0].limits must be a table"),
    "a limit that is text": (
        principal("a", 'limits = { bytes_per_second = "1" }'),
        "principals[0].limits.bytes_per_second must be a number",
    ),
    "a token that is a number": (NAMED + "tokens = [1]", "principals[0].tokens[0] must be a string"),
    "an unknown API": (
        principal("a", 'allow = [{ apis = ["inference", "infer"] }]'),
        "principals[0].allow[0].apis[1] unknown API 'infer'; there are health, metadata, inference",
    ),
    "reading what reads": (principal("a", 'allow = [{ apis = ["health:read"] }]'), "unknown API 'health:read'"),
    "a grant of nothing": (
        principal("a", 'allow = [{ models = ["*"] }]'),
        "allow[0].apis must be a list of health, metadata",
    ),
    "an empty pattern": (
        principal("a", 'allow = [{ apis = ["inference"], models = [""] }]'),
        "principals[0].allow[0].models[0] a model's name is not empty",
    ),
    "a certificate of no kind": (principal("a", 'certificates = ["a"]'), "principals[0].certificates[0] must be CN:"),
    "a limit of nothing": (
        principal("a", "limits = { requests_per_second = 0 }"),
        "principals[0].limits.requests_per_second must be a number from 1e-06",
    ),
    "a limit that is true": (principal("a", "limits = { bytes_per_second = true }"), "bytes_per_second must be"),
    "a limit without end": (principal("a", "limits = { bytes_per_second = inf }"), "bytes_per_second must be"),
    "a limit beyond what is counted exactly": (
        principal("a", "limits = { bytes_per_second = 1000000000000001 }"),
        "bytes_per_second must be a number from 1e-06 to 1e+15",
    ),
    "a burst of what has no limit": (
        principal("a", "limits = { requests_burst = 2 }"),
        "principals[0].limits.requests_burst needs requests_per_second",
    ),
    "claims that nobody vouches for": (CLAIMS, "principals have 'claims', and there is no [[jwt]]"),
    "a claim that is a number": (ISSUER + CLAIMS.replace('"s"', "1"), "principals[0].claims.sub must be a string"),
    "claims of any issuer": (ISSUER + ISSUER.replace('"i"', '"j"') + CLAIMS, "principals[0].claims needs 'iss'"),
    "one issuer of two": (ISSUER + ISSUER, "two [[jwt]] have the same issuer"),
    "no algorithm": (ISSUER + 'algorithms = ["none"]', "jwt[0].algorithms[0] 'none' is none of RS256"),
    "an algorithm with a secret": (
        ISSUER + 'algorithms = ["HS256"]',
        "jwt[0].algorithms[0] 'HS256' is none of RS256, RS384",
    ),
    "too much leeway": (ISSUER + "leeway_seconds = 301", "jwt[0].leeway_seconds must be a number from 0 to 300"),
    "an issuer without an audience": ('[[jwt]]\nissuer = "i"', "jwt[0].audience is missing"),
    "one name of two": (principal("a") + principal("a", token="x" * 32), "'a' and 'a' have the name in common"),
    "one token of two": (principal("a") + principal("b"), "principals 'a' and 'b' have a token in common"),
    "one certificate of two": (
        principal("a", 'certificates = ["CN:x"]') + principal("b", 'certificates = ["CN:x"]', token="x" * 32),
        "principals 'a' and 'b' have a certificate in common",
    ),
    "the same claims of two": (
        ISSUER + CLAIMS + CLAIMS.replace('"a"', '"b"'),
        "principals 'a' and 'b' have the claims in common",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_with_file_and_field(text: str, problem: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        policy(text)
    assert str(caught.value).startswith("/etc/policy.toml: ")
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_api_covers_its_reading_part_and_not_the_other_way_round() -> None:
    for api in CHANGING:
        assert Grant(("*",), frozenset({api})).covers(api + READ, None)
        assert not Grant(("*",), frozenset({api + READ})).covers(api, None)
        assert Grant(("*",), frozenset({api + READ})).covers(api + READ, "m")


def test_grants_do_not_lend_each_other_models() -> None:
    allow = 'allow = [{ apis = ["inference"], models = ["a"] }, { apis = ["metadata"], models = ["b"] }]'
    (found,) = policy(principal("p", allow)).principals
    assert found.may("inference", "a") and found.may("metadata", "b")
    assert not found.may("inference", "b") and not found.may("metadata", "a")


@given(st.text("ab*", max_size=6), st.text("ab*.", max_size=8))
@example("a*a", "a")
@example("ab*ab*", "ab")
@example("a*.*b", "ab")
@example("*ab*b", "ab")
def test_a_star_stands_for_any_characters_and_nothing_else_is_special(pattern: str, name: str) -> None:
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert matches(pattern, name) is (re.fullmatch(expression, name, re.DOTALL) is not None)


def test_without_a_file_everybody_may_everything_but_change_what_is_closed() -> None:
    everybody = open_policy(frozenset({"trace"}), "").anonymous
    assert [api for api in APIS if not everybody.may(api, "m")] == ["trace"]
    assert everybody.name == "anonymous"


def test_claims_may_be_of_one_of_several_issuers() -> None:
    claims = CLAIMS.replace('sub = "s"', 'iss = "j", sub = "s"')
    (found,) = policy(ISSUER + ISSUER.replace('"i"', '"j"') + claims).principals
    assert found.has_claims({"iss": "j", "sub": "s"}) and not found.has_claims({"iss": "i", "sub": "s"})
