"""Routes that are an RPC each: what reaches the RPC, and what of its answer is shown."""

from __future__ import annotations

import asyncio
import json
import random
from base64 import b64encode
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from proto import grpc_service_pb2 as pb
from proto import model_config_pb2
from server.frontends.calls import Call, UnaryMethod
from server.frontends.inference_service import SERVICE
from server.frontends.rest.bodies import Bodies
from server.frontends.rest.json_tensors import MAX_CONTAINERS
from server.frontends.rest.pb_json import as_json
from server.frontends.rest.rpc_routes import BASE64_CHARACTERS, INLINE_BYTES, rpc_routes
from server.tensors import Buffer
from tests.unit.http_peer import Answer, Peer, request

NAMES = [
    method.name
    for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    if method.name not in ("ModelInfer", "ModelStreamInfer")
]


class Service:
    """Every RPC, which remembers what it was asked and answers what it is told to, at once or later."""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.calls: list[Call] = []
        self.answer: Message | None = None
        methods = {f"/{SERVICE}/{name}": UnaryMethod(self._handler(name)) for name in NAMES}
        self.bodies = Bodies(1 << 20)
        self.peer = Peer(rpc_routes(methods, self.bodies), max_input_bytes=8 << 20)

    def ask(self, verb: str, path: str, said: object = None, answer: Message | None = None) -> Answer:
        self.answer = answer
        return self.peer.ask(verb, path, b"" if said is None else json.dumps(said).encode())

    def ask_large(self, path: str, said: object) -> Answer:
        """A body that is read on a thread, the loop going on meanwhile."""
        body = json.dumps(said).encode()
        assert len(body) > INLINE_BYTES

        async def main() -> Answer:
            self.peer.send(request("POST", path, body))
            assert self.peer.answers() == []
            await self.peer.sink.wrote.wait()
            (answer,) = self.peer.answers()
            return answer

        return asyncio.run(main())

    def _handler(self, name: str) -> Any:
        def handle(call: Call, message: Buffer) -> None:
            self.asked.append(getattr(pb, f"{name}Request").FromString(bytes(message)))
            self.calls.append(call)
            answer = self.answer or getattr(pb, f"{name}Response")()
            call.reply(answer.SerializeToString())

        return handle


@pytest.fixture
def service() -> Service:
    return Service()


LOAD = {"parameters": {"config": "{}", "file:1/model.onnx": b64encode(b"\0\1").decode()}}
LOADED = {
    "config": pb.ModelRepositoryParameter(string_param="{}"),
    "file:1/model.onnx": pb.ModelRepositoryParameter(bytes_param=b"\0\1"),
}
TRACE = {"trace_level": ["TIMESTAMPS"], "trace_rate": "7", "trace_count": 3, "log_frequency": None}
TRACED = {name: pb.TraceSettingRequest.SettingValue(value=value) for name, value in (
    ("trace_level", ["TIMESTAMPS"]), ("trace_rate", ["7"]), ("trace_count", ["3"]), ("log_frequency", [])
)}  # fmt: skip
LogValue = pb.LogSettingsRequest.SettingValue


