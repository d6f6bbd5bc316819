"""Seeds that are built rather than recorded: a few inputs of every shape that a target knows, as small as they go."""

from __future__ import annotations

import gzip
import json
import zlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import onnx

from proto import grpc_service_pb2 as pb
from proto import model_config_pb2
from server.frontends.codec import TYPED_FIELDS
from server.frontends.inference_service import SERVICE
from server.tensors import DATATYPES, encode_bytes_elements
from tests import pictures
from tests.fakes import FakeDriver
from tests.fuzz.infer_targets import SERVER
from tests.fuzz.mutators import join_messages
from tests.fuzz.serving import CONFIGS, REGION
from tests.unit.http_peer import request

REPOSITORY = Path(__file__).parents[2] / "model_repository"
_MODELS = [config.name for config in CONFIGS]
_JPEG = pictures.encoded(pictures.photo(40, 30), "JPEG", quality=30)


def _infer(model: str, *tensors: tuple[str, str, list[int], bytes], **more: Any) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model, **more)
    for name, datatype, shape, contents in tensors:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
        message.raw_input_contents.append(contents)
    return message


def _texts(*texts: bytes) -> bytes:
    return encode_bytes_elements(pictures.np.array([*texts, None], object)[:-1])


def _infers() -> dict[str, pb.ModelInferRequest]:
    mixed = [
        (name.lower(), name, [1, 1], _texts(b"t") if name == "BYTES" else bytes(DATATYPES[name].itemsize))
        for name in TYPED_FIELDS
    ]
    typed = pb.ModelInferRequest(model_name="floats", id="typed")
    typed.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([0.5, -1])
    words = pb.ModelInferRequest(model_name="texts")
    words.inputs.add(name="x", datatype="BYTES", shape=[1, 2]).contents.bytes_contents.extend([b"one", b"two"])
    shared = pb.ModelInferRequest(model_name="floats")
    for tensor in (shared.inputs.add(name="x", datatype="FP32", shape=[1, 2]), shared.outputs.add(name="x_out")):
        tensor.parameters["shared_memory_region"].string_param = REGION
        tensor.parameters["shared_memory_byte_size"].int64_param = 8
        tensor.parameters["shared_memory_offset"].int64_param = 4
    sequence = _infer("floats", ("x", "FP32", [1, 1], bytes(4)))
    sequence.parameters["sequence_id"].string_param = "s"
    sequence.parameters["sequence_start"].bool_param = True
    sequence.parameters["timeout"].int64_param = 1000
    sequence.parameters["priority"].uint64_param = 2
    classes = _infer("floats", ("x", "FP32", [1, 3], bytes(12)), id="classes", model_version="1")
    classes.outputs.add(name="x_out").parameters["classification"].int64_param = 2
    return {
        "raw": _infer("floats", ("x", "FP32", [2, 2], bytes(range(16)))),
        "texts": _infer("texts", ("x", "BYTES", [1, 2], _texts(b"one", "größe".encode()))),
        "ints": _infer("ints", ("a", "INT64", [1, 2], bytes(16)), ("b", "UINT8", [3], b"abc")),
        "mixed": _infer("mixed", *mixed),
        "halves": _infer("halves", ("b", "BF16", [2, 1], bytes(4)), ("a", "FP16", [2, 2], bytes(8))),
        "picture": _infer("pictures", ("x", "BYTES", [1, 1], _texts(b"\x89PNG-like"))),
        "pixels": _infer("pictures", ("x", "UINT8", [1, 2, 2, 3], bytes(12))),
        "typed": typed, "words": words, "shared": shared, "sequence": sequence, "classes": classes,
    }  # fmt: skip


def _body(model: str, *tensors: dict[str, Any], binary: bytes | None = None, **more: Any) -> bytes:
    text = json.dumps({"inputs": list(tensors)} | more, separators=(",", ":")).encode()
    return bytes((0, _MODELS.index(model))) + text + (b"" if binary is None else b"\0" + binary)


