"""Exported device memory, on a driver that has none: what is checked, and who closes what."""

from __future__ import annotations

import pytest

from server.errors import InvalidRequest, SharedMemoryFailed
from server.messages import SharedPlace
from server.shared_memory.cuda import CudaRegion
from server.shared_memory.regions import Regions
from tests.fakes import FakeDriver


def test_device_memory_is_read_and_written_from_an_offset_on() -> None:
    driver = FakeDriver(devices=2)
    regions = Regions(driver)
    regions.register_cuda("r", FakeDriver.HANDLE, 1, 16)
    region = regions.at(SharedPlace("r", 4, 3))
    region.write(4, b"abc")
    target = bytearray(5)
    region.read_into(3, memoryview(target))
    assert target == b"\0abc\0"
    assert driver.used == {1}


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_handle_has_its_size(size: int) -> None:
    with pytest.raises(InvalidRequest, match=f"a CUDA memory handle has 64 bytes, got {size}"):
        Regions(FakeDriver()).register_cuda("r", b"x" * size, 0, 16)


@pytest.mark.parametrize("device", [-1, 2, 2**62])
def test_a_device_is_one_of_those_that_there_are(device: int) -> None:
    with pytest.raises(InvalidRequest, match=f"there is no GPU {device}: this server has 2"):
        Regions(FakeDriver(devices=2)).register_cuda("r", FakeDriver.HANDLE, device, 16)


def test_a_handle_that_the_driver_refuses_is_not_registered() -> None:
    regions = Regions(FakeDriver())
    with pytest.raises(SharedMemoryFailed, match="invalid"):
        regions.register_cuda("r", b"?" * 64, 0, 16)
    assert regions.listed(CudaRegion, "") == {}


def test_a_region_is_no_larger_than_what_was_exported_and_is_given_back_where_it_would_be() -> None:
    driver = FakeDriver()
    with pytest.raises(InvalidRequest, match="byte_size 101 exceeds the 100 bytes of the exported memory"):
        Regions(driver).register_cuda("r", FakeDriver.HANDLE, 0, 101)
    assert driver.mapped == 0


def test_a_mapping_is_given_back_with_the_last_of_its_users() -> None:
    driver = FakeDriver()
    regions = Regions(driver)
    regions.register_cuda("r", FakeDriver.HANDLE, 0, 16)
    used = regions.at(SharedPlace("r", 0, 1))
    regions.unregister(CudaRegion, "r")
    assert driver.mapped == 1
    used.write(0, b"x")
    del used
    assert driver.mapped == 0


def test_without_a_gpu_there_is_no_device_memory() -> None:
    with pytest.raises(InvalidRequest, match="failed to register CUDA shared memory region: 'r', GPUs not supported"):
        Regions().register_cuda("r", FakeDriver.HANDLE, 0, 16)


def test_extensions_are_those_that_work() -> None:
    assert Regions().extensions == ("system_shared_memory",)
    assert Regions(FakeDriver()).extensions == ("system_shared_memory", "cuda_shared_memory")
