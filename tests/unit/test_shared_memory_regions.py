"""The table of registered memory, and POSIX objects behind it. The objects are files of a folder of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.errors import AlreadyExists, InvalidRequest, RegionNotFound, SharedMemoryFailed, Unavailable
from server.messages import SharedPlace
from server.shared_memory.cuda import CudaRegion
from server.shared_memory.posix import PosixRegion, file_name
from server.shared_memory.regions import Regions, check_place
from tests.fakes import FakeDriver

HUGE = 2**63 - 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "object").write_bytes(bytes(range(100)))
    return tmp_path


@pytest.fixture
def regions(folder: Path) -> Regions:
    regions = Regions(folder=folder)
    regions.register_system("r", "/object", 10, 50)
    return regions


def open_descriptors() -> list[str]:
    """What this process has open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:  # that of the list itself
            continue
    return found


def read(regions: Regions, offset: int, size: int, region: str = "r") -> bytes:
    target = bytearray(size)
    place = SharedPlace(region, offset, size)
    regions.at(place).read_into(offset, memoryview(target))
    return bytes(target)


def test_a_region_is_a_part_of_its_object(regions: Regions) -> None:
    assert read(regions, 0, 50) == bytes(range(10, 60))
    assert read(regions, 40, 10) == bytes(range(50, 60))


def test_what_is_written_is_in_the_object(regions: Regions, folder: Path) -> None:
    regions.at(SharedPlace("r", 5, 3)).write(5, b"abc")
    assert (folder / "object").read_bytes()[14:19] == b"\x0eabc\x12"


@pytest.mark.parametrize(
    "key", ["", "/", ".", "..", "/..", "../etc/passwd", "/a/b", "//object", "a\0b", "x" * 256, "é" * 128]
)
def test_a_key_is_one_name(key: str, folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="invalid shared memory key"):
        Regions(folder=folder).register_system("r", key, 0, 1)


@given(st.text())
@example("/..")
def test_no_key_leads_out_of_the_folder(key: str) -> None:
    try:
        name = file_name(key)
    except InvalidRequest:
        return
    assert Path("/folder", name).parent == Path("/folder") and name not in ("", ".", "..")


def test_a_slash_may_come_first(folder: Path) -> None:
    regions = Regions(folder=folder)
    regions.register_system("with", "/object", 0, 10)
    regions.register_system("without", "object", 0, 10)
    assert read(regions, 0, 10, "with") == read(regions, 0, 10, "without")
    assert regions.listed(PosixRegion, "with")["with"].key == "/object"


def test_an_object_that_is_not_there_cannot_be_registered(folder: Path) -> None:
    with pytest.raises(SharedMemoryFailed, match="Unable to open shared memory region: '/nowhere': No such file"):
        Regions(folder=folder).register_system("r", "/nowhere", 0, 10)


def test_links_pipes_and_folders_are_not_objects(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "object")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(SharedMemoryFailed, match="Unable to open shared memory region"):
            Regions(folder=folder).register_system("r", name, 0, 10)


@pytest.mark.parametrize(
    ("offset", "byte_size"), [(0, 101), (100, 1), (1, 100), (HUGE, 1), (2**64 - 1, 2), (1, 2**64 - 1), (0, 2**64 - 1)]
)
def test_a_region_lies_within_its_object(offset: int, byte_size: int, folder: Path) -> None:
    regions = Regions(folder=folder)
    with pytest.raises(InvalidRequest, match="failed to register shared memory region 'r': invalid args"):
        regions.register_system("r", "/object", offset, byte_size)
    assert regions.listed(PosixRegion, "") == {}
    assert str(folder / "object") not in open_descriptors()


def test_a_region_is_not_empty(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="its byte_size is 0"):
        Regions(folder=folder).register_system("r", "/object", 0, 0)


@pytest.mark.parametrize("name", ["", "x" * 257])
def test_a_region_has_a_name_of_some_length(name: str, folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="needs a name"):
        Regions(folder=folder).register_system(name, "/object", 0, 10)


def test_a_name_is_given_once(regions: Regions) -> None:
    with pytest.raises(AlreadyExists, match="shared memory region 'r' already in manager"):
        regions.register_system("r", "/object", 0, 10)
    assert regions.listed(PosixRegion, "r")["r"].byte_size == 50


def test_an_object_may_have_several_names(regions: Regions) -> None:
    regions.register_system("s", "/object", 0, 100)
    assert regions.usage() == (2, 150)
    regions.unregister(PosixRegion, "r")
    assert read(regions, 0, 100, "s") == bytes(range(100))
    assert regions.usage() == (1, 100)