def _tensor(name: str, datatype: str, shape: list[int], data: object = None, size: int | None = None) -> dict[str, Any]:
    given = {"parameters": {"binary_data_size": size}} if data is None else {"data": data}
    return {"name": name, "datatype": datatype, "shape": shape, **given}


def _rpc(name: str, message: Any) -> bytes:
    names = sorted(each for each in SERVER.methods if not each.endswith("Infer"))
    return bytes((names.index(f"/{SERVICE}/{name}"),)) + message.SerializeToString(deterministic=True)


CONFIG_TEXTS = {
    **{path.parent.name: path.read_text() for path in sorted(REPOSITORY.glob("*/config.pbtxt"))},
    "batching": """max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" }
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 priority_levels: 2
  default_priority_level: 1 default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 9 }
  priority_queue_policy { key: 2 value { max_queue_size: 3 } } }
instance_group { count: 2 kind: KIND_CPU }
version_policy { specific { versions: [ 1, 2 ] } }
parameters { key: "intra_op_thread_count" value { string_value: "2" } }
model_warmup { name: "w" batch_size: 1
  inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 1, 3 ] zero_data: true } } }
""",
    "sequences": """max_batch_size: 2
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
sequence_batching { max_sequence_idle_microseconds: 5 oldest { max_candidate_sequences: 4 }
  control_input { name: "START" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } }
  control_input { name: "ID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
  state { input_name: "si" output_name: "so" data_type: TYPE_FP32 dims: [ 2 ]
    initial_state { name: "i" data_type: TYPE_FP32 dims: [ 2 ] data_file: "s" } } }
""",
    "pictures": """max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 28, 28 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 10 ] reshape { shape: [ 10, 1 ] } }
parameters { key: "image.resize" value { string_value: "32" } }
parameters { key: "image.center_crop" value { string_value: "28" } }
parameters { key: "image.mean" value { string_value: "0.5,1/2,5e-1" } }
""",
    "ensemble": """platform: "ensemble" max_batch_size: 4
input { name: "a" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "b" data_type: TYPE_FP32 dims: [ 1 ] }
ensemble_scheduling { step { model_name: "one" model_version: -1
  input_map { key: "x" value: "a" } output_map { key: "y" value: "b" } } }
""",
}


def _configs() -> dict[str, model_config_pb2.ModelConfig]:
    from google.protobuf import text_format

    configs = {name: text_format.Parse(text, model_config_pb2.ModelConfig()) for name, text in CONFIG_TEXTS.items()}
    for name, config in configs.items():
        if name in {path.name for path in REPOSITORY.iterdir()}:
            config.ClearField("name")
    return configs


def _json_config(config: model_config_pb2.ModelConfig) -> bytes:
    from google.protobuf import json_format

    return json_format.MessageToJson(config, indent=None, sort_keys=True).encode()


def _onnx() -> dict[str, bytes]:
    helper = onnx.helper
    stored = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    stored.external_data.add(key="location", value="model.onnx")
    stored.external_data.add(key="length", value="4")
    info = [helper.make_tensor_value_info(name, 1, ["N"]) for name in ("x", "y")]
    plain = helper.make_tensor("w", 1, [1], [0.5])
    constant = helper.make_node("Constant", [], ["c"], value=stored)
    inner = helper.make_graph([constant], "inner", [], [])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    sparse = onnx.SparseTensorProto(dims=[4])
    sparse.values.CopyFrom(stored)
    sparse.indices.CopyFrom(plain)
    add = helper.make_node("Add", ["x", "w"], ["y"])
    functions = [helper.make_function("d", "f", ["x"], ["c"], [constant], [helper.make_opsetid("", 17)])]
    graphs = {
        "plain": helper.make_graph([add], "g", info[:1], info[1:], [plain]),
        "external": helper.make_graph([add], "g", info[:1], info[1:], [stored]),
        "branches": helper.make_graph([branch], "g", info[:1], info[1:]),
        "sparse": helper.make_graph([add], "g", info[:1], info[1:], sparse_initializer=[sparse]),
    }
    models = {name: helper.make_model(graph, functions=functions) for name, graph in graphs.items()}
    models["metadata"] = helper.make_model(graphs["plain"], producer_name="p", doc_string="d")
    helper.set_model_props(models["metadata"], {"location": "../outside"})
    return {name: model.SerializeToString() for name, model in models.items()}


