"""Request headers, metadata, timeouts and statuses, each as a table and as a round trip."""

from __future__ import annotations

from contextlib import suppress
from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.frontends.calls import StatusCode
from server.frontends.grpc.wire import (
    OK_TRAILERS,
    RESPONSE_HEADERS,
    Header,
    Refusal,
    RequestHead,
    WireError,
    check_request_headers,
    decode_metadata,
    decode_status_message,
    encode_metadata,
    encode_status_message,
    format_timeout,
    http2_error_to_grpc,
    http_status_to_grpc,
    parse_timeout,
    trailers,
    trailers_only,
)

HEAD = {
    b":method": b"POST",
    b":scheme": b"http",
    b":path": b"/inference.GRPCInferenceService/ModelInfer",
    b":authority": b"localhost:8001",
    b"grpc-timeout": b"1500m",
    b"te": b"trailers",
    b"content-type": b"application/grpc",
    b"user-agent": b"grpc-python/1.85.1",
    b"grpc-encoding": b"gzip",
    b"grpc-accept-encoding": b"identity, gzip",
    b"trace-bin": b"AQI",
}


def checked(changes: dict[bytes, bytes | None]) -> RequestHead | Refusal:
    fields = {**HEAD, **changes}
    return check_request_headers([(name, value) for name, value in fields.items() if value is not None])


def test_a_usual_head() -> None:
    head = checked({})
    assert isinstance(head, RequestHead)
    assert (head.path, head.timeout) == ("/inference.GRPCInferenceService/ModelInfer", 1.5)
    assert (head.encoding, head.accept_encoding) == (b"gzip", b"identity, gzip")
    assert head.metadata() == {"user-agent": "grpc-python/1.85.1", "trace-bin": b"\1\2"}


def test_the_least_head() -> None:
    least = {b":method": b"POST", b":path": b"/s/m", b"te": b"trailers", b"content-type": b"application/grpc"}
    headers = list(least.items())
    assert check_request_headers(headers) == RequestHead("/s/m", inf, b"identity", b"", headers, "")
    assert decode_metadata(headers) == {}
    for name in least:
        assert isinstance(check_request_headers([pair for pair in headers if pair[0] != name]), Refusal)
    assert isinstance(check_request_headers([]), Refusal)


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/grpc",
        b"application/grpc+proto",
        b"application/grpc;charset=utf-8",
        b"application/grpc+proto; a=b",
        b"Application/GRPC",
    ],
)
def test_content_types_of_grpc(content_type: bytes) -> None:
    assert isinstance(checked({b"content-type": content_type}), RequestHead)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        b"",
        b"application/json",
        b"application/grpc-web",
        b"application/grpc+json",
        b"application/grpc+proto2",
        b"application/grpcx",
        b"text/plain; application/grpc",
    ],
)
def test_other_content_types_are_unsupported_media_types(content_type: bytes | None) -> None:
    refusal = checked({b"content-type": content_type})
    assert isinstance(refusal, Refusal) and refusal.http_status == 415
    assert dict(refusal.headers())[b":status"] == b"415"


@pytest.mark.parametrize("method", [None, b"GET", b"post", b"PUT"])
def test_other_methods_are_not_allowed(method: bytes | None) -> None:
    refusal = checked({b":method": method})
    assert isinstance(refusal, Refusal) and refusal.http_status == 405


@pytest.mark.parametrize("te", [None, b"", b"gzip", b"trailers, gzip"])
def test_without_te_trailers_the_way_is_not_to_be_trusted(te: bytes | None) -> None:
    refusal = checked({b"te": te})
    assert refusal == Refusal(StatusCode.INTERNAL, 'gRPC requests have the header "te: trailers"')


@pytest.mark.parametrize(
    "path",
    [None, b"", b"/", b"//", b"/s", b"/s/", b"//m", b"s/m", b"/s/m/x", b"/s /m", b"/s/\xc3\xa9", b"/s/m\n", b"*"],
)
def test_what_is_no_method_path_is_an_unknown_method(path: bytes | None) -> None:
    assert checked({b":path": path}) == Refusal(StatusCode.UNIMPLEMENTED, "Method not found!")


def test_a_bad_timeout_is_refused_before_the_call() -> None:
    refusal = checked({b"grpc-timeout": b"soon"})
    assert isinstance(refusal, Refusal)
    assert refusal.headers() == [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", b"identity,gzip,deflate"),
        (b"grpc-status", b"13"),
        (b"grpc-message", b"Error parsing 'grpc-timeout' metadata"),
    ]


def test_bad_metadata_harms_only_those_who_ask_for_it() -> None:
    head = checked({b"trace-bin": b"%"})
    assert isinstance(head, RequestHead)
    with pytest.raises(WireError, match="'trace-bin' metadata: illegal base64 encoding"):
        head.metadata()


def test_of_a_repeated_field_the_last_one_counts() -> None:
    head = check_request_headers([*HEAD.items(), (b"grpc-timeout", b"1S"), (b"grpc-timeout", b"2S")])
    assert isinstance(head, RequestHead) and head.timeout == 2.0


