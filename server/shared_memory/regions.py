"""What callers have registered, by name. One set of names for both kinds, as in Triton. On the event loop's thread."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from server.errors import AlreadyExists, InvalidRequest, RegionNotFound, Unavailable
from server.messages import SharedPlace
from server.shared_memory.cuda import CudaRegion, Driver
from server.shared_memory.posix import FOLDER, PosixRegion
from server.tensors import Buffer

MAX_REGIONS = 1024
MAX_NAME_BYTES = 256
"""Of a region's name; names are kept for as long as it is registered."""


class Region(Protocol):
    """Memory of a caller. Whoever holds the object may use the memory; it is let go with the object."""

    byte_size: int

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill `target`, writable bytes, from `offset` on. On any thread. Raises `SharedMemoryFailed`."""
        ...

    def write(self, offset: int, data: Buffer) -> None:
        """Write bytes from `offset` on. On any thread. Raises `SharedMemoryFailed`."""
        ...


R = TypeVar("R", bound=Region)


class Regions:
    """The table of regions. Each holds a descriptor or a mapping, so that their number is limited."""

    def __init__(self, driver: Driver | None = None, max_regions: int | None = None, folder: Path = FOLDER) -> None:
        """`driver`: that of the GPUs, where there are any. `max_regions` None: a quarter of the descriptors that this
        process may have, at most `MAX_REGIONS`. `folder`: where POSIX objects are."""
        self._driver = driver
        self._folder = folder
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_regions = max_regions or (min(MAX_REGIONS, descriptors // 4) if descriptors > 0 else MAX_REGIONS)
        self._regions: dict[str, Region] = {}

    @property
    def extensions(self) -> tuple[str, ...]:
        """The protocol's names of what is offered."""
        return ("system_shared_memory",) if self._driver is None else ("system_shared_memory", "cuda_shared_memory")

    def register_system(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Raises `AlreadyExists`, `InvalidRequest`, `SharedMemoryFailed`; `Unavailable` where there are too many."""
        self._register(name, byte_size, lambda: _open_system(name, key, offset, byte_size, self._folder))

    def register_cuda(self, name: str, handle: bytes, device: int, byte_size: int) -> None:
        """`handle`: a cudaIpcMemHandle_t. Raises as `register_system`, and `InvalidRequest` without a GPU."""
        driver = self._driver
        if driver is None:
            raise InvalidRequest(
                f"failed to register CUDA shared memory region: '{name}', GPUs not supported: this server has none"
            )
        self._register(name, byte_size, lambda: CudaRegion(driver, handle, device, byte_size))

    def _register(self, name: str, byte_size: int, opened: Callable[[], Region]) -> None:
        if not name or len(name.encode()) > MAX_NAME_BYTES:
            raise InvalidRequest(f"a shared memory region needs a name of 1 to {MAX_NAME_BYTES} bytes")
        if name in self._regions:
            raise AlreadyExists(f"shared memory region '{name}' already in manager")
        if len(self._regions) >= self.max_regions:
            raise Unavailable(
                f"failed to register shared memory region '{name}': {self.max_regions} are registered, and there may "
                "be no more"
            )
        if byte_size < 1:
            raise InvalidRequest(f"failed to register shared memory region '{name}': its byte_size is {byte_size}")
        self._regions[name] = opened()

    def unregister(self, kind: type[Region], name: str) -> None:
        """Forget a region of this kind, or all of them for "". Requests in progress keep what they have.

        A name that is not there is no error, as in Triton.
        """
        for each in [name] if name else list(self._regions):
            if isinstance(self._regions.get(each), kind):
                del self._regions[each]

    def listed(self, kind: type[R], name: str) -> dict[str, R]:
        """The regions of this kind, or the one of this name. Raises `RegionNotFound`."""
        found = {each: region for each, region in self._regions.items() if isinstance(region, kind)}
        if not name:
            return found
        what = "system" if kind is PosixRegion else "cuda"
        if name in self._regions and name not in found:
            raise RegionNotFound(f"The region named '{name}' is not registered as {what} shared memory")
        if name not in found:
            raise RegionNotFound(f"Unable to find {what} shared memory region: '{name}'")
        return {name: found[name]}

    def at(self, place: SharedPlace) -> Region:
        """The region of a place that lies within it. Raises `RegionNotFound` and `InvalidRequest`."""
        region = self._regions.get(place.region)
        if region is None:
            raise RegionNotFound(f"Unable to find shared memory region: '{place.region}'")
        check_place(place, region.byte_size)
        return region

    def usage(self) -> tuple[int, int]:
        """How many there are, and their bytes together."""
        return len(self._regions), sum(region.byte_size for region in self._regions.values())

    def close(self) -> None:
        """Forget all regions."""
        self._regions.clear()


def check_place(place: SharedPlace, region_bytes: int) -> None:
    """Raise `InvalidRequest` for a place that is not within a region of so many bytes. Python's numbers are exact."""
    if not 0 <= place.offset < region_bytes:
        raise InvalidRequest(f"Invalid offset for shared memory region: '{place.region}'")
    if place.byte_size < 0 or place.offset + place.byte_size > region_bytes:
        raise InvalidRequest(f"Invalid offset + byte size for shared memory region: '{place.region}'")


def _open_system(name: str, key: str, offset: int, byte_size: int, folder: Path) -> PosixRegion:
    region = PosixRegion(key, offset, byte_size, folder)
    if offset < 0 or offset + byte_size > region.object_bytes:
        raise InvalidRequest(
            f"failed to register shared memory region '{name}': invalid args: offset {offset} and byte_size "
            f"{byte_size} exceed the {region.object_bytes} bytes of '{key}'"
        )
    return region
