"""The routes as an OpenAPI 3.1 document, made of the route table and of protobuf's descriptors, so that it is true."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from proto import grpc_service_pb2 as pb
from proto import model_config_pb2
from server import __version__
from server.frontends.rest.exchange import JSON, Content, Exchange, Route, json_content
from server.frontends.rest.generate_codec import EVENTS
from server.frontends.rest.infer_codec import BINARY, HEADER_LENGTH
from server.tensors import DATATYPES, Buffer

Schema = Mapping[str, Any]

TEXT = "text/plain"


class Operation(NamedTuple):
    """What a route does. Schemas are by name in `components`; "" for no body."""

    summary: str
    request: str = ""
    answer: str = ""
    errors: tuple[int, ...] = (400,)
    media: tuple[str, ...] = (JSON,)
    answer_media: tuple[str, ...] = ()
    """Where it is not that of the request."""


_LOADED = (400, 404, 503)
_INFERENCE = (400, 404, 413, 415, 429, 500, 501, 503, 504)

OPERATIONS: Mapping[str, Operation] = {
    "Live": Operation("Whether the server runs", errors=()),
    "Ready": Operation("Whether the server is ready", errors=(400, 503)),
    "ModelReady": Operation("Whether a version of a model is ready", errors=_LOADED),
    "Infer": Operation("One inference", "InferRequest", "InferResponse", _INFERENCE, (JSON, BINARY)),
    "Generate": Operation("One inference in flat JSON", "GenerateRequest", "GenerateResponse", _INFERENCE),
    "GenerateStream": Operation(
        "The same, as a server-sent event", "GenerateRequest", "GenerateResponse", _INFERENCE, (JSON,), (EVENTS,)
    ),
    "ServerMetadata": Operation("What the server is", "", "ServerMetadataResponse"),
    "ModelMetadata": Operation("A model's versions and tensors", "", "ModelMetadataResponse", _LOADED),
    "ModelConfig": Operation("A model's configuration, completed", "", "ModelConfig", _LOADED),
    "ModelStatistics": Operation("What has been counted", "", "ModelStatisticsResponse", _LOADED),
    "RepositoryIndex": Operation("The models that there are", "RepositoryIndexRequest", "RepositoryIndex", (400, 501)),
    "RepositoryModelLoad": Operation("Load or reload a model", "LoadRequest", "", (400, 501, 503)),
    "RepositoryModelUnload": Operation("Unload a model", "UnloadRequest", "", (400, 501, 503)),
    "SystemSharedMemoryRegister": Operation("Register a region", "SystemRegion", "", (400, 501)),
    "SystemSharedMemoryStatus": Operation("Registered regions", "", "SystemRegions", (400, 404, 501)),
    "SystemSharedMemoryUnregister": Operation("Forget one region or all", "", "", (400, 404, 501)),
    "CudaSharedMemoryRegister": Operation("Register a region of a GPU", "CudaRegion", "", (400, 501)),
    "CudaSharedMemoryStatus": Operation("Registered regions of GPUs", "", "CudaRegions", (400, 404, 501)),
    "CudaSharedMemoryUnregister": Operation("Forget one region of a GPU or all", "", "", (400, 404, 501)),
    "TraceSetting": Operation("Trace settings", "TraceSettings", "TraceSettings", (400, 404, 501)),
    "LogSettings": Operation("Log settings", "LogSettings", "LogSettings", (400, 501)),
    "Cost": Operation("What batches of a model take", "", "Cost", _LOADED),
    "LiveFigures": Operation("What a model does now", "", "LiveFigures", _LOADED),
    "PlaygroundLoad": Operation(
        "The load that the server makes itself", "PlaygroundLoad", "PlaygroundLoadState", _LOADED
    ),
    "Card": Operation("A version's model card: how it was trained, and how well it does", "", "Card", _LOADED),
    "Metrics": Operation("Metrics for Prometheus", "", "Metrics", (500,), (TEXT,)),
    "OpenApi": Operation("This document", "", "Document", ()),
}


REFUSALS = (401, 403, 429)
"""What any route may answer where an operator restricts it."""


def openapi_route(routes: Iterable[Route]) -> Route:
    """The route that shows the document of these routes and of itself."""
    content = Content(b"", ())

    def handle(exchange: Exchange, _: Buffer) -> None:
        exchange.respond(HTTPStatus.OK, content)

    route = Route("GET", "v2/openapi.json", handle, "OpenApi")
    content = json_content(document([*routes, route]))
    return route


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The document. Raises `KeyError` for a route whose operation is not described here."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(f"/{route.template}", {})[route.verb.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Convoy",
            "version": __version__,
            "description": "Inference over HTTP: KServe v2 REST with Triton's extensions.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "security": [{}, {"token": []}],
        "components": {"schemas": SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(route: Route) -> dict[str, Any]:
    operation = OPERATIONS[route.operation]
    names = re.findall(r"\{(\w+)\}", route.template)
    parameters: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    if BINARY in operation.media:
        parameters.append({
            "name": HEADER_LENGTH,
            "in": "header",
            "description": "Where the JSON of the body ends and binary data begin; 0: the body is the only input",
            "schema": {"type": "integer", "minimum": 0},
        })  # fmt: skip
    described: dict[str, Any] = {"summary": operation.summary, "operationId": _operation_id(route)}
    if parameters:
        described["parameters"] = parameters
    if operation.request and route.verb == "POST":
        needed = operation.request not in ("RepositoryIndexRequest", "LoadRequest", "UnloadRequest")
        described["requestBody"] = {"required": needed, "content": _content(operation.request, operation.media)}
    answer: dict[str, Any] = {"description": "OK"}
    if operation.answer:
        answer["content"] = _content(operation.answer, operation.answer_media or operation.media)
    described["responses"] = {"200": answer} | {
        str(status): {"description": HTTPStatus(status).phrase, "content": _content("Error", (JSON,))}
        for status in sorted({*operation.errors, *REFUSALS})
    }
    return described


def _operation_id(route: Route) -> str:
    """The operation, and what tells this route from others of it."""
    names = re.findall(r"\{(\w+)\}", route.template)
    verb = route.verb.lower() if route.operation in ("TraceSetting", "LogSettings", "PlaygroundLoad") else ""
    return "_".join(filter(None, (verb, route.operation, *names)))


def _content(schema: str, media: Iterable[str]) -> dict[str, Any]:
    return {
        each: {"schema": {"type": "string", "format": "binary"} if each == BINARY else _reference(schema)}
        for each in media
    }


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: Iterable[str] = (), **properties: Schema) -> Schema:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return schema | ({"required": list(required)} if required else {})


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_SCALARS: Mapping[int, Schema] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer"},
    FieldDescriptor.CPPTYPE_INT64: {"type": "integer"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "integer", "minimum": 0},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}


def message_schema(message: Descriptor) -> Schema:
    """A protobuf message as `pb_json` writes it."""
    return _object(**{field.name: _field_schema(field) for field in message.fields})


def _field_schema(field: FieldDescriptor) -> Schema:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {
            "type": "object",
            "additionalProperties": _value_schema(field.message_type.fields_by_name["value"]),
        }
    return _array(_value_schema(field)) if field.is_repeated else _value_schema(field)


def _value_schema(field: FieldDescriptor) -> Schema:
    if field.message_type is not None:
        return message_schema(field.message_type)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    return _SCALARS[field.cpp_type]


_STRING: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_BOOLEAN: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_COUNTS: Schema = _array(_COUNT)
_NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}
_STRING_OR_NULL: Schema = {"type": ["string", "null"]}
_BY_REASON: Schema = {"type": "object", "additionalProperties": _NUMBER}
_PARAMETERS: Schema = {"type": "object", "additionalProperties": {"type": ["boolean", "integer", "number", "string"]}}
_SHAPE: Schema = _array(_COUNT)
_DATATYPE: Schema = {"type": "string", "enum": list(DATATYPES)}
_DATA: Schema = {"type": "array", "description": "Row-major; flat, or nested in any way"}
_TENSOR: Schema = _object(
    ("name", "shape", "datatype"),
    name=_STRING,
    shape=_SHAPE,
    datatype=_DATATYPE,
    parameters=_PARAMETERS,
    data=_DATA,
)
_FLAT: Schema = {"type": ["boolean", "integer", "number", "string", "array"]}
_SYSTEM = {"key": _STRING, "offset": _COUNT, "byte_size": _COUNT}
_CUDA = {"device_id": _COUNT, "byte_size": _COUNT}

SCHEMAS: Mapping[str, Schema] = {
    "Error": _object(("error",), error=_STRING),
    "ServerMetadataResponse": message_schema(pb.ServerMetadataResponse.DESCRIPTOR),
    "ModelMetadataResponse": message_schema(pb.ModelMetadataResponse.DESCRIPTOR),
    "ModelConfig": message_schema(model_config_pb2.ModelConfig.DESCRIPTOR),
    "ModelStatisticsResponse": message_schema(pb.ModelStatisticsResponse.DESCRIPTOR),
    "InferRequest": _object(
        ("inputs",),
        id=_STRING,
        parameters=_PARAMETERS,
        inputs=_array(_TENSOR),
        outputs=_array(_object(("name",), name=_STRING, parameters=_PARAMETERS)),
    ),
    "InferResponse": _object(
        ("model_name", "model_version", "outputs"),
        id=_STRING,
        model_name=_STRING,
        model_version=_STRING,
        parameters=_PARAMETERS,
        outputs=_array(_TENSOR),
    ),
    "GenerateRequest": {
        "type": "object",
        "properties": {"id": _STRING, "parameters": {"type": "object", "additionalProperties": _FLAT}},
        "additionalProperties": _FLAT,
    },
    "GenerateResponse": {
        "type": "object",
        "properties": {"id": _STRING, "model_name": _STRING, "model_version": _STRING},
        "additionalProperties": _FLAT,
        "required": ["model_name", "model_version"],
    },
    "RepositoryIndexRequest": _object(ready=_BOOLEAN),
    "RepositoryIndex": _array(_object(("name",), name=_STRING, version=_STRING, state=_STRING, reason=_STRING)),
    "LoadRequest": _object(parameters={"type": "object", "additionalProperties": _STRING}),
    "UnloadRequest": _object(parameters=_object(unload_dependents=_BOOLEAN)),
    "SystemRegion": _object(("key", "byte_size"), **_SYSTEM),
    "SystemRegions": _array(_object(name=_STRING, **_SYSTEM)),
    "CudaRegion": _object(("raw_handle", "device_id", "byte_size"), raw_handle=_object(("b64",), b64=_STRING), **_CUDA),
    "CudaRegions": _array(_object(name=_STRING, **_CUDA)),
    "TraceSettings": {
        "type": "object",
        "additionalProperties": {"type": ["string", "array", "null"], "items": _STRING},
    },
    "LogSettings": {"type": "object", "additionalProperties": {"type": ["boolean", "integer", "string"]}},
    "Cost": _object(
        model_name=_STRING,
        model_version=_STRING,
        max_batch_size=_COUNT,
        objective_ms=_NUMBER_OR_NULL,
        instances=_COUNT,
        buckets=_array(_object(rows=_COUNT, p50_us=_NUMBER, p99_us=_NUMBER, runs=_COUNT)),
    ),
    "LiveFigures": _object(
        model_name=_STRING,
        model_version=_STRING,
        policy=_STRING,
        objective_ms=_NUMBER_OR_NULL,
        now_us=_COUNT,
        waiting=_object(requests=_COUNT, rows=_COUNT, oldest_us=_COUNT),
        running=_object(batches=_COUNT, requests=_COUNT),
        window_seconds=_NUMBER,
        latency_us=_object(p50=_NUMBER_OR_NULL, p99=_NUMBER_OR_NULL),
        answered_per_second=_NUMBER,
        in_time_per_second=_NUMBER_OR_NULL,
        failed_per_second=_BY_REASON,
        cursor=_COUNT,
        missed_batches=_COUNT,
        batches=_object(
            started_us=_COUNTS, rows=_COUNTS, requests=_COUNTS, duration_us=_COUNTS, queue_delay_us=_COUNTS
        ),
    ),
    "PlaygroundLoad": _object(
        ("model", "rate"), model=_STRING, version=_STRING, rows=_COUNT, rate=_NUMBER, seconds=_NUMBER
    ),
    "PlaygroundLoadState": _object(
        running=_BOOLEAN,
        model=_STRING_OR_NULL,
        version=_STRING_OR_NULL,
        rows=_NUMBER_OR_NULL,
        rate=_NUMBER_OR_NULL,
        seconds_left=_NUMBER,
        sent=_COUNT,
        answered=_COUNT,
        failed=_BY_REASON,
        skipped=_COUNT,
        in_progress=_COUNT,
        limits=_object(rows=_COUNT, rate=_NUMBER, seconds=_NUMBER),
    ),
    "Card": _object(("model_name", "model_version"), model_name=_STRING, model_version=_STRING),
    "Metrics": _STRING,
    "Document": {"type": "object"},
}
