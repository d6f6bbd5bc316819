"""What load tests send over HTTP says what they send over gRPC."""

from __future__ import annotations

from math import inf

import numpy as np

from loadtest.http_v2 import encode_json_request, encode_request
from proto import grpc_service_pb2 as pb
from server.frontends import codec
from server.frontends.rest import infer_codec
from server.frontends.rest.json_tensors import NonFinite
from tests.real.clients import infer_request

MESSAGE = infer_request(
    "m", {"a": np.array([[0.1, -2.5]], np.float32), "b": np.array([[2**62, -1]], np.int64)}
).SerializeToString()


def test_a_request_is_the_same_in_all_three_forms() -> None:
    over_grpc = codec.decode_infer_request(MESSAGE, inf)
    request = pb.ModelInferRequest.FromString(MESSAGE)
    for headers, body in (encode_request(request), encode_json_request(request)):
        length = headers.get("Inference-Header-Content-Length")
        view = memoryview(body)
        decoded, wanted = infer_codec.decode("m", "", view, int(length) if length else None, inf, NonFinite.REFUSE)
        assert decoded.specs == over_grpc.specs
        assert list(map(bytes, decoded.buffers)) == list(map(bytes, over_grpc.buffers))
        assert wanted.by_default is (length is not None)
