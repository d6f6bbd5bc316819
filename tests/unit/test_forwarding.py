"""Headers that become parameters: which, what they may not be called, and where they show."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import pytest

from proto import grpc_service_pb2 as pb
from server.errors import InvalidRequest
from server.frontends.forwarding import decoding_with_headers, forwarded_headers
from server.frontends.watch import MAX_TEXT, access_fields
from server.header_pattern import REMEMBERED_NAMES, HeaderPattern
from server.logs import FIELDS
from server.messages import InferenceRequest
from server.records import Record
from server.tracing.json_file import entries_of
from tests import fakes
from tests.fakes import FakeCall, KeptRecords

ALL = HeaderPattern(".*")


def forwarded(pattern: str, metadata: Mapping[str, str | bytes]) -> Mapping[str, str]:
    return forwarded_headers(HeaderPattern(pattern), FakeCall(metadata=metadata))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("^x-", ["x-tenant"]),
        ("tenant|other", ["x-tenant", "other"]),
        ("X-TENANT", ["x-tenant"]),
        ("^(x-tenant)$", ["x-tenant"]),
        ("ten", ["x-tenant"]),
        ("^$", []),
    ],
)
def test_headers_are_forwarded_whose_names_match_in_part(pattern: str, names: list[str]) -> None:
    assert list(forwarded(pattern, {"x-tenant": "a", "other": "b"})) == names


def test_a_name_that_a_backtracking_matcher_would_never_be_done_with_takes_no_time() -> None:
    assert forwarded("^(a+)+$", {"a" * 4096 + "b": "x"}) == {}


def test_names_that_strangers_make_up_are_not_remembered_without_end() -> None:
    pattern = HeaderPattern("^x-")
    names = [f"x-{n}" for n in range(2 * REMEMBERED_NAMES)] + ["x-" + "a" * 1000, "y"]
    for _ in range(2):
        assert [name for name in names if pattern.matches(name)] == names[:-1]
    assert len(pattern._remembered) == REMEMBERED_NAMES
    assert max(map(len, pattern._remembered)) <= 64


def test_binary_metadata_is_not_forwarded() -> None:
    assert forwarded(".*", {"x-bin": b"\0", "x": "1"}) == {"x": "1"}


@pytest.mark.parametrize(
    "name",
    [
        "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output",
        "triton_enable_empty_final_response", "triton_anything",
    ],
)  # fmt: skip
def test_no_header_passes_for_a_parameter_with_a_meaning(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        forwarded(".*", {name: "1"})
    assert str(caught.value) == f"Header '{name}' is reserved for Triton usage and cannot be forwarded."


def test_a_reserved_name_that_does_not_match_is_left_alone() -> None:
    assert forwarded("^x-", {"timeout": "1"}) == {}


def test_a_message_is_decoded_with_the_headers_of_its_call() -> None:
    decode = decoding_with_headers(ALL, FakeCall(metadata={"x": "1"}))
    request = decode(pb.ModelInferRequest(model_name="m").SerializeToString(), inf)
    assert (request.model_name, request.headers) == ("m", {"x": "1"})


def noted(headers: Mapping[str, str] | None) -> Record:
    watch = fakes.watch(KeptRecords(), access_log=True)
    request = InferenceRequest("m", "", "", (), ())
    request.headers = headers
    record = watch.begin("ModelInfer", None, request, 0)
    assert record is not None
    return record


def test_the_access_log_shows_them_and_nothing_where_there_are_none() -> None:
    assert access_fields(noted({"x-tenant": "a"}))["headers"] == {"x-tenant": "a"}
    assert "headers" in FIELDS
    assert "headers" not in access_fields(noted(None))


def test_what_is_kept_of_a_value_is_bounded() -> None:
    assert noted({"x": "v" * 10_000}).headers == {"x": "v" * MAX_TEXT}


def test_the_trace_file_shows_them() -> None:
    assert entries_of(1, noted({"x-tenant": "a"}))[0]["headers"] == {"x-tenant": "a"}
    assert "headers" not in entries_of(1, noted(None))[0]
