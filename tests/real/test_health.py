"""Health over gRPC and HTTP, and reflection: what load balancers, Kubernetes and grpcurl ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.real.clients import Client, http_status

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def health(client: Client) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(client.channel)


def asked(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "add_sub"])
def test_the_server_its_service_and_each_model_are_serving(service: str, health: health_pb2_grpc.HealthStub) -> None:
    assert health.Check(asked(service), timeout=10).status == SERVING


def test_an_unknown_service_is_not_found(health: health_pb2_grpc.HealthStub) -> None:
    with pytest.raises(grpc.RpcError, match="no service or model 'nowhere'") as caught:
        health.Check(asked("nowhere"), timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(("service", "status"), [("", SERVING), ("add_sub", SERVING), ("nowhere", SERVICE_UNKNOWN)])
def test_a_watch_tells_the_state_at_once_and_stays(
    service: str, status: int, health: health_pb2_grpc.HealthStub
) -> None:
    watch = health.Watch(asked(service), timeout=30)

    assert next(watch).status == status
    assert watch.is_active()
    watch.cancel()


def test_a_broken_health_request_is_refused(client: Client) -> None:
    for path, begin in (
        ("/grpc.health.v1.Health/Check", client.channel.unary_unary),
        ("/grpc.health.v1.Health/Watch", client.channel.unary_stream),
    ):
        call = begin(path)(b"\xff\xff", timeout=10) if "Watch" in path else begin(path).future(b"\xff\xff", timeout=10)
        error = call.exception()
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "HealthCheckRequest" in error.details()


def test_reflection_lists_the_services(client: Client) -> None:
    services = ProtoReflectionDescriptorDatabase(client.channel).get_services()

    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(services)


def test_reflection_describes_every_method(client: Client) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(client.channel))

    assert pool.FindMessageTypeByName("inference.ModelInferRequest").fields_by_name["raw_input_contents"].number == 7
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    assert len(service.methods) == 20
    assert pool.FindServiceByName("grpc.health.v1.Health").methods_by_name["Watch"].server_streaming


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v2/health/live", "GET", 200),
        ("/v2/health/ready", "GET", 200),
        ("/v2/health/ready", "HEAD", 200),
        ("/v2/health/ready", "POST", 405),
        ("/v2/health/live", "DELETE", 405),
        ("/v2/health/unheard_of", "GET", 404),
        ("/v2/models/add_sub/ready", "GET", 200),
        ("/v2/models/add_sub/versions/1/ready", "GET", 200),
        ("/v2/models/add_sub/versions/7/ready", "GET", 404),
        ("/v2/models/add_sub/versions/one/ready", "GET", 400),
        ("/v2/models/nobody/ready", "GET", 404),
        ("/nothing", "GET", 404),
    ],
)
def test_health_over_http(path: str, method: str, status: int, zoo: RunningServer) -> None:
    assert http_status(f"{zoo.http_url}{path}", method) == status
