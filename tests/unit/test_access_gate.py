"""The gate in front of methods and routes: nothing passes it unasked."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from proto import grpc_service_pb2 as pb
from proto.grpc_health.v1 import health_pb2
from server import part_options
from server.access.decisions import Access
from server.access.policy import APIS, METRICS, open_policy
from server.errors import ConvoyError, Forbidden
from server.frontends import health_service
from server.frontends.access import DECODED, Gate
from server.frontends.access_rules import CHANGING, rule_of
from server.frontends.audit import Audit
from server.frontends.calls import MethodTable, Peer, Receiver, StatusCode, StreamMethod, UnaryMethod
from server.frontends.decoding import plainly
from server.frontends.inference_service import SERVICE
from server.frontends.rest.access import OWN, guard_routes
from server.frontends.rest.exchange import Exchange, Route
from server.frontends.rest.openapi import OPERATIONS
from server.frontends.rest.restrictions import CATEGORIES
from server.logs import AUDIT_LOGGER
from server.tensors import Buffer
from tests.fakes import FakeCall, Heard
from tests.unit import http_peer
from tests.unit.access_policies import BEARER, access, principal

ALL = [f"/{SERVICE}/{method.name}" for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods]
ALL += [f"/{health_service.SERVICE}/{name}" for name in ("Check", "Watch")]
ALL += ["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]
STREAMS = ("ModelStreamInfer", "Watch", "ServerReflectionInfo")
PEER = Peer("10.0.0.7:1234", ("CN:x",))


def methods() -> MethodTable:
    reached = UnaryMethod(lambda call, _: call.reply(b""))
    return {path: StreamMethod(Heard) if path.endswith(STREAMS) else reached for path in ALL}


def gate(*lines: str, audit: bool = False, refused: list[ConvoyError] | None = None) -> Gate:
    found = access(principal("p", *lines))
    counted: list[ConvoyError] = [] if refused is None else refused
    return Gate(lambda _: found, Audit("gRPC") if audit else None, counted.append)


def allow(*apis: str, models: str = "*") -> str:
    return f'allow = [{{ apis = {json.dumps(apis)}, models = ["{models}"] }}]'


def call(authorization: str = BEARER) -> FakeCall:
    return FakeCall(metadata={"authorization": authorization} if authorization else {}, peer=PEER)


def ask(table: MethodTable, path: str, asked: FakeCall, message: bytes = b"") -> Receiver | None:
    method = table[path]
    if isinstance(method, UnaryMethod):
        method.handle(asked, message)
        return None
    ear = method.open(asked)
    if asked.status is None:
        ear.message(message)
    return ear


@pytest.mark.parametrize("path", [path for path in ALL if not path.endswith(f"/{DECODED}")])
def test_no_method_is_reached_without_its_permission(path: str) -> None:
    stranger, nobody, other = call(""), call("Bearer " + "x" * 32), call()
    health = rule_of(path.rpartition("/")[2]).api == "health"
    for asked in (nobody, other) if health else (stranger, nobody, other):
        ask(gate().guard(methods()), path, asked)
    assert stranger.status is (None if health else StatusCode.UNAUTHENTICATED)
    assert (nobody.status, other.status) == (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED)


@pytest.mark.parametrize("path", [path for path in ALL if not path.endswith(f"/{DECODED}")])
def test_every_method_is_reached_with_its_api_and_with_no_other(path: str) -> None:
    api = rule_of(path.rpartition("/")[2]).api.removesuffix(":read")
    allowed, refused = call(), call()
    ear = ask(gate(allow(api)).guard(methods()), path, allowed)
    assert allowed.status in (None, StatusCode.OK)
    assert ear is None or not isinstance(ear, Heard) or ear.messages == [b""]
    ask(gate(allow(*(each for each in APIS if each.removesuffix(":read") != api))).guard(methods()), path, refused)
    assert refused.status is StatusCode.PERMISSION_DENIED


NAMED = {
    "ModelReady": pb.ModelReadyRequest(name="b"),
    "ModelMetadata": pb.ModelMetadataRequest(name="b"),
    "ModelConfig": pb.ModelConfigRequest(name="b"),
    "ModelStatistics": pb.ModelStatisticsRequest(name="b"),
    "RepositoryModelLoad": pb.RepositoryModelLoadRequest(model_name="b"),
    "RepositoryModelUnload": pb.RepositoryModelUnloadRequest(model_name="b"),
    "TraceSetting": pb.TraceSettingRequest(model_name="b"),
    "Check": health_pb2.HealthCheckRequest(service="b"),
    "Watch": health_pb2.HealthCheckRequest(service="b"),
}


def path_of(name: str) -> str:
    (path,) = [path for path in ALL if path.endswith(f"/{name}")]
    return path


@pytest.mark.parametrize("name", NAMED)
def test_the_model_that_a_message_names_is_asked_about(name: str) -> None:
    api = rule_of(name).api
    for models, status in (("a", StatusCode.PERMISSION_DENIED), ("b", None)):
        asked = call()
        ask(gate(allow(api, models=models)).guard(methods()), path_of(name), asked, NAMED[name].SerializeToString())
        assert asked.status is status or (status is None and asked.status is StatusCode.OK)


def test_the_server_itself_is_no_model() -> None:
    for service in ("", SERVICE):
        asked = call("")
        ask(
            gate().guard(methods()),
            path_of("Check"),
            asked,
            health_pb2.HealthCheckRequest(service=service).SerializeToString(),
        )
        assert asked.status is StatusCode.OK


def test_settings_are_changed_by_whoever_may_and_read_by_whoever_may_read() -> None:
    setting = pb.TraceSettingRequest.SettingValue(value=["OFF"])
    change = pb.TraceSettingRequest(settings={"trace_level": setting}).SerializeToString()
    of_b = pb.TraceSettingRequest(settings={"trace_level": setting}, model_name="b").SerializeToString()
    for line, message, expected in (
        (allow("trace:read"), b"", StatusCode.OK),
        (allow("trace:read"), change, StatusCode.PERMISSION_DENIED),
        (allow("trace"), change, StatusCode.OK),
        (allow("trace", models="b"), change, StatusCode.PERMISSION_DENIED),  # it is for all models
        (allow("trace", models="b"), of_b, StatusCode.OK),
    ):
        asked = call()
        ask(gate(line).guard(methods()), path_of("TraceSetting"), asked, message)
        assert asked.status is expected


@pytest.mark.parametrize(("dependents", "status"), [(False, StatusCode.OK), (True, StatusCode.PERMISSION_DENIED)])
def test_what_unloads_other_models_too_needs_a_permission_for_all(dependents: bool, status: StatusCode) -> None:
    request = pb.RepositoryModelUnloadRequest(model_name="b")
    request.parameters["unload_dependents"].bool_param = dependents
    for models, expected in (("b", status), ("*", StatusCode.OK)):
        asked = call()
        table = gate(allow("model-repository", models=models)).guard(methods())
        ask(table, path_of("RepositoryModelUnload"), asked, request.SerializeToString())
        assert asked.status is expected


def test_a_message_that_cannot_be_read_is_refused_here() -> None:
    asked = call()
    ask(gate(allow("metadata")).guard(methods()), path_of("ModelMetadata"), asked, b"\xff")
    assert (asked.status, asked.message[:29]) == (StatusCode.INVALID_ARGUMENT, "the message is not a ModelMet")


def test_what_lists_models_lists_those_that_the_caller_may_see() -> None:
    statistics = pb.ModelStatisticsResponse(model_stats=[pb.ModelStatistics(name=name) for name in ("ab", "b", "ac")])
    lines = pb.RepositoryIndexResponse(models=[pb.RepositoryIndexResponse.ModelIndex(name=n) for n in ("b", "ab")])
    for name, answer in (("ModelStatistics", statistics), ("RepositoryIndex", lines)):
        shown = answer.SerializeToString()
        table = {path_of(name): UnaryMethod(lambda call, _, shown=shown: call.reply(shown))}
        asked = call()
        ask(gate(allow("statistics", "model-repository:read", models="a*")).guard(table), path_of(name), asked)
        found: Any = type(answer).FromString(asked.sent[0])
        named = [each.name for each in (found.model_stats if name == "ModelStatistics" else found.models)]
        assert named == [each for each in ("ab", "ac") if each in shown.decode("latin-1")]


def test_an_inference_is_decoded_for_those_who_may_ask_its_model() -> None:
    message = pb.ModelInferRequest(model_name="b").SerializeToString()
    assert gate(allow("inference", models="b")).decoding(plainly, call())(message, 1.0).model_name == "b"
    with pytest.raises(Forbidden, match="'inference' of model 'b'"):
        gate(allow("inference", models="a")).decoding(plainly, call())(message, 1.0)


def test_tensors_in_shared_memory_need_a_permission_of_their_own() -> None:
    request = pb.ModelInferRequest(model_name="m", inputs=[{"name": "x", "datatype": "INT64", "shape": [1]}])
    request.inputs[0].parameters["shared_memory_region"].string_param = "another's"
    request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 8
    message = request.SerializeToString()
    with pytest.raises(Forbidden, match="'shared-memory'"):
        gate(allow("inference", "shared-memory:read")).decoding(plainly, call())(message, 1.0)
    assert gate(allow("inference", "shared-memory")).decoding(plainly, call())(message, 1.0).shared is not None


def test_a_watch_of_a_model_that_may_not_be_seen_hears_nothing() -> None:
    asked = call()
    told: list[str] = []
    asked.on_cancel = lambda: told.append("over")
    ear = ask(
        gate(allow("health", models="a")).guard(methods()), path_of("Watch"), asked, NAMED["Watch"].SerializeToString()
    )
    assert asked.status is StatusCode.PERMISSION_DENIED
    assert told == ["over"]
    assert ear is not None
    ear.half_closed()
    ear.drain()


def audited(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    names = ("principal", "peer", "protocol", "action", "outcome", "model", "region", "parameters", "certificate")
    lines = [line.__dict__ for line in caplog.records if line.name == AUDIT_LOGGER]
    return [{name: line[name] for name in names if name in line} for line in lines]


def test_changes_are_noted_whether_allowed_or_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, AUDIT_LOGGER)
    load = pb.RepositoryModelLoadRequest(model_name="m")
    load.parameters["config"].string_param = "s3cret"
    load.parameters["file:1/model.onnx"].bytes_param = b"s3cret"
    table = gate(allow("model-repository", "shared-memory", "trace:read"), audit=True).guard(methods())
    ask(table, path_of("RepositoryModelLoad"), call(), load.SerializeToString())
    ask(
        table,
        path_of("SystemSharedMemoryRegister"),
        call(),
        pb.SystemSharedMemoryRegisterRequest(name="r", key="/s3cret").SerializeToString(),
    )
    ask(table, path_of("TraceSetting"), call(), b"")
    ask(table, path_of("LogSettings"), call(), b"")
    change = pb.LogSettingsRequest(settings={"log_info": pb.LogSettingsRequest.SettingValue(bool_param=True)})
    ask(table, path_of("LogSettings"), call(), change.SerializeToString())
    ask(table, path_of("RepositoryModelUnload"), call("Bearer wrong"), b"\xff")
    ask(table, path_of("RepositoryIndex"), call())
    common = {"peer": PEER.address, "protocol": "gRPC", "certificate": ["CN:x"]}
    load_line, region, log_line, unload = audited(caplog)
    assert load_line == common | {
        "principal": "p", "action": "RepositoryModelLoad", "outcome": "OK", "model": "m",
        "parameters": ["config", "file:1/model.onnx"],
    }  # fmt: skip
    assert region == common | {"principal": "p", "action": "SystemSharedMemoryRegister", "outcome": "OK", "region": "r"}
    assert log_line == common | {
        "principal": "p",
        "action": "LogSettings",
        "outcome": "PERMISSION_DENIED",
        "parameters": ["log_info"],
    }
    assert unload == common | {"principal": "unknown", "action": "RepositoryModelUnload", "outcome": "UNAUTHENTICATED"}
    assert "s3cret" not in caplog.text


def test_without_a_policy_only_what_changes_the_server_is_looked_at() -> None:
    closed = Access(open_policy(frozenset({"trace"}), "do this"))
    plain = methods()
    table = Gate(lambda _: closed, None, lambda _: None, only=CHANGING).guard(plain)
    assert {path.rpartition("/")[2] for path in table if table[path] is not plain[path]} == set(CHANGING)
    asked, looked = call(""), call("")
    setting = pb.TraceSettingRequest.SettingValue(value=["OFF"])
    ask(table, path_of("TraceSetting"), asked, pb.TraceSettingRequest(settings={"x": setting}).SerializeToString())
    ask(table, path_of("TraceSetting"), looked)
    assert (asked.status, asked.message) == (StatusCode.PERMISSION_DENIED, "'trace' is closed here; do this")
    assert looked.status is StatusCode.OK


@pytest.mark.parametrize(
    ("allow_admin", "address", "closed"),
    [
        (None, "127.0.0.1", set()), (None, "localhost", set()), (None, "::1", set()), (None, "unix:/s", set()),
        (None, "0.0.0.0", {"trace", "logging"}), (None, "::", {"trace", "logging"}),
        (None, "host", {"trace", "logging"}),
        (True, "0.0.0.0", set()), (False, "127.0.0.1", {"trace", "logging", "shared-memory"}),
    ],
)  # fmt: skip
def test_what_is_closed_depends_on_the_flag_and_on_who_can_reach_the_address(
    allow_admin: bool | None, address: str, closed: set[str]
) -> None:
    apis = {explicit: part_options.closed_apis(allow_admin, address, explicit=explicit) for explicit in (True, False)}
    assert apis[True] - {"model-repository"} == apis[False] - {"model-repository"} == closed
    assert ("model-repository" in apis[True]) == bool(closed)
    assert ("model-repository" in apis[False]) == (allow_admin is False)


def routes(*operations: str) -> list[Route]:
    def handle(exchange: Exchange, body: Buffer) -> None:
        exchange.reply(bytes(body))

    return [Route("POST", f"v2/{{model}}/{operation}", handle, operation) for operation in operations]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_route_is_reached_without_its_permission(operation: str) -> None:
    refused: list[ConvoyError] = []
    for lines, credential, status in (((), "Bearer wrong", 401), ((), BEARER, 403), ((allow(*APIS),), BEARER, 200)):
        peer = http_peer.Peer(guard_routes(routes(operation), gate(*lines, refused=refused)))
        assert peer.ask("POST", f"/v2/m/{operation}", b"x", authorization=credential).status == status
    assert len(refused) == (2 if operation in ("Infer", "Generate", "GenerateStream") else 0)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_route_is_reached_with_its_api(operation: str) -> None:
    api = METRICS if operation == "Metrics" else CATEGORIES.get(operation, "metadata")
    peer = http_peer.Peer(guard_routes(routes(operation), gate(allow(api))))
    assert peer.ask("POST", f"/v2/m/{operation}", b"x", authorization=BEARER).status == 200
    assert peer.ask("POST", f"/v2/m/{operation}", b"x").status == 401


@pytest.mark.parametrize("operation", sorted(OWN - {"Live", "Ready", "Metrics", "OpenApi"}))
def test_the_model_in_a_path_is_asked_about(operation: str) -> None:
    guarded = guard_routes(routes(operation), gate(allow("health", "inference", "metadata", "statistics", models="a")))
    assert [http_peer.Peer(guarded).ask("POST", f"/v2/{m}/{operation}", authorization=BEARER).status for m in "ab"] == [
        200,
        403,
    ]


def test_a_call_that_may_not_be_is_refused_before_its_message_is_there() -> None:
    refused: list[ConvoyError] = []
    table = gate(allow("inference"), refused=refused).guard(methods())
    for path, authorization, status in (
        (path_of(DECODED), "", StatusCode.UNAUTHENTICATED),
        (path_of("RepositoryModelLoad"), BEARER, StatusCode.PERMISSION_DENIED),
        (path_of(DECODED), BEARER, None),
    ):
        method, asked = table[path], call(authorization)
        assert isinstance(method, UnaryMethod) and method.begin is not None
        method.begin(asked)
        assert asked.status is status
    assert len(refused) == 1


HALF = {"known length": b"Content-Length: 1000\r\n\r\n{", "chunks": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"}


@pytest.mark.parametrize("rest", HALF.values(), ids=HALF)
@pytest.mark.parametrize("operation", ["Infer", "RepositoryModelLoad"])
def test_a_body_that_may_not_come_is_not_waited_for(operation: str, rest: bytes) -> None:
    peer = http_peer.Peer(guard_routes(routes(operation), gate(allow("inference", "model-repository", models="a"))))
    head = f"POST /v2/a/{operation} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n".encode()
    peer.send(head + rest)
    (answer,) = peer.answers()
    assert (answer.status, answer.headers["connection"]) == (401, "close")
    assert answer.headers["www-authenticate"] == 'Bearer realm="convoy"'
    assert peer.sink.closed and peer.sink.refused
    assert peer.connection.body_buffer() is None


def test_a_body_that_may_come_is_waited_for() -> None:
    peer = http_peer.Peer(guard_routes(routes("Infer"), gate(allow("inference"))))
    head = f"POST /v2/a/Infer HTTP/1.1\r\nHost: test\r\nAuthorization: {BEARER}\r\nContent-Length: 4\r\n\r\nab"
    peer.send(head.encode())
    assert peer.answers() == []
    peer.send(b"cd")
    (answer,) = peer.answers()
    assert (answer.status, answer.body) == (200, b"abcd")