def _pictures() -> dict[str, bytes]:
    photo, encoded = pictures.photo, pictures.encoded
    exif = photo(24, 16).getexif()
    exif[0x0112] = 6
    return {
        "rgb.png": encoded(photo(12, 10)),
        "grey.png": encoded(photo(12, 10, "L")),
        "palette.png": encoded(photo(12, 10).quantize(8)),
        "alpha.png": encoded(photo(9, 9, "RGBA")),
        "deep.png": encoded(pictures.Image.new("I;16", (8, 8), 40000)),
        "bits.png": encoded(pictures.Image.new("1", (9, 9), 1)),
        "baseline.jpg": _JPEG,
        "progressive.jpg": encoded(photo(40, 30), "JPEG", quality=20, progressive=True),
        "grey.jpg": encoded(photo(16, 16, "L"), "JPEG", quality=20),
        "cmyk.jpg": encoded(photo(16, 16, "CMYK"), "JPEG", quality=20),
        "turned.jpg": encoded(photo(24, 16), "JPEG", quality=20, exif=exif),
        "thin.png": encoded(photo(300, 1, "L")),
    }


def _chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"POST /now HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n" + trailer + b"\r\n"


def _http1() -> dict[str, bytes]:
    return {
        "get": request("GET", "/now"),
        "post": request("POST", "/now", b"a body"),
        "pipelined": request("POST", "/later", b"1") + request("POST", "/now", b"22") + request("GET", "/now"),
        "chunked": _chunked(b"one", b"twotwo") + request("GET", "/now"),
        "trailers": _chunked(b"x" * 20, trailer=b"Checksum: 1\r\n"),
        "extension": _chunked(b"x").replace(b"1\r\n", b"1;a=b\r\n", 1),
        "expect": request("POST", "/now", b"late", Expect="100-continue"),
        "close": request("GET", "/now", Connection="close") + request("GET", "/now"),
        "old": b"GET /now HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /now HTTP/1.0\r\n\r\n",
        "head": request("HEAD", "/now") + request("PUT", "/a%2Fb/now", b"p"),
        "absolute": request("GET", "http://h/now?q=1"),
        "both": b"POST /now HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "large": request("POST", "/now", b"x" * 2001),
        "lines": b"\r\n\r\n" + request("GET", "/now"),
        "upgrade": request("GET", "/now", Connection="upgrade", Upgrade="h2c") + request("GET", "/now"),
    }


