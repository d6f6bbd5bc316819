"""Which GPUs are there, memory that they can read, and how busy they are.

The driver is asked itself, by its C interface; NVML by its package. Neither must be installed.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Callable
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from server.metrics.snapshots import GpuReader, GpuSnapshot
from server.tensors import Array

log = logging.getLogger(__name__)

CUDA_DRIVER = "libcuda.so.1"

_PORTABLE = 1  # CU_MEMHOSTALLOC_PORTABLE: page-locked for every context

_page_locked: dict[int, int] = {}
"""What this process holds: bytes by address. Lanes' threads write it, one entry at a time."""

Empty = Callable[[tuple[int, ...], np.dtype[Any]], Array]
"""Makes an array whose content is arbitrary."""


def page_locked_bytes() -> int:
    """Memory that GPUs read by themselves, of all devices together."""
    return sum(list(_page_locked.values()))


def count_gpus(library: str = CUDA_DRIVER) -> tuple[int, str]:
    """How many GPUs CUDA offers this process (`CUDA_VISIBLE_DEVICES` counts), and why there is none."""
    try:
        driver = ctypes.CDLL(library)
        initialize, count_devices = driver.cuInit, driver.cuDeviceGetCount
    except (OSError, AttributeError) as error:
        return 0, f"there is no NVIDIA driver ({error})"
    count = ctypes.c_int()
    status = initialize(0) or count_devices(ctypes.byref(count))
    if status:
        return 0, f"the NVIDIA driver offers no device (CUDA error {status})"
    return count.value, "" if count.value else "the NVIDIA driver offers no device (see CUDA_VISIBLE_DEVICES)"


def page_locked_memory(device: int, library: str = CUDA_DRIVER) -> Empty:
    """What makes arrays that a GPU reads by itself, whose addresses CUDA knows. Raises OSError where none can be had.

    An array that cannot be page-locked, for its size or because it holds objects, is an ordinary one.
    """
    try:
        driver = ctypes.CDLL(library)
        context, handle = ctypes.c_void_p(), ctypes.c_int()
        _call(driver.cuInit, 0)
        _call(driver.cuDeviceGet, ctypes.byref(handle), device)
        _call(driver.cuDevicePrimaryCtxRetain, ctypes.byref(context), handle)  # the one that ONNX Runtime uses too
    except AttributeError as error:
        raise OSError(f"{library}: {error}") from error

    def within_context(function: Any, *arguments: Any) -> None:
        _call(driver.cuCtxPushCurrent_v2, context)
        try:
            _call(function, *arguments)
        finally:
            _call(driver.cuCtxPopCurrent_v2, ctypes.byref(ctypes.c_void_p()))

    def free(address: ctypes.c_void_p) -> None:
        _page_locked.pop(address.value or 0, None)
        within_context(driver.cuMemFreeHost, address)

    def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        size = prod(shape) * dtype.itemsize
        if dtype.hasobject or size == 0:
            return np.empty(shape, dtype)
        address = ctypes.c_void_p()
        try:
            within_context(driver.cuMemHostAlloc, ctypes.byref(address), ctypes.c_size_t(size), _PORTABLE)
        except OSError as error:
            log.warning("%d bytes for GPU %d are not page-locked: %s", size, device, error)
            return np.empty(shape, dtype)
        assert address.value, "the driver said that it gave memory"
        memory = (ctypes.c_byte * size).from_address(address.value)
        # Every view of the array holds on to `memory`, so nothing can read what has been freed.
        weakref.finalize(memory, free, address).atexit = False
        _page_locked[address.value] = size
        return np.frombuffer(memoryview(memory), dtype).reshape(shape)

    return empty


def _call(function: Any, *arguments: Any) -> None:
    status = function(*arguments)
    if status:
        raise OSError(f"{function.__name__}: CUDA error {status}")


def gpu_reader() -> GpuReader | None:
    """What reads the GPUs' figures; None where there is no GPU or no package nvidia-ml-py."""
    try:
        import pynvml  # of the extra `gpu`
    except ImportError as error:
        log.debug("no GPU metrics: %s", error)
        return None
    return nvml_reader(pynvml)


def nvml_reader(nvml: ModuleType) -> GpuReader | None:
    """The same, over a module with the interface of `pynvml`."""
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        uuids = [nvml.nvmlDeviceGetUUID(handle) for handle in handles]
    except nvml.NVMLError as error:
        log.debug("no GPU metrics: %s", error)
        return None
    if not handles:
        return None
    start = [_figure(nvml, nvml.nvmlDeviceGetTotalEnergyConsumption, handle) for handle in handles]

    def read() -> list[GpuSnapshot]:
        return [_snapshot(nvml, handle, uuid, began) for handle, uuid, began in zip(handles, uuids, start, strict=True)]

    return read


def _snapshot(nvml: ModuleType, handle: object, uuid: str | bytes, energy_start_mj: float | None) -> GpuSnapshot:
    busy = _figure(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    memory = _figure(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    power_mw = _figure(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    limit_mw = _figure(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    energy_mj = _figure(nvml, nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    return GpuSnapshot(
        uuid=uuid.decode() if isinstance(uuid, bytes) else uuid,
        utilization=None if busy is None else busy.gpu / 100,
        memory_total_bytes=None if memory is None else memory.total,
        memory_used_bytes=None if memory is None else memory.used,
        power_usage_watts=None if power_mw is None else power_mw / 1000,
        power_limit_watts=None if limit_mw is None else limit_mw / 1000,
        energy_joules=None if energy_mj is None or energy_start_mj is None else (energy_mj - energy_start_mj) / 1000,
    )


def _figure(nvml: ModuleType, read: Callable[[object], Any], handle: object) -> Any:
    """One figure of a GPU; None where this GPU, or its state now, does not give it."""
    try:
        return read(handle)
    except nvml.NVMLError:
        return None
