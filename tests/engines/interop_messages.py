"""The messages of `grpc.testing.TestService`, as gRPC publishes them for its interop tests, as far as we use them.

They live in a pool of their own, so that they clash with nobody's generated code.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "grpc.testing"

_TYPES = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "PayloadType": FieldDescriptorProto.TYPE_ENUM,
}
_MESSAGES: dict[str, str] = {
    "Empty": "",
    "BoolValue": "1 bool value",
    "Payload": "1 PayloadType type, 2 bytes body",
    "EchoStatus": "1 int32 code, 2 string message",
    "SimpleRequest": "1 PayloadType response_type, 2 int32 response_size, 3 Payload payload, 4 bool fill_username, "
    "5 bool fill_oauth_scope, 6 BoolValue response_compressed, 7 EchoStatus response_status, "
    "8 BoolValue expect_compressed",
    "SimpleResponse": "1 Payload payload, 2 string username, 3 string oauth_scope",
    "StreamingInputCallRequest": "1 Payload payload, 2 BoolValue expect_compressed",
    "StreamingInputCallResponse": "1 int32 aggregated_payload_size",
    "ResponseParameters": "1 int32 size, 2 int32 interval_us, 3 BoolValue compressed",
    "StreamingOutputCallRequest": "1 PayloadType response_type, 2 ResponseParameters* response_parameters, "
    "3 Payload payload, 7 EchoStatus response_status",
    "StreamingOutputCallResponse": "1 Payload payload",
}
"""Fields as "number type name"; a star means repeated."""


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="tests/engines/interop.proto", package=PACKAGE, syntax="proto3")
    file.enum_type.add(name="PayloadType").value.add(name="COMPRESSABLE", number=0)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, kind, field_name in (field.split() for field in fields.split(",") if field):
            plain = kind.rstrip("*")
            field = message.field.add(
                name=field_name,
                number=int(number),
                type=_TYPES.get(plain, FieldDescriptorProto.TYPE_MESSAGE),
                label=FieldDescriptorProto.LABEL_REPEATED if kind != plain else FieldDescriptorProto.LABEL_OPTIONAL,
            )
            if plain in _MESSAGES or plain == "PayloadType":
                field.type_name = f".{PACKAGE}.{plain}"
    return file


_pool = DescriptorPool()
_pool.Add(_file())


def _message(name: str) -> Any:
    return GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


Empty = _message("Empty")
BoolValue = _message("BoolValue")
Payload = _message("Payload")
EchoStatus = _message("EchoStatus")
SimpleRequest = _message("SimpleRequest")
SimpleResponse = _message("SimpleResponse")
StreamingInputCallRequest = _message("StreamingInputCallRequest")
StreamingInputCallResponse = _message("StreamingInputCallResponse")
ResponseParameters = _message("ResponseParameters")
StreamingOutputCallRequest = _message("StreamingOutputCallRequest")
StreamingOutputCallResponse = _message("StreamingOutputCallResponse")