@pytest.mark.parametrize(
    ("verb", "path", "said", "request_"),
    [
        ("GET", "/v2", None, pb.ServerMetadataRequest()),
        ("GET", "/v2/models/a%2Fb", None, pb.ModelMetadataRequest(name="a/b")),
        ("GET", "/v2/models/m/versions/7", None, pb.ModelMetadataRequest(name="m", version="7")),
        ("GET", "/v2/models/m/config", None, pb.ModelConfigRequest(name="m")),
        ("GET", "/v2/models/m/versions/7/config", None, pb.ModelConfigRequest(name="m", version="7")),
        ("GET", "/v2/models/m/stats", None, pb.ModelStatisticsRequest(name="m")),
        ("GET", "/v2/models/m/versions/7/stats", None, pb.ModelStatisticsRequest(name="m", version="7")),
        ("GET", "/v2/models/stats", None, pb.ModelStatisticsRequest()),
        ("POST", "/v2/repository/index", None, pb.RepositoryIndexRequest()),
        ("POST", "/v2/repository/index", {"ready": True}, pb.RepositoryIndexRequest(ready=True)),
        ("POST", "/v2/repository/r/index", {}, pb.RepositoryIndexRequest(repository_name="r")),
        ("POST", "/v2/repository/models/m/load", None, pb.RepositoryModelLoadRequest(model_name="m")),
        (
            "POST",
            "/v2/repository/r/models/m/load",
            LOAD,
            pb.RepositoryModelLoadRequest(repository_name="r", model_name="m", parameters=LOADED),
        ),
        (
            "POST",
            "/v2/repository/models/m/unload",
            {"parameters": {"unload_dependents": True}},
            pb.RepositoryModelUnloadRequest(
                model_name="m", parameters={"unload_dependents": pb.ModelRepositoryParameter(bool_param=True)}
            ),
        ),
        ("GET", "/v2/systemsharedmemory/status", None, pb.SystemSharedMemoryStatusRequest()),
        ("GET", "/v2/systemsharedmemory/region/r/status", None, pb.SystemSharedMemoryStatusRequest(name="r")),
        ("POST", "/v2/systemsharedmemory/unregister", None, pb.SystemSharedMemoryUnregisterRequest()),
        (
            "POST",
            "/v2/systemsharedmemory/region/r/register",
            {"key": "/k", "offset": 8, "byte_size": 64},
            pb.SystemSharedMemoryRegisterRequest(name="r", key="/k", offset=8, byte_size=64),
        ),
        ("GET", "/v2/cudasharedmemory/region/r/status", None, pb.CudaSharedMemoryStatusRequest(name="r")),
        ("POST", "/v2/cudasharedmemory/region/r/unregister", None, pb.CudaSharedMemoryUnregisterRequest(name="r")),
        (
            "POST",
            "/v2/cudasharedmemory/region/r/register",
            {"raw_handle": {"b64": b64encode(b"handle").decode()}, "device_id": 1, "byte_size": 64},
            pb.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"handle", device_id=1, byte_size=64),
        ),
        ("GET", "/v2/trace/setting", None, pb.TraceSettingRequest()),
        ("POST", "/v2/models/m/trace/setting", TRACE, pb.TraceSettingRequest(model_name="m", settings=TRACED)),
        ("GET", "/v2/logging", None, pb.LogSettingsRequest()),
        (
            "POST",
            "/v2/logging",
            {"log_info": False, "log_verbose_level": 1, "log_format": "json"},
            pb.LogSettingsRequest(
                settings={
                    "log_info": LogValue(bool_param=False),
                    "log_verbose_level": LogValue(uint32_param=1),
                    "log_format": LogValue(string_param="json"),
                }
            ),
        ),
    ],
)
def test_a_route_asks_its_rpc(verb: str, path: str, said: object, request_: Message, service: Service) -> None:
    assert service.ask(verb, path, said).status == 200
    assert service.asked == [request_]


Region = pb.SystemSharedMemoryStatusResponse.RegionStatus
CudaRegion = pb.CudaSharedMemoryStatusResponse.RegionStatus


@pytest.mark.parametrize(
    ("verb", "path", "answer", "shown"),
    [
        (
            "GET",
            "/v2",
            pb.ServerMetadataResponse(name="n", version="1", extensions=["a"]),
            {"name": "n", "version": "1", "extensions": ["a"]},
        ),
        (
            "GET",
            "/v2/models/stats",
            pb.ModelStatisticsResponse(model_stats=[pb.ModelStatistics(name="m", inference_count=2**63)]),
            {
                "model_stats": [
                    {
                        "name": "m",
                        "version": "",
                        "last_inference": 0,
                        "inference_count": 2**63,
                        "execution_count": 0,
                        "batch_stats": [],
                        "memory_usage": [],
                        "response_stats": {},
                    }
                ]
            },
        ),
        (
            "POST",
            "/v2/repository/index",
            pb.RepositoryIndexResponse(models=[pb.RepositoryIndexResponse.ModelIndex(name="m", state="READY")]),
            [{"name": "m", "state": "READY"}],
        ),
        ("POST", "/v2/repository/models/m/load", None, None),
        ("POST", "/v2/systemsharedmemory/unregister", None, None),
        (
            "GET",
            "/v2/systemsharedmemory/status",
            pb.SystemSharedMemoryStatusResponse(regions={"r": Region(name="r", key="/k", offset=8, byte_size=64)}),
            [{"name": "r", "key": "/k", "offset": 8, "byte_size": 64}],
        ),
        (
            "GET",
            "/v2/cudasharedmemory/status",
            pb.CudaSharedMemoryStatusResponse(regions={"r": CudaRegion(name="r", device_id=0, byte_size=64)}),
            [{"name": "r", "device_id": 0, "byte_size": 64}],
        ),
        (
            "GET",
            "/v2/trace/setting",
            pb.TraceSettingResponse(
                settings={
                    "trace_level": pb.TraceSettingResponse.SettingValue(value=["OFF"]),
                    "trace_rate": pb.TraceSettingResponse.SettingValue(value=["1000"]),
                }
            ),
            {"trace_level": ["OFF"], "trace_rate": "1000"},
        ),
        (
            "GET",
            "/v2/logging",
            pb.LogSettingsResponse(
                settings={
                    "log_info": pb.LogSettingsResponse.SettingValue(bool_param=False),
                    "log_verbose_level": pb.LogSettingsResponse.SettingValue(uint32_param=0),
                }
            ),
            {"log_info": False, "log_verbose_level": 0},
        ),
    ],
)
def test_an_answer_is_shown_as_triton_shows_it(
    verb: str, path: str, answer: Message | None, shown: object, service: Service
) -> None:
    assert service.ask(verb, path, answer=answer).json == shown


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/v2/repository/index", b"nonsense", "failed to parse the request JSON buffer"),
        ("/v2/repository/index", b"[" * 50_000, "failed to parse"),
        ("/v2/repository/index", b"[]", "must be an object"),
        ("/v2/repository/index", b'{"ready":1}', "'ready' must be true or false"),
        (
            "/v2/repository/models/m/load",
            b'{"parameters":{"config":{}}}',
            "parameter 'config' of a load must be a string",
        ),
        ("/v2/repository/models/m/load", b'{"parameters":{"file:x":"?"}}', "parameter 'file:x' is not base64"),
        ("/v2/repository/models/m/load", '{"parameters":{"file:x":"é"}}'.encode(), "parameter 'file:x' is not base64"),
        ("/v2/repository/models/m/load", b'{"parameters":{"file:x":"AA==AAAA"}}', "parameter 'file:x' is not base64"),
        ("/v2/repository/models/m/unload", b'{"parameters":{"unload_dependents":1}}', "must be true or false"),
        ("/v2/systemsharedmemory/region/r/register", b"{}", "the request has no 'key'"),
        (
            "/v2/systemsharedmemory/region/r/register",
            b'{"key":"k","byte_size":-1}',
            "'byte_size' must be a number from 0",
        ),
        ("/v2/cudasharedmemory/region/r/register", b'{"raw_handle":{}}', "the request has no 'b64'"),
        ("/v2/trace/setting", b'{"trace_rate":{}}', "trace setting 'trace_rate'"),
        ("/v2/logging", b'{"log_info":[]}', "log setting 'log_info'"),
        ("/v2/logging", b'{"log_verbose_level":4294967296}', "log setting 'log_verbose_level'"),
    ],
)
def test_what_is_wrong_is_said(path: str, body: bytes, reason: str, service: Service) -> None:
    answer = service.peer.ask("POST", path, body)
    assert answer.status == 400
    assert reason in answer.json["error"]
    assert service.asked == []


