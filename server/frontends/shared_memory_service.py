"""The RPCs by which callers register memory: `SystemSharedMemory…` and `CudaSharedMemory…`, as Triton has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from proto import grpc_service_pb2 as pb
from server.engine import SHARED_MEMORY_OFF
from server.errors import Unsupported
from server.frontends.calls import Method
from server.frontends.inference_service import SERVICE, answering
from server.shared_memory.cuda import CudaRegion
from server.shared_memory.posix import PosixRegion
from server.shared_memory.regions import Regions

Q = TypeVar("Q", bound=Message)


class SharedMemoryService:
    """Handlers of the two shared memory extensions."""

    def __init__(self, regions: Regions | None) -> None:
        """`regions` None: callers may not have any."""
        self._regions = regions

    def methods(self) -> dict[str, Method]:
        """The method table, by full path."""
        table = {
            "SystemSharedMemoryStatus": answering(pb.SystemSharedMemoryStatusRequest, self._if_allowed(_system_status)),
            "SystemSharedMemoryRegister": answering(
                pb.SystemSharedMemoryRegisterRequest, self._if_allowed(_system_register)
            ),
            "SystemSharedMemoryUnregister": answering(
                pb.SystemSharedMemoryUnregisterRequest, self._if_allowed(_system_unregister)
            ),
            "CudaSharedMemoryStatus": answering(pb.CudaSharedMemoryStatusRequest, self._if_allowed(_cuda_status)),
            "CudaSharedMemoryRegister": answering(pb.CudaSharedMemoryRegisterRequest, self._if_allowed(_cuda_register)),
            "CudaSharedMemoryUnregister": answering(
                pb.CudaSharedMemoryUnregisterRequest, self._if_allowed(_cuda_unregister)
            ),
        }
        return {f"/{SERVICE}/{name}": method for name, method in table.items()}

    def _if_allowed(self, handler: Callable[[Regions, Q], Message]) -> Callable[[Q], Message]:
        def handle(request: Q) -> Message:
            if self._regions is None:
                raise Unsupported(SHARED_MEMORY_OFF)
            return handler(self._regions, request)

        return handle


def _system_status(regions: Regions, request: pb.SystemSharedMemoryStatusRequest) -> Message:
    status = pb.SystemSharedMemoryStatusResponse.RegionStatus
    return pb.SystemSharedMemoryStatusResponse(
        regions={
            name: status(name=name, key=region.key, offset=region.offset, byte_size=region.byte_size)
            for name, region in regions.listed(PosixRegion, request.name).items()
        }
    )


def _system_register(regions: Regions, request: pb.SystemSharedMemoryRegisterRequest) -> Message:
    regions.register_system(request.name, request.key, request.offset, request.byte_size)
    return pb.SystemSharedMemoryRegisterResponse()


def _system_unregister(regions: Regions, request: pb.SystemSharedMemoryUnregisterRequest) -> Message:
    regions.unregister(PosixRegion, request.name)
    return pb.SystemSharedMemoryUnregisterResponse()


def _cuda_status(regions: Regions, request: pb.CudaSharedMemoryStatusRequest) -> Message:
    status = pb.CudaSharedMemoryStatusResponse.RegionStatus
    return pb.CudaSharedMemoryStatusResponse(
        regions={
            name: status(name=name, device_id=region.device, byte_size=region.byte_size)
            for name, region in regions.listed(CudaRegion, request.name).items()
        }
    )


def _cuda_register(regions: Regions, request: pb.CudaSharedMemoryRegisterRequest) -> Message:
    regions.register_cuda(request.name, request.raw_handle, request.device_id, request.byte_size)
    return pb.CudaSharedMemoryRegisterResponse()


def _cuda_unregister(regions: Regions, request: pb.CudaSharedMemoryUnregisterRequest) -> Message:
    regions.unregister(CudaRegion, request.name)
    return pb.CudaSharedMemoryUnregisterResponse()
