"""protobuf messages as JSON in Triton's form: names as in the .proto, enums by name, 64-bit integers as numbers.

`google.protobuf.json_format` writes 64-bit integers as strings, and clients of Triton do arithmetic with them.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def as_json(message: Message) -> dict[str, Any]:
    """All fields, those without a value too, but for messages that are not there and choices that were not taken."""
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if _is_map(field):
            values = field.message_type.fields_by_name["value"]
            fields[field.name] = {str(key): _value(values, value[key]) for key in sorted(value)}
        elif field.is_repeated:
            fields[field.name] = [_value(field, element) for element in value]
        else:
            fields[field.name] = _value(field, value)
    return fields


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return as_json(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return b64encode(value).decode() if isinstance(value, bytes) else value
