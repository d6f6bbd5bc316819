"""Device memory that other processes export (CUDA driver API, "CUDA interprocess communication").

By the driver, not the runtime library: it is there wherever a GPU can be used, in one version.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Protocol

import numpy as np

from server.errors import InvalidRequest, SharedMemoryFailed
from server.tensors import Buffer

HANDLE_BYTES = 64  # CU_IPC_HANDLE_SIZE
_LAZY_PEER_ACCESS = 1  # CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS


class Driver(Protocol):
    """What is needed of a GPU's driver. Each method raises `SharedMemoryFailed`."""

    devices: int
    """How many there are."""

    def open(self, device: int, handle: bytes) -> tuple[int, int]:
        """Map exported memory. Returns its address, and how many bytes there are from there on."""
        ...

    def close(self, device: int, address: int) -> None:
        """Take back one `open`."""
        ...

    def read(self, device: int, address: int, target: memoryview) -> None:
        """Device → host, done when it returns."""
        ...

    def write(self, device: int, address: int, data: Buffer) -> None:
        """Host → device, done when it returns."""
        ...


class CudaRegion:
    """Exported device memory, mapped until nobody has this any more."""

    def __init__(self, driver: Driver, handle: bytes, device: int, byte_size: int) -> None:
        """`handle`: a cudaIpcMemHandle_t. Raises `InvalidRequest` and `SharedMemoryFailed`."""
        if len(handle) != HANDLE_BYTES:
            raise InvalidRequest(f"a CUDA memory handle has {HANDLE_BYTES} bytes, got {len(handle)}")
        if not 0 <= device < driver.devices:
            raise InvalidRequest(f"there is no GPU {device}: this server has {driver.devices}")
        self.device = device
        self.byte_size = byte_size
        self._driver = driver
        self._address, available = driver.open(device, handle)
        if byte_size > available:
            raise InvalidRequest(f"byte_size {byte_size} exceeds the {available} bytes of the exported memory")

    def __del__(self) -> None:
        if hasattr(self, "_address"):
            with suppress(SharedMemoryFailed):  # the device itself is gone: nothing is left to be given back
                self._driver.close(self.device, self._address)

    def read_into(self, offset: int, target: memoryview) -> None:
        """See `Region.read_into`."""
        self._driver.read(self.device, self._address + offset, target)

    def write(self, offset: int, data: Buffer) -> None:
        """See `Region.write`."""
        self._driver.write(self.device, self._address + offset, data)


class _IpcHandle(ctypes.Structure):
    _fields_ = (("reserved", ctypes.c_char * HANDLE_BYTES),)


class CudaDriver:
    """libcuda. Implements `Driver`, on any thread."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises `SharedMemoryFailed` where it cannot be used, as without a device."""
        self._library = library
        for name, arguments in _FUNCTIONS.items():
            getattr(library, name).argtypes = arguments
        self._call("cuInit", 0)
        count = c_int()
        self._call("cuDeviceGetCount", byref(count))
        self.devices = count.value
        self._contexts: dict[int, c_void_p] = {}

    def open(self, device: int, handle: bytes) -> tuple[int, int]:
        """See `Driver.open`."""
        address, base, size = c_uint64(), c_uint64(), c_size_t()
        # Not `from_buffer_copy` of a string type: a handle has zeros within.
        exported = _IpcHandle.from_buffer_copy(handle)
        with self._current(device):
            self._call("cuIpcOpenMemHandle_v2", byref(address), exported, _LAZY_PEER_ACCESS)
            try:
                self._call("cuMemGetAddressRange_v2", byref(base), byref(size), address)
            except SharedMemoryFailed:
                self._call("cuIpcCloseMemHandle", address)
                raise
        return address.value, base.value + size.value - address.value

    def close(self, device: int, address: int) -> None:
        """See `Driver.close`."""
        with self._current(device):
            self._call("cuIpcCloseMemHandle", address)

    def read(self, device: int, address: int, target: memoryview) -> None:
        """See `Driver.read`."""
        if len(target):
            host = np.frombuffer(target, np.uint8)
            with self._current(device):
                self._call("cuMemcpyDtoH_v2", host.ctypes.data, address, len(host))

    def write(self, device: int, address: int, data: Buffer) -> None:
        """See `Driver.write`."""
        if len(data):
            host = np.frombuffer(data, np.uint8)
            with self._current(device):
                self._call("cuMemcpyHtoD_v2", address, host.ctypes.data, len(host))

    @contextmanager
    def _current(self, device: int) -> Iterator[None]:
        """The device's primary context, which ONNX Runtime uses too, for the calling thread."""
        if device not in self._contexts:
            context, number = c_void_p(), c_int()
            self._call("cuDeviceGet", byref(number), device)
            self._call("cuDevicePrimaryCtxRetain", byref(context), number)
            self._contexts[device] = context
        self._call("cuCtxPushCurrent_v2", self._contexts[device])
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", byref(c_void_p()))

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            text = c_char_p()
            self._library.cuGetErrorString(status, byref(text))
            why = text.value.decode() if text.value else f"error {status}"
            raise SharedMemoryFailed(f"the CUDA driver refused {name}: {why}")


_FUNCTIONS = {
    "cuInit": (c_uint,),
    "cuGetErrorString": (c_int, c_void_p),
    "cuDeviceGetCount": (c_void_p,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (c_void_p,),
    "cuIpcOpenMemHandle_v2": (c_void_p, _IpcHandle, c_uint),
    "cuIpcCloseMemHandle": (c_uint64,),
    "cuMemGetAddressRange_v2": (c_void_p, c_void_p, c_uint64),
    "cuMemcpyDtoH_v2": (c_void_p, c_uint64, c_size_t),
    "cuMemcpyHtoD_v2": (c_uint64, c_void_p, c_size_t),
}


def find_driver() -> CudaDriver | None:
    """The driver of this machine's GPUs; None where there are none, or they cannot be used."""
    try:
        driver = CudaDriver(ctypes.CDLL("libcuda.so.1"))
    except (OSError, AttributeError, SharedMemoryFailed):
        return None
    return driver if driver.devices else None
