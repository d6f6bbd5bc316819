"""Words that random bytes would take long to find, for libFuzzer to put into inputs."""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor

from proto import model_config_pb2
from server.models.config_fields import KNOWN_PARAMETERS
from server.tensors import DATATYPES
from tests.fuzz.serving import CONFIGS

LARGE = (
    b"2147483648",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
)
_DATATYPES = tuple(name.encode() for name in DATATYPES)

WIRE = (
    b"grpc-timeout=",
    b"grpc-encoding=gzip",
    b"content-type=application/grpc",
    b"te=trailers",
    b"-bin=",
    b"99999999H",
)
INFER = (
    *_DATATYPES, *(config.name.encode() for config in CONFIGS),
    b"shared_memory_region", b"shared_memory_offset", b"shared_memory_byte_size", b"classification", b"timeout",
    b"priority", b"sequence_id", b"sequence_start", b"triton_enable_empty_final_response", b"x_out",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80\x80\x80\x80\x10", b"\x3a\x00", b"\x1a\x00",
)  # fmt: skip
JSON = (
    *(b'"%b"' % word for word in (*_DATATYPES, b"name", b"datatype", b"shape", b"data", b"inputs", b"outputs",
      b"parameters", b"id", b"binary_data_size", b"binary_data_output", b"binary_data", b"classification", b"timeout",
      b"priority", b"sequence_id", b"shared_memory_region", b"shared_memory_byte_size")),
    *LARGE, b"1e5", b"1E-400", b"1e400", b"-0.0", b"NaN", b"Infinity", b"-Infinity", b"null", b"true", b"false", b"[[",
    b"]]", b'"\\ud800"', b'"\\u0000"', b"\xef\xbb\xbf",
)  # fmt: skip
HTTP = (
    b"\r\n\r\n", b"\r\nContent-Length: ", b"\r\nTransfer-Encoding: chunked", b"\r\nExpect: 100-continue",
    b"\r\nConnection: close", b"\r\nConnection: keep-alive", b"\r\nConnection: upgrade", b"\r\nUpgrade: h2c",
    b"HTTP/1.1", b"HTTP/1.0", b"Host: h", b"GET /now ", b"POST /later ", b"HEAD ", b"CONNECT ", b"0\r\n\r\n",
    b";x=y\r\n", b"Content-Encoding: gzip", b"Accept-Encoding: gzip;q=0", b"Inference-Header-Content-Length: ", b"%2F",
    b"%00", b"%ff",
    b"v2/models/", b"/versions/1", b"/infer", b"/generate", b"/load", b"v2/systemsharedmemory/region/r/register",
    b"v2/cudasharedmemory/region/r/register", b"raw_handle", b"b64", b"byte_size", b"device_id", b"trace_level",
)  # fmt: skip
ONNX = (b"location", b"offset", b"model.data", b"../outside", b"/etc/passwd", b"\x6a\x0a\x0a\x08location")
WORDS = (b"traceparent", b"00-", b"-01", b"inference", b"health,", b":key=value", b"://", b"@", b"?", b"opentelemetry,",
         b"triton,file=", b"rate=", b"level=", b"(?i)", b"\\d+", b"[a-z]*")  # fmt: skip


def _names(message: Descriptor) -> set[str]:
    """Of all fields and enumerators that a message may have."""
    found: set[str] = set()
    pending, seen = [message], set()
    while pending:
        current = pending.pop()
        if current.full_name in seen:
            continue
        seen.add(current.full_name)
        for field in current.fields:
            found.add(field.name)
            if field.message_type is not None:
                pending.append(field.message_type)
            if field.enum_type is not None:
                found.update(field.enum_type.values_by_name)
    return found


_CONFIG_NAMES = _names(model_config_pb2.ModelConfig.DESCRIPTOR).union(KNOWN_PARAMETERS)
CONFIG = (
    *(name.encode() for name in sorted(_CONFIG_NAMES)), *LARGE, b"{ }", b": [", b"-1", b"\\000", b"\\377", b"../",
    b"nan", b"inf", b"1e400", b"labels.txt",
)  # fmt: skip
