"""GPUs as the driver tells of them. A C library and a module with NVML's interface stand for the driver."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server.backends.gpus import count_gpus, nvml_reader, page_locked_bytes, page_locked_memory
from server.metrics.machine import gpu_families
from server.metrics.snapshots import GpuSnapshot


class NvmlProblem(Exception):
    pass


class FakeNvml:
    """Two GPUs, the second of which tells little; `started` says whether there is a driver."""

    NVMLError = NvmlProblem

    def __init__(self, *, started: bool = True, count: int = 2) -> None:
        self.started = started
        self.count = count
        self.energy_mj = 5_000

    def nvmlInit(self) -> None:  # noqa: N802 -- NVML's names
        if not self.started:
            raise NvmlProblem("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str | bytes:  # noqa: N802
        return ("GPU-a", b"GPU-b")[handle]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        return self._told(handle, SimpleNamespace(gpu=40, memory=10))

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(total=1000, used=300, free=700)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> Any:  # noqa: N802
        return self._told(handle, 71_500)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> Any:  # noqa: N802
        return self._told(handle, 300_000)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> Any:  # noqa: N802
        return self._told(handle, self.energy_mj)

    def _told(self, handle: int, figure: Any) -> Any:
        if handle == 1:
            raise NvmlProblem("Not Supported")
        return figure


def test_figures_have_the_units_of_tritons_metrics() -> None:
    nvml = FakeNvml()
    read = nvml_reader(nvml)  # type: ignore[arg-type]
    assert read is not None
    nvml.energy_mj = 8_000
    assert read() == [
        GpuSnapshot("GPU-a", 0.4, 1000, 300, 71.5, 300.0, 3.0),
        GpuSnapshot("GPU-b", None, 1000, 300, None, None, None),
    ]


@pytest.mark.parametrize("nvml", [FakeNvml(started=False), FakeNvml(count=0)], ids=["no driver", "no GPU"])
def test_without_a_gpu_there_is_nothing_to_read(nvml: Any) -> None:
    assert nvml_reader(nvml) is None


def test_the_page_shows_what_each_gpu_tells() -> None:
    gpus = [GpuSnapshot("GPU-a", 0.4, 1000, 300, 71.5, 300.0, 3.0), GpuSnapshot("GPU-b", None, 1, 0, None, None, None)]
    shown = {
        family.name: {sample.labels["gpu_uuid"]: sample.value for sample in family.samples}
        for family in gpu_families(gpus)
    }
    assert shown == {
        "nv_gpu_utilization": {"GPU-a": 0.4},
        "nv_gpu_memory_total_bytes": {"GPU-a": 1000, "GPU-b": 1},
        "nv_gpu_memory_used_bytes": {"GPU-a": 300, "GPU-b": 0},
        "nv_gpu_power_usage": {"GPU-a": 71.5},
        "nv_gpu_power_limit": {"GPU-a": 300},
        "nv_energy_consumption": {"GPU-a": 3},
    }


def test_without_a_driver_there_is_no_gpu() -> None:
    count, problem = count_gpus("libno-such-driver.so.1")
    assert count == 0
    assert "there is no NVIDIA driver (libno-such-driver.so.1" in problem


MEMORY = """
#include <stdlib.h>
int context, depth = 0, allocated = 0, portable = 0, limit = 1000;
int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return ordinal < 2 ? 0 : 101; }
int cuDevicePrimaryCtxRetain(void **made, int device) { *made = &context; return device < 40; }
int cuCtxPushCurrent_v2(void *given) { depth++; return given != &context; }
int cuCtxPopCurrent_v2(void **popped) { depth--; return 0; }
int cuMemHostAlloc(void **memory, size_t size, unsigned flags) {
    if (depth != 1 || size > limit) return 2;
    portable = flags; allocated++; *memory = malloc(size); return 0;
}
int cuMemFreeHost(void *memory) { if (depth != 1) return 1; allocated--; free(memory); return 0; }
"""


def build_driver(folder: Path, start: str, body: str) -> str:
    """A driver with two devices' memory, which starts and counts as it is told."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    counting = f"int cuInit(unsigned flags) {{ return {start}; }} int cuDeviceGetCount(int *count) {{ {body}; }}"
    (folder / "driver.c").write_text(MEMORY + counting)
    library = folder / "libdriver.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "driver.c"], check=True)
    return str(library)


@pytest.fixture
def driver(tmp_path: Path) -> str:
    return build_driver(tmp_path, "0", "*count = 2; return 0")


def number(library: str, name: str) -> int:
    return ctypes.c_int.in_dll(ctypes.CDLL(library), name).value


DRIVERS = {
    "two GPUs": ("0", "*count = 2; return 0", 2, ""),
    "hidden": ("0", "*count = 0; return 0", 0, "offers no device (see CUDA_VISIBLE_DEVICES)"),
    "no device": ("100", "return 3", 0, "offers no device (CUDA error 100)"),
}


@pytest.mark.parametrize(("start", "body", "count", "problem"), DRIVERS.values(), ids=DRIVERS)
def test_the_driver_is_asked_for_its_devices(tmp_path: Path, start: str, body: str, count: int, problem: str) -> None:
    found, why = count_gpus(build_driver(tmp_path, start, body))
    assert found == count
    assert problem in why


def test_arrays_are_page_locked_for_all_contexts_and_freed_with_their_last_view(driver: str) -> None:
    array = page_locked_memory(1, driver)((3, 4), np.dtype(np.float32))
    array[:] = 7
    view = array[1:].reshape(-1)
    assert (number(driver, "allocated"), number(driver, "portable")) == (1, 1)
    assert page_locked_bytes() == 48
    del array
    assert view.tolist() == [7] * 8
    assert number(driver, "allocated") == 1
    del view
    assert (number(driver, "allocated"), number(driver, "depth")) == (0, 0)
    assert page_locked_bytes() == 0


def test_what_cannot_be_page_locked_is_ordinary_memory(driver: str, caplog: pytest.LogCaptureFixture) -> None:
    empty = page_locked_memory(0, driver)
    assert empty((2,), np.dtype(object)).shape == (2,)
    assert empty((0, 5), np.dtype(np.int8)).shape == (0, 5)
    assert not caplog.text
    assert empty((1001,), np.dtype(np.int8)).shape == (1001,)
    assert "1001 bytes for GPU 0 are not page-locked: cuMemHostAlloc: CUDA error 2" in caplog.text
    assert (number(driver, "allocated"), number(driver, "depth")) == (0, 0)


def test_a_device_that_the_driver_refuses_has_no_memory(driver: str) -> None:
    with pytest.raises(OSError, match="cuDeviceGet: CUDA error 101"):
        page_locked_memory(2, driver)


def test_a_library_that_is_no_driver_has_no_memory() -> None:
    with pytest.raises(OSError, match="cuInit"):
        page_locked_memory(0, "libm.so.6")