def _routes() -> dict[str, bytes]:
    def route(line: str, body: object = None, header: str = "") -> bytes:
        said = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return f"{line}\n{header}\n".encode() + said

    floats = {"inputs": [_tensor("x", "FP32", [1, 2], [0.5, 1])]}
    config = _json_config(_configs()["batching"]).decode()
    register = {"key": "/k", "offset": 0, "byte_size": 8}
    handle = {"raw_handle": {"b64": b64encode(FakeDriver.HANDLE).decode()}, "device_id": 0, "byte_size": 8}
    return {
        "infer": route("POST v2/models/floats/infer", floats),
        "raw": route("POST v2/models/floats/versions/1/infer", bytes(8), "Inference-Header-Content-Length: 0"),
        "compressed": route(
            "POST v2/models/floats/infer", gzip.compress(json.dumps(floats).encode(), mtime=0), "Content-Encoding: gzip"
        ),
        "generate": route("POST v2/models/floats/generate", {"x": [1, 2], "id": "i"}),
        "stream": route("POST v2/models/texts/generate_stream", {"x": ["a", "b"]}),
        "metadata": route("GET v2/models/floats"),
        "load": route(
            "POST v2/repository/models/m/load",
            {"parameters": {"config": config, "file:1/model.onnx": b64encode(b"abc").decode()}},
        ),
        "unload": route("POST v2/repository/models/m/unload", {"parameters": {"unload_dependents": True}}),
        "index": route("POST v2/repository/index", {"ready": True}),
        "system": route("POST v2/systemsharedmemory/region/r/register", register),
        "cuda": route("POST v2/cudasharedmemory/region/q/register", handle),
        "unregister": route("POST v2/cudasharedmemory/unregister"),
        "status": route("GET v2/cudasharedmemory/region/r/status"),
        "trace": route("POST v2/models/floats/trace/setting", {"trace_level": ["OFF"], "trace_rate": "1"}),
        "logging": route("POST v2/logging", {"log_info": False, "log_verbose_level": 1, "log_format": "default"}),
        "ready": route("HEAD v2/models/texts/versions/1/ready"),
    }


def _words() -> dict[str, bytes]:
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    return {
        "trace": parent + b"\nvendor=1,other@b=x y",
        "pattern": b"^X-(Tenant|User)[0-9]+$\nx-tenant7",
        "restricted": b"inference,health:admin-key=s3cret value\ns3cret value",
        "url": b"s3\ns3://user:pass@bucket/path?X-Signature=abc and https://h/?q",
        "flags": b"mode=opentelemetry\nopentelemetry,url=http://h/\nrate=10\nlevel=TIMESTAMPS\ntriton,file=/t",
        "key": b"/psm_1234",
        "bearer": b"Bearer eyJhbGciOiJub25lIiwia2lkIjoiMSJ9.eyJpc3MiOiJpIiwiZXhwIjoxfQ.\nfraud-1",
        "policy": b'[[principals]]\nname = "a"\ncertificates = ["CN:a"]\nlimits = { requests_per_second = 1.5 }\n'
        b'allow = [{ apis = ["trace:read"], models = ["m*"] }]\n',
    }


