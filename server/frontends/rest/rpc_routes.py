"""Routes that are an RPC of gRPC each: made of the path and the JSON, carried out by the same handler, shown as JSON.

The forms are Triton's (its `docs/protocol`). Whatever an RPC answers, at once or later, is answered here too.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

from google.protobuf.message import Message

from proto import grpc_service_pb2 as pb
from server.errors import ConvoyError, InvalidRequest
from server.frontends.calls import MethodTable, UnaryMethod
from server.frontends.inference_service import SERVICE
from server.frontends.load_codec import file_prefix
from server.frontends.rest import json_tensors
from server.frontends.rest.bodies import Bodies
from server.frontends.rest.exchange import NO_CONTENT, Content, Exchange, Route, json_content
from server.frontends.rest.json_tensors import NonFinite
from server.frontends.rest.pb_json import as_json
from server.frontends.statuses import AS_TRITON
from server.models.overrides import FILE_PREFIX
from server.tensors import Buffer

Parameters = Mapping[str, str]
Fields = Mapping[str, Any]
Build = Callable[[Parameters, Fields], Message | Buffer]
"""The request of an RPC, serialized or not, of what stands in the path and in the JSON of the body. Raises
`InvalidRequest`. Runs on a thread where the body is large."""
Show = Callable[[Any], object]
"""The answer of an RPC as JSON has it; None for no body."""

MAX_UINT32 = (1 << 32) - 1
INLINE_BYTES = 64 << 10
"""A larger body is read on a thread."""
BASE64_CHARACTERS = 1 << 18
"""Decoded at once, since all threads wait meanwhile."""


def rpc_routes(methods: MethodTable, bodies: Bodies) -> list[Route]:
    """The routes over an RPC table."""

    def route(verb: str, template: str, name: str, build: Build, show: Show) -> Route:
        method = methods[f"/{SERVICE}/{name}"]
        assert isinstance(method, UnaryMethod), "only unary RPCs are routes"
        answer = getattr(pb, f"{name}Response")
        handle = partial(_handle, method, bodies, build, partial(_shown, answer, show))
        return Route(verb, template, lambda exchange, body: bodies.receive(exchange, body, handle), name)

    routes = [
        route("GET", "v2", "ServerMetadata", _plain(pb.ServerMetadataRequest), as_json),
        route("GET", "v2/models/stats", "ModelStatistics", _plain(pb.ModelStatisticsRequest), as_json),
    ]
    for version in ("", "/versions/{version}"):
        path = f"v2/models/{{model}}{version}"
        for suffix, name, show in (
            ("", "ModelMetadata", as_json),
            ("/config", "ModelConfig", _config),
            ("/stats", "ModelStatistics", as_json),
        ):
            routes.append(route("GET", path + suffix, name, _model(getattr(pb, f"{name}Request")), show))
    for repository in ("", "/{repository}"):
        path = f"v2/repository{repository}"
        routes += [
            route("POST", f"{path}/index", "RepositoryIndex", _index, _index_lines),
            route("POST", f"{path}/models/{{model}}/load", "RepositoryModelLoad", _load, _nothing),
            route("POST", f"{path}/models/{{model}}/unload", "RepositoryModelUnload", _unload, _nothing),
        ]
    for verb in ("GET", "POST"):
        for model in ("", "/models/{model}"):
            routes.append(route(verb, f"v2{model}/trace/setting", "TraceSetting", _trace, _trace_settings))
        routes.append(route(verb, "v2/logging", "LogSettings", _logging, _log_settings))
    for kind, register in (("System", _register_system), ("Cuda", _register_cuda)):
        path, rpc = f"v2/{kind.lower()}sharedmemory", f"{kind}SharedMemory"
        routes.append(route("POST", f"{path}/region/{{region}}/register", f"{rpc}Register", register, _nothing))
        status = partial(_region, getattr(pb, f"{rpc}StatusRequest"))
        unregister = partial(_region, getattr(pb, f"{rpc}UnregisterRequest"))
        for part in ("", "/region/{region}"):
            routes.append(route("GET", f"{path}{part}/status", f"{rpc}Status", status, _regions))
            routes.append(route("POST", f"{path}{part}/unregister", f"{rpc}Unregister", unregister, _nothing))
    return routes


def _handle(
    method: UnaryMethod,
    bodies: Bodies,
    build: Build,
    render: Callable[[Buffer], Content],
    exchange: Exchange,
    body: Buffer,
) -> None:
    exchange.render = render
    if len(body) > INLINE_BYTES:
        bodies.work(exchange, partial(_made, build, exchange.parameters, body), partial(method.handle, exchange))
        return
    try:
        message = _made(build, exchange.parameters, body)
    except ConvoyError as error:
        AS_TRITON.fail(exchange, error)
    else:
        method.handle(exchange, message)


def _made(build: Build, parameters: Parameters, body: Buffer) -> Buffer:
    request = build(parameters, _fields(body))
    return request.SerializeToString() if isinstance(request, Message) else request


def _shown(answer: type[Message], show: Show, message: Buffer) -> Content:
    shown = show(answer.FromString(bytes(message)))
    return NO_CONTENT if shown is None else json_content(shown)


def _fields(body: Buffer) -> Fields:
    if not body:
        return {}
    fields = json_tensors.parse(bytes(body), NonFinite.REFUSE)
    if not isinstance(fields, dict):
        raise InvalidRequest("the request's JSON must be an object")
    return fields


# --- requests ---


def _plain(message: type[Message]) -> Build:
    return lambda _, __: message()


def _model(message: Callable[..., Message]) -> Build:
    return lambda parameters, _: message(name=parameters["model"], version=parameters.get("version", ""))


def _index(parameters: Parameters, fields: Fields) -> Message:
    return pb.RepositoryIndexRequest(
        repository_name=parameters.get("repository", ""), ready=_typed(fields, "ready", bool, False)
    )


def _load(parameters: Parameters, fields: Fields) -> Buffer:
    """Parameters are strings, those of files in base64 (Triton's model repository extension)."""
    request = pb.RepositoryModelLoadRequest(
        repository_name=parameters.get("repository", ""), model_name=parameters["model"]
    )
    files: dict[str, str] = {}
    for key, value in _typed(fields, "parameters", dict, {}).items():
        if not isinstance(value, str):
            raise InvalidRequest(f"parameter '{key}' of a load must be a string")
        if key.startswith(FILE_PREFIX):
            files[key] = value
        else:
            request.parameters[key].string_param = value
    parts = [iter([request.SerializeToString()])]
    size = request.ByteSize()
    for key, text in files.items():
        content_size = _decoded_size(text)
        prefix = file_prefix(key, content_size)
        parts += iter([prefix]), _base64(text, f"parameter '{key}'")
        size += len(prefix) + content_size
    message, position = memoryview(bytearray(size)), 0  # one large block, which goes back to the system as a whole
    for part in chain.from_iterable(parts):
        message[position : position + len(part)] = part
        position += len(part)
    return message


def _unload(parameters: Parameters, fields: Fields) -> Message:
    request = pb.RepositoryModelUnloadRequest(
        repository_name=parameters.get("repository", ""), model_name=parameters["model"]
    )
    for key, value in _typed(fields, "parameters", dict, {}).items():
        if not isinstance(value, bool):
            raise InvalidRequest(f"parameter '{key}' of an unload must be true or false")
        request.parameters[key].bool_param = value
    return request


def _region(message: Callable[..., Message], parameters: Parameters, _: Fields) -> Message:
    return message(name=parameters.get("region", ""))


def _register_system(parameters: Parameters, fields: Fields) -> Message:
    return pb.SystemSharedMemoryRegisterRequest(
        name=parameters["region"],
        key=_typed(fields, "key", str),
        offset=_size(fields, "offset", 0),
        byte_size=_size(fields, "byte_size"),
    )


def _register_cuda(parameters: Parameters, fields: Fields) -> Message:
    return pb.CudaSharedMemoryRegisterRequest(
        name=parameters["region"],
        raw_handle=b"".join(_base64(_typed(_typed(fields, "raw_handle", dict), "b64", str), "'raw_handle'")),
        device_id=_size(fields, "device_id"),
        byte_size=_size(fields, "byte_size"),
    )


def _trace(parameters: Parameters, fields: Fields) -> Message:
    """A setting is a word, several, or null, which gives it back to the server's own (Triton's trace extension)."""
    request = pb.TraceSettingRequest(model_name=parameters.get("model", ""))
    for name, value in fields.items():
        values = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(word, str) or type(word) is int for word in values):
            raise InvalidRequest(f"trace setting '{name}' must be a string, an array of strings or null")
        request.settings[name].value.extend(map(str, values))
        request.settings[name].SetInParent()
    return request