def test_there_may_be_so_many_regions(folder: Path) -> None:
    regions = Regions(max_regions=2, folder=folder)
    for name in ("a", "b"):
        regions.register_system(name, "/object", 0, 10)
    with pytest.raises(Unavailable, match="2 are registered, and there may be no more"):
        regions.register_system("c", "/object", 0, 10)
    regions.unregister(PosixRegion, "a")
    regions.register_system("c", "/object", 0, 10)


def test_regions_leave_most_descriptors_to_others() -> None:
    assert 1 <= Regions().max_regions <= 1024


def test_a_region_that_is_not_there_is_not_found(regions: Regions) -> None:
    with pytest.raises(RegionNotFound, match="Unable to find system shared memory region: 'q'"):
        regions.listed(PosixRegion, "q")
    with pytest.raises(RegionNotFound, match="Unable to find cuda shared memory region: 'q'"):
        regions.listed(CudaRegion, "q")
    with pytest.raises(RegionNotFound, match="Unable to find shared memory region: 'q'"):
        regions.at(SharedPlace("q", 0, 1))


def test_a_region_of_the_other_kind_is_not_found(regions: Regions) -> None:
    with pytest.raises(RegionNotFound, match="'r' is not registered as cuda shared memory"):
        regions.listed(CudaRegion, "r")
    assert regions.listed(CudaRegion, "") == {}


def test_regions_of_one_kind_are_forgotten_without_those_of_the_other(folder: Path) -> None:
    regions = Regions(FakeDriver(), folder=folder)
    regions.register_system("posix", "/object", 0, 10)
    regions.register_cuda("cuda", FakeDriver.HANDLE, 0, 10)
    regions.unregister(CudaRegion, "posix")
    regions.unregister(PosixRegion, "nowhere")
    assert set(regions.listed(PosixRegion, "")) == {"posix"}
    regions.unregister(PosixRegion, "")
    assert (set(regions.listed(PosixRegion, "")), set(regions.listed(CudaRegion, ""))) == (set(), {"cuda"})


def test_a_forgotten_region_is_closed(regions: Regions, folder: Path) -> None:
    assert open_descriptors().count(str(folder / "object")) == 1
    regions.unregister(PosixRegion, "r")
    assert str(folder / "object") not in open_descriptors()


def test_a_region_in_use_is_closed_with_its_last_user(regions: Regions, folder: Path) -> None:
    used = regions.at(SharedPlace("r", 0, 1))
    regions.close()
    target = bytearray(1)
    used.read_into(0, memoryview(target))
    assert target == b"\x0a"
    del used
    assert str(folder / "object") not in open_descriptors()


def test_an_object_that_was_removed_is_still_there_for_its_region(regions: Regions, folder: Path) -> None:
    (folder / "object").unlink()
    assert read(regions, 0, 3) == b"\x0a\x0b\x0c"


def test_an_object_that_was_cut_off_is_an_error(regions: Regions, folder: Path) -> None:
    os.truncate(folder / "object", 30)
    assert read(regions, 0, 20) == bytes(range(10, 30))
    for offset, size in ((0, 21), (20, 1), (49, 1)):
        with pytest.raises(SharedMemoryFailed, match="has become smaller"):
            read(regions, offset, size)
        with pytest.raises(SharedMemoryFailed, match="has become smaller"):
            regions.at(SharedPlace("r", offset, size)).write(offset, bytes(size))
    assert (folder / "object").stat().st_size == 30


@pytest.mark.parametrize(
    ("offset", "byte_size", "message"),
    [
        (-1, 1, "Invalid offset for"),
        (50, 0, "Invalid offset for"),
        (51, 1, "Invalid offset for"),
        (HUGE, HUGE, "Invalid offset for"),
        (-HUGE - 1, HUGE, "Invalid offset for"),
        (0, 51, r"Invalid offset \+ byte size for"),
        (49, 2, r"Invalid offset \+ byte size for"),
        (1, HUGE, r"Invalid offset \+ byte size for"),
        (0, -1, r"Invalid offset \+ byte size for"),
        (10, -5, r"Invalid offset \+ byte size for"),
    ],
)
def test_a_place_lies_within_its_region(offset: int, byte_size: int, message: str, regions: Regions) -> None:
    with pytest.raises(InvalidRequest, match=f"{message} shared memory region: 'r'"):
        regions.at(SharedPlace("r", offset, byte_size))


WIRE = st.integers(-(2**63), HUGE)


@given(st.one_of(WIRE, st.integers(-3, 20)), st.one_of(WIRE, st.integers(-3, 20)), st.integers(1, 12))
def test_a_place_is_taken_exactly_where_every_byte_of_it_is_there(offset: int, size: int, region_bytes: int) -> None:
    first_and_last = (offset, offset + size - 1) if size > 0 else (offset,)
    inside = size >= 0 and all(0 <= byte < region_bytes for byte in first_and_last)
    try:
        check_place(SharedPlace("r", offset, size), region_bytes)
    except InvalidRequest:
        assert not inside
    else:
        assert inside