def _rpcs() -> dict[str, bytes]:
    value = pb.ModelRepositoryParameter
    config = _json_config(_configs()["pictures"]).decode()
    load = {"config": value(string_param=config), "file:1/model.onnx": value(bytes_param=b"abc")}
    log_value = pb.LogSettingsRequest.SettingValue
    trace_value = pb.TraceSettingRequest.SettingValue
    return {
        "load": _rpc("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="m", parameters=load)),
        "unload": _rpc("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="m")),
        "system": _rpc(
            "SystemSharedMemoryRegister", pb.SystemSharedMemoryRegisterRequest(name="s", key="/k", byte_size=8)
        ),
        "cuda": _rpc(
            "CudaSharedMemoryRegister",
            pb.CudaSharedMemoryRegisterRequest(name="q", raw_handle=FakeDriver.HANDLE, device_id=0, byte_size=100),
        ),
        "status": _rpc("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest(name=REGION)),
        "trace": _rpc(
            "TraceSetting",
            pb.TraceSettingRequest(model_name="floats", settings={"trace_rate": trace_value(value=["7"])}),
        ),
        "log": _rpc(
            "LogSettings", pb.LogSettingsRequest(settings={"log_verbose_level": log_value(uint32_param=1)})
        ),
        "metadata": _rpc("ModelMetadata", pb.ModelMetadataRequest(name="floats", version="1")),
    }  # fmt: skip


def build() -> dict[str, dict[str, bytes]]:
    """Folder → name → seed."""
    infers = {name: message.SerializeToString(deterministic=True) for name, message in _infers().items()}
    configs = _configs()
    codes = {name: bytes((index, 0)) for index, name in enumerate(DATATYPES)}
    return {
        "infer": infers,
        "stream": {
            "three": b"\0" + join_messages([(b"\0", infers[name]) for name in ("raw", "typed", "classes")]),
            "wrong": b"\0" + join_messages([(b"\0", infers["raw"][:20]), (b"\0", infers["shared"])]),
            "ended": b"\3" + join_messages([(b"\0", infers["texts"]), (b"\0", b"\xff"), (b"\0", infers["raw"])]),
        },
        "http_body": {
            "json": _body("floats", _tensor("x", "FP32", [1, 2], [[0.5, 1e-3]]), id="i"),
            "binary": _body("floats", _tensor("x", "FP32", [1, 2], size=8), binary=b"abcdefgh"),
            "texts": _body("texts", _tensor("x", "BYTES", [1, 2], ["a", "größe"])),
            "two": _body(
                "ints", _tensor("b", "UINT8", [3], size=3), _tensor("a", "INT64", [1, 2], [1, -1]), binary=b"xyz"
            ),
            "outputs": _body(
                "floats", _tensor("x", "FP32", [1, 1], [1]), parameters={"timeout": 5, "binary_data_output": True},
                outputs=[{"name": "x_out", "parameters": {"classification": 1, "binary_data": False}}],
            ),
            "shared": _body(
                "floats", {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters":
                           {"shared_memory_region": REGION, "shared_memory_byte_size": 8}},
            ),
        },
        "json_tensor": {
            "floats": codes["FP32"] + b"[[0.1, -3.4e38], [1e-45, 16777217]]",
            "doubles": codes["FP64"] + b"[1e308, 5e-324, 18446744073709551616]",
            "words": codes["FP64"][:1] + b"\1[NaN, -Infinity, 1.5]",
            "mark": codes["BYTES"][:1] + b"\1\xef\xbb\xbf[]",
            "longs": codes["INT64"] + b"[-9223372036854775808, 9223372036854775807]",
            "bytes": codes["UINT8"] + b"[[[0],[255]]]",
            "unsigned": codes["UINT64"] + b"[18446744073709551615]",
            "flags": codes["BOOL"] + b"[true, false]",
            "texts": codes["BYTES"] + b'["a", "gr\\u00f6\\u00dfe", "\\ud83d\\ude00"]',
            "deep": codes["INT8"] + b"[" * 60 + b"1" + b"]" * 60,
        },
        "generate": {
            "floats": b'\0{"x": [1, 2.5, 3], "id": "i", "parameters": {"timeout": 3}}',
            "texts": b'\1{"x": ["a", "b"], "temperature": 0.5}',
            "ints": b'\2{"a": [1, 2, 3, 4], "b": [1, 2, 3]}',
        },
        "http1": _http1(),
        "routes": _routes(),
        "codings": {"gzip": gzip.compress(b"m" * 900, mtime=0), "deflate": zlib.compress(bytes(range(256)))},
        "config_text": {name: text.encode() for name, text in CONFIG_TEXTS.items()},
        "config": {name: config.SerializeToString(deterministic=True) for name, config in configs.items()},
        "config_json": {name: _json_config(config) for name, config in configs.items()},
        "onnx": _onnx(),
        "labels": {"digits": b"labels.txt\nzero\none\n", "windows": b"1/../labels.txt\n\xef\xbb\xbfa\r\nb \r\n"},
        "load": {
            "files": join_messages([(b"\0", part) for part in (b"m", b"1/model.onnx", b"labels.txt", b"1/a/b/c")]),
            "outside": join_messages([(b"\0", part) for part in (b"m", b"../x", b"/etc/passwd", b"1/./m", b"a\\b")]),
        },
        "pictures": _pictures(),
        "words": _words(),
        "rpcs": _rpcs(),
    }  # fmt: skip
