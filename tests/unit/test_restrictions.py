"""Restricted APIs: which RPC and which route belongs to which, and who is let in."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import pytest

from proto import grpc_service_pb2 as pb
from server import restricted_apis
from server.frontends import health_service
from server.frontends.calls import Call, MethodTable, Receiver, StatusCode, StreamMethod, UnaryMethod
from server.frontends.inference_service import SERVICE
from server.frontends.rest import restrictions as rest_restrictions
from server.frontends.rest.exchange import Exchange, Route
from server.frontends.rest.openapi import OPERATIONS
from server.frontends.rest.restrictions import restrict_routes
from server.frontends.restrictions import CATEGORIES, restrict
from server.restricted_apis import ApiCategory, Restrictions, Secret
from server.tensors import Buffer
from tests.fakes import FakeCall, Heard
from tests.unit.http_peer import Peer

RESTRICTED: Restrictions = {ApiCategory.HEALTH: Secret("Admin-Key", "s3cret")}
HEADER = "triton-grpc-protocol-admin-key"
REFUSAL = "This protocol is restricted, expecting header 'triton-grpc-protocol-Admin-Key'"
WRONG: Mapping[str, Mapping[str, str | bytes]] = {
    "no header": {},
    "another header": {"admin-key": "s3cret"},
    "another value": {HEADER: "S3cret"},
    "a shorter value": {HEADER: "s3cre"},
    "a longer value": {HEADER: "s3cret "},
    "two values": {HEADER: "s3cret,s3cret"},
    "no letters": {HEADER: "s3crét"},
    "bytes": {HEADER: b"s3cret"},
}


def methods() -> MethodTable:
    return {
        "/s/ServerLive": UnaryMethod(lambda call, message: call.reply(bytes(message))),
        "/s/ServerMetadata": UnaryMethod(lambda call, message: call.reply(bytes(message))),
        "/h/Watch": StreamMethod(Heard),
    }


def asked(table: MethodTable, path: str, metadata: Mapping[str, str | bytes]) -> FakeCall:
    call = FakeCall(metadata=metadata)
    method = table[path]
    assert isinstance(method, UnaryMethod)
    method.handle(call, b"question")
    return call


def opened(table: MethodTable, metadata: Mapping[str, str | bytes]) -> tuple[FakeCall, Receiver]:
    call = FakeCall(metadata=metadata)
    method = table["/h/Watch"]
    assert isinstance(method, StreamMethod)
    return call, method.open(call)


def test_every_rpc_of_the_protocol_and_of_health_has_a_category() -> None:
    names = {method.name for method in pb.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]].methods}
    names |= {"Check", "Watch"}
    assert health_service.SERVICE == "grpc.health.v1.Health"
    assert set(CATEGORIES) == names


def test_every_route_but_the_document_and_the_metrics_has_a_category() -> None:
    assert set(OPERATIONS) - set(rest_restrictions.CATEGORIES) == {"Metrics", "OpenApi"}


def test_every_category_restricts_something() -> None:
    assert set(CATEGORIES.values()) == set(ApiCategory)


def test_what_is_not_restricted_is_the_same_method_as_before() -> None:
    table = methods()
    assert restrict(table, {}) == table
    assert restrict(table, RESTRICTED)["/s/ServerMetadata"] is table["/s/ServerMetadata"]


def test_who_has_the_secret_is_answered() -> None:
    call = asked(restrict(methods(), RESTRICTED), "/s/ServerLive", {HEADER: "s3cret"})
    assert (call.status, call.sent) == (StatusCode.OK, [b"question"])


@pytest.mark.parametrize("metadata", WRONG.values(), ids=WRONG)
def test_who_has_not_is_told_which_header_is_expected(metadata: Mapping[str, str | bytes]) -> None:
    call = asked(restrict(methods(), RESTRICTED), "/s/ServerLive", metadata)
    assert (call.status, call.message, call.sent) == (StatusCode.UNAVAILABLE, REFUSAL, [])


def test_a_stream_is_open_to_who_has_the_secret() -> None:
    _, receiver = opened(restrict(methods(), RESTRICTED), {HEADER: "s3cret"})
    assert isinstance(receiver, Heard)


def test_a_stream_ends_at_once_for_who_has_not_whatever_comes_on_it() -> None:
    call, receiver = opened(restrict(methods(), RESTRICTED), {})
    assert (call.status, call.message) == (StatusCode.UNAVAILABLE, REFUSAL)
    receiver.message(b"question")
    receiver.half_closed()
    receiver.drain()


def routes() -> list[Route]:
    def answer(exchange: Exchange, _: Buffer) -> None:
        exchange.respond(HTTPStatus.OK)

    return [Route("GET", "live", answer, "Live"), Route("GET", "v2", answer, "ServerMetadata")]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Admin_Key": "s3cret"}, 200),
        ({"ADMIN_KEY": "s3cret"}, 200),
        ({"Admin_Key": "other"}, 403),
        ({"triton_grpc_protocol_admin_key": "s3cret"}, 403),
        ({"Admin_Key": "s3cr\xe9t"}, 403),
    ],
)
def test_a_route_is_answered_where_its_header_has_the_secret(headers: Mapping[str, str], status: int) -> None:
    answer = Peer(restrict_routes(routes(), RESTRICTED)).ask("GET", "/live", **headers)
    assert answer.status == status
    if status == 403:
        assert answer.json == {"error": "This API is restricted, expecting header 'Admin-Key'"}


def test_a_route_that_is_not_restricted_is_answered_to_anybody() -> None:
    assert Peer(restrict_routes(routes(), RESTRICTED)).ask("GET", "/v2").status == 200


def test_a_method_that_refuses_early_goes_on_doing_so_behind_its_guard() -> None:
    begun: list[Call] = []
    guarded = restrict({"/s/ServerLive": UnaryMethod(lambda call, _: call.reply(b""), begun.append)}, RESTRICTED)
    method, call = guarded["/s/ServerLive"], FakeCall()
    assert isinstance(method, UnaryMethod) and method.begin is not None
    method.begin(call)
    assert begun == [call]


@pytest.mark.parametrize(
    "flag", ["admin-key=s3cret", "inference:admin-key:s3cret", "admin-key=s3cret:x=y", "a:=s3cret"]
)
def test_a_broken_flag_is_refused_without_what_may_be_its_secret(flag: str) -> None:
    with pytest.raises(ValueError, match=r"must be APIS:KEY=VALUE|unknown restricted API 'admin-key'") as caught:
        restricted_apis.parse([flag])
    assert "s3cret" not in str(caught.value)