def _logging(_: Parameters, fields: Fields) -> Message:
    request = pb.LogSettingsRequest()
    for name, value in fields.items():
        match value:
            case bool():
                request.settings[name].bool_param = value
            case int() if 0 <= value <= MAX_UINT32:
                request.settings[name].uint32_param = value
            case str():
                request.settings[name].string_param = value
            case _:
                raise InvalidRequest(f"log setting '{name}' must be true, false, a string or a number from 0")
    return request


_MISSING = object()
_JSON_WORDS = {bool: "true or false", int: "a number", str: "a string", dict: "an object"}


def _typed(fields: Fields, key: str, kind: type, default: object = _MISSING) -> Any:
    value = fields.get(key, default)
    if value is _MISSING:
        raise InvalidRequest(f"the request has no '{key}'")
    if not isinstance(value, kind):
        raise InvalidRequest(f"'{key}' must be {_JSON_WORDS[kind]}")
    return value


def _size(fields: Fields, key: str, default: object = _MISSING) -> int:
    value = _typed(fields, key, int, default)
    if isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise InvalidRequest(f"'{key}' must be a number from 0")
    return int(value)


def _base64(text: str, what: str) -> Iterator[bytes]:
    """What a text stands for, in pieces: other threads have a turn between them. Raises `InvalidRequest`."""
    if len(text) % 4 or "=" in text[:-2]:
        raise InvalidRequest(f"{what} is not base64")
    for start in range(0, len(text), BASE64_CHARACTERS):
        try:
            yield b64decode(text[start : start + BASE64_CHARACTERS], validate=True)
        except ValueError:
            raise InvalidRequest(f"{what} is not base64") from None


def _decoded_size(text: str) -> int:
    """Of what a text in base64 stands for."""
    return len(text) // 4 * 3 - text[-2:].count("=")


# --- answers ---


def _nothing(_: Message) -> object:
    return None


def _config(answer: pb.ModelConfigResponse) -> object:
    return as_json(answer.config)


def _index_lines(answer: pb.RepositoryIndexResponse) -> object:
    return [{name: value for name, value in as_json(line).items() if value} for line in answer.models]


def _regions(answer: Any) -> object:
    return [as_json(answer.regions[name]) for name in sorted(answer.regions)]


def _trace_settings(answer: pb.TraceSettingResponse) -> object:
    """One word is a string, as Triton has it, but for the levels, which may be several."""
    return {
        name: list(setting.value) if name == "trace_level" or len(setting.value) != 1 else setting.value[0]
        for name, setting in sorted(answer.settings.items())
    }


def _log_settings(answer: pb.LogSettingsResponse) -> object:
    return {name: next(iter(as_json(setting).values())) for name, setting in sorted(answer.settings.items())}
