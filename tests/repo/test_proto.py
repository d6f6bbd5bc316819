"""The wire equals what clients already speak, and the generated code equals its sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc_health.v1.health_pb2 as their_health
import pytest
import tritonclient.grpc.model_config_pb2 as their_config
import tritonclient.grpc.service_pb2 as their_service
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from proto import generate, grpc_service_pb2, model_config_pb2
from proto.grpc_health.v1 import health_pb2

ROOT = Path(__file__).parents[2]
RPCS = [
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelStreamInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
]
STREAMING = {"ModelStreamInfer"}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(grpc_service_pb2, their_service), (model_config_pb2, their_config), (health_pb2, their_health)],
    ids=["grpc_service.proto", "model_config.proto", "health.proto"],
)
def test_descriptor_equals_the_clients_byte_for_byte(ours: object, theirs: object) -> None:
    # The messages first: on a difference, pytest shows where.
    our_bytes, their_bytes = ours.DESCRIPTOR.serialized_pb, theirs.DESCRIPTOR.serialized_pb  # type: ignore[attr-defined]
    assert FileDescriptorProto.FromString(our_bytes) == FileDescriptorProto.FromString(their_bytes)
    assert our_bytes == their_bytes


@pytest.mark.parametrize(
    "modules",
    [
        ("proto.grpc_service_pb2", "proto.grpc_health.v1.health_pb2", "tritonclient.grpc", "grpc_health.v1.health_pb2"),
        ("tritonclient.grpc", "grpc_health.v1.health_pb2", "proto.grpc_service_pb2", "proto.grpc_health.v1.health_pb2"),
    ],
    ids=["ours first", "theirs first"],
)
def test_server_and_client_share_a_process(modules: tuple[str, ...]) -> None:
    code = "".join(f"import {module}\n" for module in modules)
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_service_has_every_rpc_in_order_with_its_streaming_kind() -> None:
    service = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert service.full_name == "inference.GRPCInferenceService"
    kinds = [(method.name, method.client_streaming, method.server_streaming) for method in service.methods]
    assert kinds == [(name, name in STREAMING, name in STREAMING) for name in RPCS]


def test_generated_code_is_up_to_date() -> None:
    assert generate.stale_files() == [], "run: make proto"


def test_stale_and_missing_files_are_named(tmp_path: Path) -> None:
    generate.generate(tmp_path)
    (tmp_path / "model_config_pb2.py").write_text("# edited by hand\n")
    (tmp_path / "grpc_service_pb2.pyi").unlink()
    assert generate.stale_files(tmp_path) == [Path("model_config_pb2.py"), Path("grpc_service_pb2.pyi")]
