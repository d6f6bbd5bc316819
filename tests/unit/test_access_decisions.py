"""Who a caller is and whether it may, in virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest

from server.access import decisions
from server.access.buckets import Bucket, Limits, Meter, Rate
from server.access.decisions import Access, Caller, JwtInvalid
from server.access.policy import open_policy
from server.access.tokens import digest_of, shown
from server.errors import Forbidden, RateLimited, Unauthenticated
from tests.unit.access_policies import BEARER, OTHER, access, policy, principal

ALLOW = 'allow = [{ apis = ["inference"], models = ["m*"] }]'
ONE = principal("one", ALLOW)
CLAIMED = """
[[jwt]]
issuer = "i"
audience = "a"
jwks_file = "jwks.json"
[[principals]]
name = "claimed"
claims = { sub = "s", groups = "g" }
allow = [{ apis = ["inference"], models = ["*"] }]
"""


class Vouching:
    """A `JwtVerifier` that says the same of every token that it has not taken back."""

    def __init__(self, claims: Mapping[str, Any], end: float) -> None:
        self.claims, self.end, self.asked = claims, end, 0

    def verify(self, token: str, wall_seconds: float) -> tuple[Mapping[str, Any], float]:
        self.asked += 1
        if wall_seconds >= self.end:
            raise JwtInvalid("it has expired")
        return self.claims, self.end


def name(of: Access, authorization: str = "", *certificate: str, now: float = 0.0) -> str:
    return of.identify(authorization, certificate, now, 1000.0 + now).name


@pytest.mark.parametrize("authorization", [BEARER, BEARER.replace("Bearer", "bearer"), BEARER.replace(" ", "  ") + " "])
def test_a_token_tells_who_calls(authorization: str) -> None:
    assert name(access(ONE), authorization) == "one"


WRONG = (
    "Bearer", "Bearer ", "Basic dDp0", "Bearer ü", "Bearer a.b.c", f"Bearer {OTHER}",
    BEARER[7:], BEARER[:-1], f"{BEARER}t", f"{BEARER},{BEARER}", f"{BEARER}\t", f"{BEARER}X",
)  # fmt: skip


@pytest.mark.parametrize("authorization", WRONG)
def test_a_wrong_credential_is_nobodys_and_not_anonymous(authorization: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        access(ONE).identify(authorization, (), 0.0, 0.0)
    assert caught.value.shown is True
    begins = (
        "the credential is not valid here" if authorization[:7] == "Bearer " else "the Authorization header must be"
    )
    assert str(caught.value).startswith(begins)
    assert BEARER[7:-1] not in str(caught.value)


def test_any_of_several_tokens_will_do() -> None:
    both = access(ONE.replace('"]', f'", "{shown(digest_of(OTHER))}"]', 1))
    assert [name(both, f"Bearer {token}") for token in (BEARER[7:], OTHER)] == ["one", "one"]


def test_a_certificate_tells_who_calls_where_no_token_does() -> None:
    both = access(ONE + principal("two", 'certificates = ["CN:x", "DNS:y"]', token=OTHER))
    assert name(both, "", "CN:a", "DNS:y") == "two"
    assert name(both, BEARER, "CN:x") == "one"
    assert name(both, "", "CN:y", "DNS:x") == "anonymous"


def test_a_jwt_is_good_until_it_expires_and_is_looked_at_once() -> None:
    jwts = Vouching({"sub": "s", "groups": ["f", "g"]}, end=1010.0)
    guarded = access(CLAIMED, jwts)
    assert [name(guarded, "Bearer a.b.c", now=now) for now in (0.0, 9.9)] == ["claimed"] * 2
    assert jwts.asked == 1
    with pytest.raises(Unauthenticated, match=r"^the credential is not valid here: it has expired$") as caught:
        name(guarded, "Bearer a.b.c", now=10.0)
    assert caught.value.shown is True


@pytest.mark.parametrize("claims", [{"sub": "s"}, {"sub": "s", "groups": ["gg"]}, {"sub": ["x"], "groups": "g"}, {}])
def test_a_jwt_without_a_principals_claims_is_nobodys(claims: Mapping[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        name(access(CLAIMED + ONE, Vouching(claims, 2000.0)), "Bearer a.b.c")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MAX_REMEMBERED", 3)
    jwts = Vouching({"sub": "s", "groups": "g"}, 2000.0)
    guarded = access(CLAIMED, jwts)
    for number in range(8):
        caller = guarded.identify(f"Bearer a.b.{number}", (), 0.0, 1000.0)
        for model in range(8):
            guarded.admit(caller, "inference", f"m{model}", 1, 0.0)
            assert len(caller.allowed) <= 3
    assert name(guarded, "Bearer a.b.7") == "claimed"
    assert jwts.asked == 8  # the last one is remembered
    assert name(guarded, "Bearer a.b.0") == "claimed"
    assert jwts.asked == 9
    for _ in range(2):
        assert name(guarded, "Bearer a.b.c" + " " * 4096) == "claimed"
    assert jwts.asked == 11  # too long to be kept


def test_a_memory_of_credentials_that_is_full_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "MAX_REMEMBERED", 3)
    jwts = Vouching({"sub": "s", "groups": "g"}, 2000.0)
    guarded = access(CLAIMED, jwts)
    asked = []
    for token in "0122312":
        name(guarded, f"Bearer a.b.{token}")
        asked.append(jwts.asked)
    assert asked == [1, 2, 3, 3, 4, 5, 6]


def test_a_credential_is_remembered_up_to_its_longest() -> None:
    jwts = Vouching({"sub": "s", "groups": "g"}, 2000.0)
    guarded = access(CLAIMED, jwts)
    longest = "Bearer a.b.c".ljust(decisions.MAX_REMEMBERED_CREDENTIAL)
    asked = []
    for authorization in (longest, longest, longest + " ", longest + " "):
        name(guarded, authorization)
        asked.append(jwts.asked)
    assert asked == [1, 1, 2, 3]


def test_what_was_allowed_is_remembered_up_to_the_longest_name() -> None:
    caller = Caller(policy(ONE).principals[0])
    longest = "m" * decisions.MAX_REMEMBERED_NAME
    for model in (None, "m1", longest, longest + "m"):
        assert caller.may("inference", model)
    assert caller.allowed == {("inference", None), ("inference", "m1"), ("inference", longest)}


def test_what_the_policy_does_not_allow_is_refused() -> None:
    guarded = access(ONE)
    one, anonymous = guarded.identify(BEARER, (), 0.0, 0.0), guarded.identify("", (), 0.0, 0.0)
    for _ in range(2):
        guarded.admit(one, "inference", "m1", 1, 0.0)
        guarded.check(one, "inference")
        with pytest.raises(Forbidden, match="'one' may not use 'inference' of model 'x'"):
            guarded.admit(one, "inference", "x", 1, 0.0)
        with pytest.raises(Forbidden, match="'one' may not use 'metadata'"):
            guarded.check(one, "metadata")
        with pytest.raises(Unauthenticated, match="'inference' of model 'm1' needs a credential") as caught:
            guarded.admit(anonymous, "inference", "m1", 1, 0.0)
        assert caught.value.shown is False


def test_where_nobody_has_credentials_a_refusal_says_what_opens() -> None:
    guarded = Access(open_policy(frozenset({"trace"}), "do this"))
    caller = guarded.identify("", (), 0.0, 0.0)
    guarded.admit(caller, "inference", "m", 1, 0.0)
    with pytest.raises(Forbidden, match="'trace' is closed here; do this"):
        guarded.admit(caller, "trace", "*", 1, 0.0)


LIMITED = principal("one", ALLOW, "limits = { requests_per_second = 2, requests_burst = 3 }")


def admit(guarded: Access, now: float) -> None:
    guarded.admit(guarded.identify(BEARER, (), now, now), "inference", "m", 100, now)


def test_a_principals_requests_are_limited_whatever_it_asks_with() -> None:
    guarded = access(LIMITED)
    for _ in range(3):
        admit(guarded, 5.0)
    with pytest.raises(RateLimited, match=r"^'one' asks for more than its limits allow; again in 0.25 s$") as caught:
        admit(guarded, 5.25)
    assert caught.value.retry_after == pytest.approx(0.25)
    admit(guarded, 5.5)


def test_a_principals_bytes_are_limited_by_the_size_of_its_messages() -> None:
    guarded = access(principal("one", ALLOW, "limits = { bytes_per_second = 100, bytes_burst = 150 }"))
    admit(guarded, 0.0)
    with pytest.raises(RateLimited) as caught:
        admit(guarded, 0.0)
    assert caught.value.retry_after == pytest.approx(0.5)


def test_a_new_policy_with_the_same_limits_gives_nothing_back() -> None:
    guarded = access(LIMITED)
    for _ in range(3):
        admit(guarded, 5.0)
    with pytest.raises(RateLimited):
        admit(access(LIMITED, before=guarded), 5.0)
    admit(access(LIMITED.replace("3 }", "4 }"), before=guarded), 5.0)


def test_a_refused_request_costs_nothing() -> None:
    guarded = access(LIMITED)
    caller = guarded.identify(BEARER, (), 0.0, 0.0)
    for _ in range(5):
        with pytest.raises(Forbidden):
            guarded.admit(caller, "inference", "x", 1, 0.0)
    admit(guarded, 0.0)


def test_a_bucket_fills_to_its_burst_and_no_further() -> None:
    bucket = Bucket(Rate(10, 5))
    assert bucket.seconds_until(5, 100.0) == 0
    bucket.take(5)
    assert bucket.seconds_until(1, 100.0) == pytest.approx(0.1)
    assert bucket.seconds_until(1, 99.0) == pytest.approx(0.1)  # a clock that goes back gives nothing
    assert bucket.seconds_until(5, 1000.0) == 0
    bucket.take(5)
    assert bucket.seconds_until(1, 1000.0) == pytest.approx(0.1)


def test_a_bucket_that_has_more_than_is_asked_for_has_nothing_to_wait_for() -> None:
    assert Bucket(Rate(10, 5)).seconds_until(1, 100.0) == 0


def test_more_than_a_burst_is_let_in_full_and_paid_for_afterwards() -> None:
    meter = Meter(Limits(bytes=Rate(10, 5)))
    assert meter.admit(50, 0.0) == 0
    assert meter.admit(1, 0.0) == pytest.approx(4.6)
    assert meter.admit(1, 4.5) > 0
    assert meter.admit(1, 4.7) == 0


def test_what_one_limit_refuses_is_not_taken_from_the_other() -> None:
    meter = Meter(Limits(Rate(1, 2), Rate(1, 10)))
    assert meter.admit(10, 0.0) == 0
    assert meter.admit(10, 0.0) == pytest.approx(10)
    assert meter.admit(0, 0.0) == 0
    assert meter.admit(0, 0.0) > 0


def test_a_token_that_is_no_text_has_a_digest_like_others() -> None:
    """Headers are bytes: those beyond UTF-8 arrive as surrogates."""
    assert digest_of("\udcff") == sha256(b"\xff").digest()