# --- Timeouts


TIMEOUTS = [
    (b"1H", 3600.0),
    (b"2M", 120.0),
    (b"3S", 3.0),
    (b"4999m", 4.999),
    (b"5u", 5e-6),
    (b"6n", 6e-9),
    (b"0n", 0.0),
    (b"00000001S", 1.0),
    (b"99999999H", 99999999 * 3600.0),
]
BAD_TIMEOUTS = [b"", b"S", b"1", b"1s", b"1h", b"1x", b"-1S", b"+1S", b" 1S", b"1 S", b"1.5S", b"1_0S", b"1SS", b"S1"]


@pytest.mark.parametrize(("value", "seconds"), TIMEOUTS)
def test_timeouts(value: bytes, seconds: float) -> None:
    assert parse_timeout(value) == seconds


@pytest.mark.parametrize("value", [*BAD_TIMEOUTS, b"123456789n", "١S".encode(), b"1\xc2\xb2S"])
def test_bad_timeouts(value: bytes) -> None:
    for _ in range(2):
        with pytest.raises(WireError, match="Error parsing 'grpc-timeout' metadata") as raised:
            parse_timeout(value)
        assert raised.value.status is StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("seconds", "value"),
    [
        (0.0, b"1n"),
        (-1.0, b"1n"),
        (1e-9, b"1n"),
        (0.5, b"500000u"),
        (5.0, b"5000000u"),
        (1e5, b"100000S"),
        (1e20, b"99999999H"),
    ],
)
def test_timeouts_are_written_as_finely_as_eight_digits_allow(seconds: float, value: bytes) -> None:
    assert format_timeout(seconds) == value


@given(st.floats(1e-8, 99999999 * 3600.0))
def test_a_timeout_survives_the_way_and_never_shrinks(seconds: float) -> None:
    value = format_timeout(seconds)
    assert len(value) <= 9
    assert seconds * (1 - 1e-15) <= parse_timeout(value) <= seconds * (1 + 1e-5) + 1e-9


# --- Statuses


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("", b""),
        ("queue is full: 64 rows", b"queue is full: 64 rows"),
        ("100%", b"100%25"),
        ("a\r\nb\t", b"a%0D%0Ab%09"),
        ("~ !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}", b"~ !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}"),
        ("\x7f\x00", b"%7F%00"),
        (
            "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n",
            b"%09%0Atest with whitespace%0D%0Aand Unicode BMP %E2%98%BA and non-BMP %F0%9F%98%88%09%0A",
        ),
    ],
)
def test_status_messages(text: str, encoded: bytes) -> None:
    assert encode_status_message(text) == encoded
    assert decode_status_message(encoded) == text


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        (b"%", "%"),
        (b"%2", "%2"),
        (b"%zz%41", "%zzA"),
        (b"%e2%98%ba", "☺"),
        (b"%E2%98", "�"),
        (b"\xe2\x98\xba", "☺"),
        (b"\xff", "�"),
    ],
)
def test_broken_status_messages_are_shown_as_well_as_can_be(encoded: bytes, text: str) -> None:
    assert decode_status_message(encoded) == text


def test_lone_surrogates_do_not_stop_an_answer() -> None:
    assert encode_status_message("a\ud800b") == b"a?b"


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("%41")
def test_any_status_message_survives(text: str) -> None:
    encoded = encode_status_message(text)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert decode_status_message(encoded) == text


@given(st.binary())
def test_no_status_message_fails_to_decode(value: bytes) -> None:
    assert isinstance(decode_status_message(value), str)


def test_trailers() -> None:
    assert trailers(StatusCode.OK) == list(OK_TRAILERS) == [(b"grpc-status", b"0")]
    assert trailers(StatusCode.NOT_FOUND, "no 'ä'", [(b"a", b"b")]) == [
        (b"grpc-status", b"5"),
        (b"grpc-message", b"no '%C3%A4'"),
        (b"a", b"b"),
    ]


def test_an_answer_of_trailers_only_begins_like_any_answer() -> None:
    answer = trailers_only(StatusCode.UNAVAILABLE, "queue is full", [(b"a", b"b")])
    assert answer[:2] == list(RESPONSE_HEADERS)
    assert answer[-3:] == trailers(StatusCode.UNAVAILABLE, "queue is full", [(b"a", b"b")])


def test_http_statuses() -> None:
    mapped = {code: http_status_to_grpc(code).name for code in (200, 400, 401, 403, 404, 415, 429, 500, 502, 503, 504)}
    assert mapped == {
        200: "UNKNOWN",
        400: "INTERNAL",
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "UNIMPLEMENTED",
        415: "UNKNOWN",
        429: "UNAVAILABLE",
        500: "UNKNOWN",
        502: "UNAVAILABLE",
        503: "UNAVAILABLE",
        504: "UNAVAILABLE",
    }


