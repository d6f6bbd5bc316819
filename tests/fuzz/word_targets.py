"""Short texts: patterns, secrets, trace contexts, URLs, settings. Each is read, or refused with ValueError's words."""

from __future__ import annotations

from contextlib import suppress

from server import restricted_apis, trace_config
from server.access.decisions import Access
from server.access.jwt_tokens import Verifier, Verifiers
from server.access.policy import Issuer, matches
from server.access.policy_text import PolicyInvalid, parse_policy
from server.errors import InvalidRequest, Unauthenticated, one_line
from server.frontends.calls import StatusCode, UnaryMethod
from server.frontends.forwarding import forwarded_headers
from server.frontends.restrictions import Guard
from server.header_pattern import HeaderPattern
from server.shared_memory.posix import file_name
from server.tracing.context import trace_context
from server.urls import redacted
from tests.fakes import FakeCall
from tests.fuzz.checks import check_message
from tests.fuzz.infer_targets import SERVER
from tests.unit.access_policies import BEARER, FILE, TOKEN, principal

KEYS = b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
"""The example of RFC 8037."""
JWTS = Verifiers([Verifier(Issuer("i", "a", FILE, ("EdDSA",), 0.0), KEYS)])
SECRET = "user:s3cr3t-word"


def fuzz_words(data: bytes) -> None:
    """One text through everything that reads one."""
    text = data.decode("utf-8", "replace")
    first, _, rest = text.partition("\n")
    _forwarded(first, rest)
    _restricted(first, rest)
    _traced(first, rest)
    _authorized(first, rest)
    with suppress(PolicyInvalid):
        parse_policy(text, FILE)
    _redacted(first, rest)
    with suppress(InvalidRequest):
        name = file_name(text)
        assert "/" not in name and name not in (".", "..") and len(name.encode()) <= 255
    with suppress(trace_config.TraceConfigInvalid):
        trace_config.parse_trace_config(text.split("\n"))
    number = trace_config.integer(text, -5, 1000)
    assert number is None or -5 <= number <= 1000


def _forwarded(pattern: str, name: str) -> None:
    try:
        compiled = HeaderPattern(pattern)
    except ValueError as error:
        check_message(one_line(str(error)))
        return
    call = FakeCall(metadata={name.lower(): "value", "raw-bin": b"\0"})
    with suppress(InvalidRequest):
        headers = forwarded_headers(compiled, call)
        assert set(headers) <= {name.lower()}
        assert bool(headers) is compiled.matches(name.lower())


def _restricted(flag: str, given: str) -> None:
    try:
        restricted_apis.parse([f"{flag}={SECRET}"])
    except ValueError as error:
        check_message(one_line(str(error)), SECRET.encode())
    try:
        secrets = restricted_apis.parse([flag])
    except ValueError:
        return
    for secret in secrets.values():
        guard = Guard(secret)
        assert guard.admits(FakeCall(metadata={secret.key.lower(): secret.value}))
        if given.encode() != secret.value.encode():
            assert not guard.admits(FakeCall(metadata={secret.key.lower(): given}))


def _authorized(given: str, name: str) -> None:
    access = Access(parse_policy(principal("known"), FILE), JWTS)
    for authorization in (given, f"Bearer {given}", f"{BEARER}{given}"):
        try:
            caller = access.identify(authorization, (), 0.0, 0.0)
        except Unauthenticated as error:
            check_message(str(error), TOKEN.encode())
        else:
            assert caller.name == "known" if authorization.strip(" ")[7:].strip(" ") == TOKEN else not authorization
    parts = given[:32].split("*")
    assert matches("*".join(parts), name.join(parts))
    assert matches(f"*{name}", given + name) and matches(f"{name}*", name + given)


def _traced(parent: str, state: str) -> None:
    context = trace_context({"traceparent": parent, "tracestate": state})
    if context is None:
        return
    assert 0 < context.trace_id < 1 << 128 and 0 < context.span_id < 1 << 64
    assert len(context.state) <= 512 and context.state.isprintable()
    again = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.sampled):02x}"
    assert trace_context({"traceparent": again, "tracestate": context.state}) == context


def _redacted(scheme: str, rest: str) -> None:
    if scheme.isascii() and scheme.isalpha() and not scheme.lower().startswith(("abfs", "wasb")):
        assert SECRET not in redacted(f"{rest} {scheme}://{SECRET}@{rest}")
        assert SECRET not in redacted(f"{rest} {scheme}://host/path?signature={SECRET} {rest}")


def fuzz_rpcs(data: bytes) -> None:
    """Any RPC but inference, by its number: an answer or a refusal, whatever its message holds."""
    SERVER.forget()
    names = sorted(name for name in SERVER.methods if not name.endswith("Infer"))
    method = SERVER.methods[names[data[0] % len(names)]]
    assert isinstance(method, UnaryMethod)
    call = FakeCall()
    method.handle(call, data[1:])
    assert call.status is not None
    if call.status is not StatusCode.OK:
        check_message(call.message)