LOAD_PATH = "/v2/repository/models/m/load"


def test_a_large_file_arrives_whole_in_whatever_pieces_it_is_decoded(service: Service) -> None:
    contents = random.Random(3).randbytes(BASE64_CHARACTERS + 1)
    files = {"file:1/model.onnx": b64encode(contents).decode(), "file:2/model.onnx": "", "config": "{}"}
    assert service.ask_large(LOAD_PATH, {"parameters": files}).status == 200
    bytes_of = {"file:1/model.onnx": contents, "file:2/model.onnx": b""}
    parameters = {key: pb.ModelRepositoryParameter(bytes_param=value) for key, value in bytes_of.items()}
    parameters["config"] = pb.ModelRepositoryParameter(string_param="{}")
    assert service.asked == [pb.RepositoryModelLoadRequest(model_name="m", parameters=parameters)]


@pytest.mark.parametrize("wrong", ["=" + "A" * BASE64_CHARACTERS, "A" * BASE64_CHARACTERS + "A", "é" * INLINE_BYTES])
def test_what_is_wrong_in_a_large_body_is_said_too(wrong: str, service: Service) -> None:
    answer = service.ask_large(LOAD_PATH, {"parameters": {"file:1/model.onnx": wrong}})
    assert (answer.status, answer.json) == (400, {"error": "parameter 'file:1/model.onnx' is not base64"})
    assert service.asked == []


def full(message: Message) -> Message:
    """A message with something in every field."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            key = 1 if field.message_type.fields_by_name["key"].cpp_type != field.CPPTYPE_STRING else "k"
            if inner.message_type is not None:
                full(value[key])
            else:
                value[key] = "v"
        elif field.message_type is not None:
            full(value.add() if field.is_repeated else value)
        else:
            example = "text" if field.cpp_type == field.CPPTYPE_STRING else 1
            if field.is_repeated:
                value.append(example)
            else:
                setattr(message, field.name, example)
    return message


def numbers_of(value: Any) -> Any:
    """`json_format` writes 64-bit integers as strings."""
    if isinstance(value, dict):
        return {key: numbers_of(each) for key, each in value.items()}
    if isinstance(value, list):
        return [numbers_of(each) for each in value]
    return int(value) if isinstance(value, str) and value.isdigit() else value


@pytest.mark.parametrize("fill", [lambda message: message, full], ids=["empty", "full"])
def test_a_configuration_is_as_protobuf_has_it_with_numbers_for_numbers(fill: Any) -> None:
    config = fill(model_config_pb2.ModelConfig())
    expected = MessageToDict(config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    assert json.loads(json.dumps(as_json(config))) == numbers_of(expected)


def test_json_that_would_take_much_memory_reaches_no_rpc(service: Service) -> None:
    answer = service.ask_large("/v2/logging", [[]] * MAX_CONTAINERS)  # with the list around them, one too many
    assert answer.status == 400 and b"more than 1048576 lists and objects" in answer.body
    assert service.asked == []
