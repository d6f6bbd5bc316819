"""Device memory of another process, on a real GPU: read, written, bounded, given back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from server.engine import Engine
from server.errors import InvalidRequest, SharedMemoryFailed
from server.messages import InferenceRequest, RequestedOutput, SharedPlace, SharedPlaces, TensorSpec
from server.models.lifecycle import State
from server.models.registry import Registry
from server.shared_memory.cuda import CudaRegion, find_driver
from server.shared_memory.regions import Regions
from server.shared_memory.tensors import SharedMemory
from tests.fakes import OneReply
from tests.unit.loaded import Bench, run

pytestmark = pytest.mark.gpu

EXPORTED = 4 << 20
PATTERN = (bytes(range(251)) * (EXPORTED // 251 + 1))[:EXPORTED]


class Exporter:
    """Another process, with `EXPORTED` bytes of `PATTERN` on GPU 0."""

    def __init__(self) -> None:
        program = (sys.executable, str(Path(__file__).with_name("exporter.py")), str(EXPORTED))
        self.process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.handle = bytes.fromhex(self._line())

    def ask(self, command: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._line()

    def read(self, offset: int, size: int) -> bytes:
        return bytes.fromhex(self.ask(f"read {offset} {size}"))

    def end(self) -> None:
        self.process.communicate(timeout=30)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    exporter = Exporter()
    yield exporter
    exporter.end()


@pytest.fixture
def regions(exporter: Exporter) -> Iterator[Regions]:
    """A table with the exported memory as "r"."""
    regions = Regions(find_driver())
    regions.register_cuda("r", exporter.handle, 0, EXPORTED)
    yield regions
    regions.close()


def read(regions: Regions, offset: int, size: int, name: str = "r") -> bytes:
    target = bytearray(size)
    regions.at(SharedPlace(name, offset, size)).read_into(offset, memoryview(target))
    return bytes(target)


def test_what_another_process_wrote_is_read(regions: Regions) -> None:
    assert read(regions, 0, EXPORTED) == PATTERN
    assert read(regions, 1001, 77) == PATTERN[1001:1078]
    assert read(regions, EXPORTED - 1, 1) == PATTERN[-1:]


def test_what_is_written_is_read_by_another_process(regions: Regions, exporter: Exporter) -> None:
    regions.at(SharedPlace("r", 1000, 5)).write(1000, b"abcde")
    assert exporter.read(998, 9) == PATTERN[998:1000] + b"abcde" + PATTERN[1005:1007]


def test_any_thread_reads(regions: Regions) -> None:
    with ThreadPoolExecutor(8) as threads:
        parts = list(threads.map(lambda i: read(regions, i * 4096, 4096), range(256)))
    assert b"".join(parts) == PATTERN[: 256 * 4096]


def test_a_region_is_no_larger_than_what_was_exported(exporter: Exporter) -> None:
    regions = Regions(find_driver())
    with pytest.raises(InvalidRequest, match="exceeds the"):
        regions.register_cuda("r", exporter.handle, 0, 1 << 40)
    assert regions.listed(CudaRegion, "") == {}


def test_memory_may_have_two_names(regions: Regions, exporter: Exporter) -> None:
    regions.register_cuda("s", exporter.handle, 0, 1000)
    regions.unregister(CudaRegion, "r")
    assert read(regions, 0, 1000, "s") == PATTERN[:1000]


def test_a_handle_of_nothing_is_refused() -> None:
    regions = Regions(find_driver())
    with pytest.raises(SharedMemoryFailed, match="the CUDA driver refused cuIpcOpenMemHandle_v2"):
        regions.register_cuda("r", b"\x07" * 64, 0, 8)
    with pytest.raises(InvalidRequest, match="there is no GPU 99"):
        regions.register_cuda("r", b"\x07" * 64, 99, 8)


def test_memory_is_exported_again_after_it_was_given_back(regions: Regions, exporter: Exporter) -> None:
    regions.unregister(CudaRegion, "r")
    regions.register_cuda("r", exporter.handle, 0, EXPORTED)
    assert read(regions, 0, 10) == PATTERN[:10]
    regions.unregister(CudaRegion, "r")
    assert exporter.ask("free") == "freed"


def test_a_request_has_its_tensors_on_the_device(regions: Regions, exporter: Exporter) -> None:
    regions.at(SharedPlace("r", 0, 8)).write(0, np.array([1.5, -2.0], np.float32).tobytes())

    async def main() -> None:
        bench = Bench()
        registry = Registry()
        registry.set_state("m", 3, State.LOADING)
        registry.set_ready("m", bench.version)
        reply = OneReply()
        asked = InferenceRequest(
            "m", "", "", (TensorSpec("x", "FP32", (1, 2)),), (None,), (RequestedOutput("y"),),
            shared=SharedPlaces((SharedPlace("r", 0, 8),), (("y", SharedPlace("r", 64, 8)),)),
        )  # fmt: skip
        Engine(registry, SharedMemory(regions, 1000)).infer(asked, reply)
        await bench.finish()
        assert (await reply.response()).places == (SharedPlace("r", 64, 8),)

    run(main)
    assert np.frombuffer(exporter.read(64, 8), np.float32).tolist() == [3.0, -4.0]
