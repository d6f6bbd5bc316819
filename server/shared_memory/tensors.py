"""Tensors of requests and answers that lie in registered memory.

An input is read when its batch is staged, from the region into the batch: one copy, on the lane's thread. An output is
written before its caller hears of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from server.errors import ConvoyError, SharedMemoryFailed, TooLarge
from server.messages import InferenceRequest, InferenceResponse, OutputTensor, SharedPlace, SharedPlaces, TensorSpec
from server.shared_memory.regions import Region, Regions
from server.tensors import BYTES, Array, Buffer, encode_bytes_elements

Answer = InferenceResponse | ConvoyError
Reply = Callable[[Answer], object]
Refuse = Callable[[ConvoyError], None]


class SharedContents:
    """Raw contents in a region. Implements `tensors.Stored`.

    A region that has become too small must harm nobody but its caller, and this is read for a whole batch: so what
    cannot be read counts as zeros there, and `problems` says so to whoever answers.
    """

    def __init__(self, region: Region, offset: int, byte_size: int, rows: int, problems: list[str]) -> None:
        """`rows`: into how many equal parts it may be cut."""
        self._region = region
        self._offset = offset
        self._byte_size = byte_size
        self._rows = rows
        self._problems = problems

    def __len__(self) -> int:
        """Bytes."""
        return self._byte_size

    def read(self) -> memoryview:
        """A copy. Raises `SharedMemoryFailed`."""
        contents = memoryview(bytearray(self._byte_size))
        self._region.read_into(self._offset, contents)
        return contents

    def write_into(self, rows: Array) -> None:
        """Fill a C-contiguous array of as many bytes."""
        target = rows.reshape(-1).view(np.uint8)
        try:
            self._region.read_into(self._offset, target.data)
        except SharedMemoryFailed as error:
            self._problems.append(str(error))
            target[:] = 0

    def part(self, start: int, count: int) -> SharedContents:
        """Some of its rows."""
        row = self._byte_size // self._rows
        return SharedContents(self._region, self._offset + start * row, count * row, count, self._problems)


class SharedMemory:
    """What the data plane needs of registered memory."""

    def __init__(self, regions: Regions, max_request_bytes: int) -> None:
        """`max_request_bytes`: what all inputs of one request may have there together. It may cost the server as much
        memory, like a message."""
        self._regions = regions
        self._max_request_bytes = max_request_bytes

    def attach(self, request: InferenceRequest, places: SharedPlaces, reply: Reply, refused: Refuse) -> Reply:
        """Give a request its inputs in shared memory. Returns who takes its answer, in place of `reply`.

        From here on the regions stay until the request is done with. `refused` hears of an answer that its caller
        cannot be given. Raises `InvalidRequest`, `RegionNotFound` and `SharedMemoryFailed`.
        """
        regions = [None if place is None else self._regions.at(place) for place in places.inputs]
        targets = {name: (self._regions.at(place), place) for name, place in places.outputs}
        # Now no size is negative.
        total = sum(place.byte_size for place in places.inputs if place is not None)
        if total > self._max_request_bytes:
            raise TooLarge(
                f"{request.label()}the inputs in shared memory have {total} bytes together; a request may have "
                f"{self._max_request_bytes} (--grpc-max-message-bytes)"
            )
        problems: list[str] = []
        request.buffers = tuple(
            buffer if region is None or place is None else _contents(region, place, spec, problems)
            for buffer, region, place, spec in zip(request.buffers, regions, places.inputs, request.specs, strict=True)
        )
        return _SharedAnswer(targets, problems, reply, refused)


def _contents(region: Region, place: SharedPlace, spec: TensorSpec, problems: list[str]) -> SharedContents | memoryview:
    rows = spec.shape[0] if spec.shape else 1
    contents = SharedContents(region, place.offset, place.byte_size, rows, problems)
    # Lengths within the data decide how BYTES are read: nobody may change them meanwhile.
    return contents.read() if spec.datatype == BYTES.name else contents


class _SharedAnswer:
    """Takes the answer to one request, writes what is to lie in shared memory, and passes it on."""

    __slots__ = ("_problems", "_refused", "_reply", "_targets")

    def __init__(
        self, targets: dict[str, tuple[Region, SharedPlace]], problems: list[str], reply: Reply, refused: Refuse
    ) -> None:
        self._targets = targets
        self._problems = problems
        self._reply = reply
        self._refused = refused

    def __call__(self, answer: Answer) -> None:
        if not isinstance(answer, ConvoyError):
            try:
                answer = self._written(answer)
            except SharedMemoryFailed as error:
                self._refused(error)
                answer = error
        if isinstance(answer, ConvoyError):
            # Its frames hold the request and the error itself: regions would stay until a garbage collection.
            answer.__traceback__ = None
        self._reply(answer)

    def _written(self, answer: InferenceResponse) -> InferenceResponse:
        if self._problems:
            raise SharedMemoryFailed(f"an input of the request cannot be read: {self._problems[0]}")
        if not self._targets:
            return answer
        places: list[SharedPlace | None] = []
        writes: list[tuple[Region, int, Buffer]] = []
        for tensor in answer.outputs:
            target = self._targets.get(tensor.name)
            if target is None:
                places.append(None)
                continue
            region, place = target
            contents = _raw(tensor)
            size = len(contents)
            if size > place.byte_size:
                raise SharedMemoryFailed(
                    f"shared memory size specified with the request for output '{tensor.name}' ({place.byte_size} "
                    f"bytes) should be at least {size} bytes to hold the results"
                )
            writes.append((region, place.offset, contents))
            places.append(place._replace(byte_size=size))
        for region, offset, contents in writes:
            region.write(offset, contents)
        return replace(answer, places=tuple(places))


def _raw(tensor: OutputTensor) -> Buffer:
    if tensor.datatype is BYTES:
        return encode_bytes_elements(tensor.data)
    return np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8).data
