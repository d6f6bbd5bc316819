"""A client of the protocol without generated stubs: any bytes to any method, many calls in flight, numpy in and out.

`tritonclient` shows that its users are served; this one shows what the wire carries, right or wrong.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import deserialize_bytes_tensor, np_to_triton_dtype, serialize_byte_tensor, triton_to_np_dtype

from proto import grpc_service_pb2 as pb
from tests.real.waiting import wait_until

SERVICE = "/inference.GRPCInferenceService"
CALL_SECONDS = 30
"""The deadline of calls that are expected to be answered."""

WAIT_SECONDS = 10
"""How long something that must happen at once may take on a busy machine."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Refusal:
    """How a call failed."""

    status: grpc.StatusCode
    message: str


class Client:
    """Calls over one channel, which its owner closes."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def start(self, method: str, request: Message | bytes, timeout: float = CALL_SECONDS) -> grpc.Future:
        """Begin a unary call of the inference service and return at once."""
        message = request if isinstance(request, bytes) else request.SerializeToString()
        return self.channel.unary_unary(f"{SERVICE}/{method}").future(message, timeout=timeout)

    def call(self, method: str, request: Message, timeout: float = CALL_SECONDS) -> Any:
        """A unary call's answer. Raises `grpc.RpcError`."""
        # Not by `start`: after thousands of futures, `close` of their channel was seen to wait for ever.
        answer = self.channel.unary_unary(f"{SERVICE}/{method}")(request.SerializeToString(), timeout=timeout)
        return getattr(pb, f"{method}Response").FromString(answer)

    def infer(self, model: str, inputs: Mapping[str, Array], **fields: Any) -> dict[str, Array]:
        """Outputs by name. Raises `grpc.RpcError`."""
        return arrays(self.call("ModelInfer", infer_request(model, inputs, **fields)))

    def start_infer(
        self, model: str, inputs: Mapping[str, Array], timeout: float = CALL_SECONDS, **fields: Any
    ) -> grpc.Future:
        """Begin an inference and return at once; `answer_of` reads what becomes of it."""
        return self.start("ModelInfer", infer_request(model, inputs, **fields), timeout)

    def refusal(self, method: str, request: Message | bytes, timeout: float = CALL_SECONDS) -> Refusal:
        """How a call that must fail fails."""
        return refusal_of(self.start(method, request, timeout))

    def statistics(self, model: str) -> pb.ModelStatistics:
        """What the server has counted for a model with one version."""
        (statistics,) = self.call("ModelStatistics", pb.ModelStatisticsRequest(name=model)).model_stats
        return statistics

    def batches(self, model: str) -> dict[int, int]:
        """How many batches of each size a model has run."""
        return {batch.batch_size: batch.compute_infer.count for batch in self.statistics(model).batch_stats}


def answer_of(call: grpc.Future) -> dict[str, Array]:
    """The outputs of an inference that `start_infer` began. Raises `grpc.RpcError`."""
    return arrays(pb.ModelInferResponse.FromString(call.result()))


def refusal_of(call: grpc.Future) -> Refusal:
    """How a call that must fail failed."""
    error = call.exception()
    assert error is not None, "the call was answered"
    return Refusal(error.code(), error.details())


def infer_request(model: str, inputs: Mapping[str, Array], **fields: Any) -> pb.ModelInferRequest:
    """A request with raw contents; `fields` are further fields of the message, `parameters` included."""
    request = pb.ModelInferRequest(model_name=model, **fields)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
        request.raw_input_contents.append(raw(array))
    return request


def raw(array: Array) -> bytes:
    """An array as the wire has it."""
    if array.dtype == np.object_:
        serialized = serialize_byte_tensor(array)
        return serialized.item() if serialized.size else b""
    return array.tobytes()


def arrays(response: pb.ModelInferResponse) -> dict[str, Array]:
    """The outputs of an answer by name."""
    assert len(response.outputs) == len(response.raw_output_contents), "one raw content for each output"
    return {
        tensor.name: _array(tensor.datatype, tensor.shape, content)
        for tensor, content in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def _array(datatype: str, shape: Iterable[int], content: bytes) -> Array:
    if datatype == "BYTES":
        return deserialize_bytes_tensor(content).reshape(tuple(shape))
    return np.frombuffer(content, triton_to_np_dtype(datatype)).reshape(tuple(shape))


def http_status(url: str, method: str = "GET") -> int:
    """The status that a URL answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=CALL_SECONDS) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def read_url(url: str) -> str:
    """The body of a page."""
    with urllib.request.urlopen(url, timeout=CALL_SECONDS) as response:
        return response.read().decode()


def metric(url: str, name: str, **labels: str) -> float:
    """The sum of the samples of this name that have these labels."""
    lines = (line for line in read_url(url).splitlines() if re.match(rf"{name}[ {{]", line))
    samples = [s for family in text_string_to_metric_families("\n".join(lines)) for s in family.samples]
    assert samples, f"there is no metric '{name}'"
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def wait_for_pending(metrics_url: str, model: str, count: int) -> None:
    """Return once this many requests wait for a batch of this model."""
    wait_until(lambda: metric(metrics_url, "nv_inference_pending_request_count", model=model) == count, WAIT_SECONDS)


def wait_for_running(metrics_url: str, model: str, count: int) -> None:
    """Return once this many requests are in batches of this model that run, and none waits."""

    def running() -> bool:
        in_flight = metric(metrics_url, "nv_inference_in_flight_request_count", model=model)
        return in_flight == count and metric(metrics_url, "nv_inference_pending_request_count", model=model) == 0

    wait_until(running, WAIT_SECONDS)