def test_http2_errors() -> None:
    special = {7: "UNAVAILABLE", 8: "CANCELLED", 11: "RESOURCE_EXHAUSTED", 12: "PERMISSION_DENIED"}
    for code in (*range(14), 0xFFFFFFFF):
        assert http2_error_to_grpc(code).name == special.get(code, "INTERNAL")


# --- Metadata


@pytest.mark.parametrize(
    ("headers", "metadata"),
    [
        pytest.param(
            [(b":path", b"/"), (b"te", b"x"), (b"content-type", b"y"), (b"grpc-x-bin", b"%")], {}, id="reserved"
        ),
        pytest.param([(b"a_b-c.9", b"x y")], {"a_b-c.9": "x y"}, id="text"),
        pytest.param([(b"a", b"  x ")], {"a": "x"}, id="surrounding spaces are no part of it"),
        pytest.param([(b"a", b"")], {"a": ""}, id="empty"),
        pytest.param([(b"a", b"1"), (b"b", b"2"), (b"a", b"3,4")], {"a": "1,3,4", "b": "2"}, id="repeated"),
        pytest.param([(b"a-bin", b"AQI=")], {"a-bin": b"\1\2"}, id="padded"),
        pytest.param([(b"a-bin", b"AQI")], {"a-bin": b"\1\2"}, id="not padded"),
        pytest.param([(b"a-bin", b"")], {"a-bin": b""}, id="empty bytes"),
        pytest.param([(b"a-bin", b"YQ, Yg==,Yw")], {"a-bin": b"a,b,c"}, id="joined values"),
        pytest.param([(b"a-bin", b"YQ"), (b"a-bin", b"Yg")], {"a-bin": b"a,b"}, id="repeated bytes"),
        pytest.param([(b"a", b"\xc3\xa9"), (b"b", b"x\ty"), (b"c", b"z")], {"c": "z"}, id="legal in HTTP only"),
    ],
)
def test_metadata(headers: list[Header], metadata: dict[str, str | bytes]) -> None:
    assert decode_metadata(headers) == metadata


@pytest.mark.parametrize(
    "header",
    [
        (b"", b"x"),
        (b"A", b"x"),
        (b"a b", b"x"),
        (b"\xc3\xa9", b"x"),
        (b"a", b"x\n"),
        (b"a", b"\0"),
        (b"a", b"\x7f"),
        (b"a-bin", b"A"),
        (b"a-bin", b"A==="),
        (b"a-bin", b"AQ=I"),
        (b"a-bin", b"AQ I"),
        (b"a-bin", b"_-8"),
        (b"a-bin", b"AQI====="),
    ],
)
def test_bad_metadata(header: Header) -> None:
    with pytest.raises(WireError, match=r"^Error parsing '.*' metadata: illegal (header|base64 encoding)$") as raised:
        decode_metadata([(b"good", b"1"), header])
    assert raised.value.status is StatusCode.INTERNAL


@pytest.mark.parametrize(
    "metadata",
    [
        {"": "x"},
        {"A": "x"},
        {"é": "x"},
        {"\ud800": "x"},
        {"grpc-status": "0"},
        {"grpc-retry-pushback": "1"},
        {"te": "x"},
        {":path": "x"},
        {"a-bin": "text"},
        {"a": b"bytes"},
        {"a": "é"},
        {"a": "\ud800"},
        {"a": "x\ny"},
    ],
)
def test_metadata_that_cannot_be_sent(metadata: dict[str, str | bytes]) -> None:
    with pytest.raises(WireError) as raised:
        encode_metadata(metadata)
    assert raised.value.status is StatusCode.INTERNAL


def test_metadata_is_written_without_padding() -> None:
    assert encode_metadata({"a-bin": b"\1\2", "b": " x "}) == [(b"a-bin", b"AQI"), (b"b", b"x")]


def test_when_to_come_again_is_the_one_reserved_name_that_a_server_may_send() -> None:
    assert encode_metadata({"grpc-retry-pushback-ms": "13"}) == [(b"grpc-retry-pushback-ms", b"13")]


NAMES = st.text("09az_-.", min_size=1, max_size=8).map("x{}y".format)
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)).map(str.strip)


@given(
    st.dictionaries(NAMES, TEXTS),
    st.dictionaries(NAMES.map(lambda name: name + "-bin"), st.binary()),
)
def test_any_metadata_survives(texts: dict[str, str], binaries: dict[str, bytes]) -> None:
    metadata: dict[str, str | bytes] = {**texts, **binaries}
    headers = encode_metadata(metadata)
    assert decode_metadata(headers) == metadata
    padded = [(name, value + b"=" * (-len(value) % 4 if name.endswith(b"-bin") else 0)) for name, value in headers]
    assert decode_metadata(padded) == metadata


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=20))))
def test_any_headers_are_a_head_or_a_refusal(headers: list[Header]) -> None:
    outcome = check_request_headers([*HEAD.items(), *headers])
    if isinstance(outcome, RequestHead):
        with suppress(WireError):
            outcome.metadata()
