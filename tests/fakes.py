"""Typed fakes of the server's seams, and small helpers shared by tests. Tested themselves in unit/test_fakes.py."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from server import tensors
from server.backends.base import Devices, GraphTensor, SessionOptions
from server.backends.loading import LoadAttempt
from server.errors import ConvoyError, LoadFailed, Reason, SharedMemoryFailed
from server.frontends.calls import NOBODY, Call, Peer, StatusCode
from server.frontends.statuses import STATUSES
from server.frontends.watch import Watch
from server.messages import InferenceResponse
from server.models.config import DeviceKind, LoadSettings, ModelConfig, TensorConfig, WindowBatching
from server.models.config_types import SequenceBatching, WarmupSample
from server.models.versions import Latest
from server.pictures.preprocessing import ImagePreprocessing
from server.records import GRPC, Record
from server.scheduling.clock import Alarm, Clock
from server.scheduling.queue import Ticket
from server.tensors import Array, Buffer
from server.trace_config import TraceConfig, TraceMode, TraceSetting
from server.tracing.sampling import TraceSettings


class NamedTicket(Ticket):
    """A ticket that prints as its name."""

    __slots__ = ("name",)

    def __init__(
        self,
        name: object,
        rows: int = 1,
        signature: object = None,
        arrived: float = 0.0,
        deadline: float = inf,
        **more: Any,
    ) -> None:
        super().__init__(rows, signature, arrived, deadline, **more)
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


def names(tickets: Sequence[NamedTicket]) -> list[object]:
    return [ticket.name for ticket in tickets]


class PuppetLane:
    """A lane in virtual time: records its batches and finishes each with `outcome(batch)`, after `seconds`: a number,
    or a function of its rows."""

    def __init__(
        self, seconds: float | Callable[[int], float] = 1.0, outcome: Callable[[Sequence[NamedTicket]], object] = list
    ) -> None:
        self.seconds = seconds
        self.outcome = outcome
        self.batches: list[tuple[float, list[object]]] = []
        self.closed = False
        self.busy = False

    def submit(self, batch: Sequence[NamedTicket], done: Callable[[object], None]) -> None:
        assert not self.busy, "a lane was given a batch while it ran another"
        self.busy = True
        loop = asyncio.get_running_loop()
        self.batches.append((loop.time(), names(batch)))
        seconds = self.seconds(sum(ticket.rows for ticket in batch)) if callable(self.seconds) else self.seconds
        loop.call_later(seconds, self._finish, batch, done)

    def close(self) -> None:
        self.closed = True

    def _finish(self, batch: Sequence[NamedTicket], done: Callable[[object], None]) -> None:
        self.busy = False
        try:
            outcome = self.outcome(batch)
        except Exception as error:  # noqa: BLE001 -- as a real lane hands it over
            outcome = error
        done(outcome)


class CountingClock:
    """Another clock, whose alarms' rings are counted."""

    def __init__(self, clock: Clock) -> None:
        self.now = clock.now
        self.rings = 0
        self._clock = clock

    def alarm(self, callback: Callable[[], None]) -> Alarm:
        def ring() -> None:
            self.rings += 1
            callback()

        return self._clock.alarm(ring)


class PuppetAlarm:
    """An alarm of a `PuppetClock`."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.when = inf
        self.closed = False
        self.callback = callback

    def set(self, when: float) -> None:
        assert not self.closed, "an alarm was set after it was closed"
        self.when = when

    def close(self) -> None:
        self.closed = True
        self.when = inf


class PuppetClock:
    """A clock that only a test moves. For code whose lanes are real threads, on the real loop."""

    def __init__(self, now: float = 0.0) -> None:
        self.time = now
        self.alarms: list[PuppetAlarm] = []

    def now(self) -> float:
        return self.time

    def alarm(self, callback: Callable[[], None]) -> PuppetAlarm:
        self.alarms.append(PuppetAlarm(callback))
        return self.alarms[-1]

    def advance(self, seconds: float) -> None:
        """Move the time, stopping at every alarm on the way to ring it."""
        end = self.time + seconds
        while due := [alarm for alarm in self.alarms if alarm.when <= end]:
            alarm = min(due, key=lambda alarm: alarm.when)
            self.time = max(self.time, alarm.when)
            alarm.when = inf
            alarm.callback()
        self.time = end


class Gate:
    """Holds back threads: each `wait` returns when `open` has made room for it."""

    def __init__(self) -> None:
        self._passes = threading.Semaphore(0)

    def open(self, passes: int = 1) -> None:
        self._passes.release(passes)

    def wait(self) -> None:
        assert self._passes.acquire(timeout=20), "the test never opened the gate"


class OneReply:
    """A reply function whose answer can be awaited."""

    def __init__(self) -> None:
        self.answers: list[InferenceResponse | ConvoyError] = []
        self._answered = asyncio.Event()

    def __call__(self, answer: InferenceResponse | ConvoyError) -> None:
        self.answers.append(answer)
        self._answered.set()

    async def answer(self) -> InferenceResponse | ConvoyError:
        await self._answered.wait()
        assert len(self.answers) == 1, "a request was answered twice"
        return self.answers[0]

    async def response(self) -> InferenceResponse:
        answer = await self.answer()
        assert isinstance(answer, InferenceResponse), answer
        return answer

    async def error(self) -> ConvoyError:
        answer = await self.answer()
        assert isinstance(answer, ConvoyError), answer
        return answer


def load_settings(*, instances: int = 1, parameters: Mapping[str, str] | None = None) -> LoadSettings:
    return LoadSettings(Latest(), "model.onnx", instances, DeviceKind.CPU, (), None, parameters or {})


def model_config(
    inputs: Sequence[TensorConfig],
    outputs: Sequence[TensorConfig],
    *,
    name: str = "m",
    max_batch_size: int = 8,
    batching: WindowBatching | None = None,
    instances: int = 1,
    split_oversize: bool = False,
    objective_ms: float = 0.0,
    parameters: Mapping[str, str] | None = None,
    pad_to_bucket: bool | None = None,
    warmup: Sequence[WarmupSample] = (),
    preprocessing: ImagePreprocessing | None = None,
    sequence: SequenceBatching | None = None,
) -> ModelConfig:
    """A configuration as `models.config` would hand it out."""
    return ModelConfig(
        name=name,
        platform="onnxruntime_onnx",
        max_batch_size=max_batch_size,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        load=load_settings(instances=instances, parameters=parameters),
        batching=batching,
        split_oversize=split_oversize,
        objective_ms=objective_ms,
        metric_tags={},
        serialized=b"",
        pad_to_bucket=pad_to_bucket,
        warmup=tuple(warmup),
        preprocessing=preprocessing,
        sequence=sequence,
    )


def fp32(name: str, *shape: int) -> GraphTensor:
    return GraphTensor(name, tensors.FP32, shape)


class PuppetSession:
    """A backend session that runs a Python function on every batch and remembers what it was given."""

    fixed_shapes = False

    def __init__(
        self,
        inputs: Sequence[GraphTensor],
        outputs: Sequence[GraphTensor],
        function: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.function = function
        self.shapes: list[dict[str, tuple[int, ...]]] = []
        self.asked: list[tuple[str, ...]] = []

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        self.shapes.append({name: array.shape for name, array in inputs.items()})
        self.asked.append(tuple(outputs))
        results = self.function(inputs)
        return [np.array(results[name]) for name in outputs]  # copies: outputs are the caller's to keep

    def for_instance(self) -> PuppetSession:
        return self

    def interruptible(self) -> PuppetSession:
        return self

    def interrupt(self) -> None:
        """A Python function does not look up from what it does."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        return np.empty(shape, dtype)


@dataclass
class PuppetBackend:
    """Opens files by looking their text up among `sessions`; any other file cannot be loaded."""

    sessions: dict[str, PuppetSession] = field(default_factory=dict)
    opened: list[tuple[Path, SessionOptions]] = field(default_factory=list)
    machine: Devices = field(default_factory=Devices)
    short_of: OSError | None = None
    """What every load fails with."""

    def devices(self) -> Devices:
        return self.machine

    def load(self, path: Path, options: SessionOptions, attempt: LoadAttempt | None = None) -> PuppetSession:
        self.opened.append((path, options))
        if self.short_of is not None:
            raise self.short_of
        session = self.sessions.get(path.read_text())
        if session is None:
            raise LoadFailed(f"{path}: not a model")
        return session


@dataclass
class FakeCall:
    """A `frontends.calls.Call` that records how it ended."""

    protocol: str = GRPC
    deadline: float = inf
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)
    on_cancel: Callable[[], None] | None = None
    sent: list[bytes] = field(default_factory=list)
    status: StatusCode | None = None
    message: str = ""
    initial: Mapping[str, str | bytes] = field(default_factory=dict)
    trailing: Mapping[str, str | bytes] = field(default_factory=dict)
    compressed: bool = False
    peer: Peer = NOBODY

    @property
    def authorization(self) -> str:
        return str(self.metadata.get("authorization", ""))

    def has_metadata(self, key: str) -> bool:
        return key in self.metadata

    def send_initial_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        assert not self.sent, "initial metadata after a message"
        self.initial = metadata

    def set_trailing_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        self.trailing = metadata

    def compress_messages(self, wanted: bool) -> None:
        assert not self.sent, "compression was chosen after a message"
        self.compressed = wanted

    def reply(self, message: Buffer) -> ConvoyError | None:
        self.send(bytes(message))
        self.finish()
        return None

    def send(self, message: bytes) -> None:
        assert self.status is None, "a message after the end of the call"
        self.sent.append(message)

    def finish(self) -> None:
        self._end(StatusCode.OK, "")

    def fail(self, status: StatusCode, message: str, reason: Reason | None = None) -> None:
        self._end(status, message)

    def _end(self, status: StatusCode, message: str) -> None:
        assert self.status is None, "a call ended twice"
        self.status, self.message = status, message


class Heard:
    """A stream's ear that keeps what it hears."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.messages: list[bytes] = []

    def message(self, data: Buffer) -> None:
        self.messages.append(bytes(data))

    def half_closed(self) -> None:
        self.call.finish()

    def drain(self) -> None:
        self.call.finish()


class FakeDriver:
    """A `shared_memory.cuda.Driver` of as many devices; one allocation of 100 bytes has been exported."""

    HANDLE = b"h" * 64
    ADDRESS = 1 << 40

    def __init__(self, devices: int = 1) -> None:
        self.devices = devices
        self.memory = bytearray(100)
        self.mapped = 0
        self.used: set[int] = set()
        self.targets: list[int] = []
        """Where in this process was copied to."""

    def open(self, device: int, handle: bytes) -> tuple[int, int]:
        if handle != self.HANDLE:
            raise SharedMemoryFailed("invalid argument")
        self.mapped += 1
        return self.ADDRESS, len(self.memory)

    def close(self, device: int, address: int) -> None:
        assert self.mapped, "more was closed than was opened"
        self.mapped -= 1

    def read(self, device: int, address: int, target: memoryview) -> None:
        start = self._start(device, address, len(target))
        self.targets.append(np.frombuffer(target, np.uint8).ctypes.data)
        target[:] = self.memory[start : start + len(target)]

    def write(self, device: int, address: int, data: Buffer) -> None:
        start = self._start(device, address, len(data))
        self.memory[start : start + len(data)] = data

    def _start(self, device: int, address: int, size: int) -> int:
        start = address - self.ADDRESS
        assert self.mapped and 0 <= start <= start + size <= len(self.memory), "outside of the mapping"
        self.used.add(device)
        return start


class KeptRecords:
    """A `tracing.Sink` that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    @property
    def lost(self) -> int:
        return 0

    def take(self, record: Record) -> None:
        self.records.append(record)

    def close(self, seconds: float) -> None:
        """Nothing is left to send."""


def watch(sink: KeptRecords | None = None, *, access_log: bool = False, **setting: Any) -> Watch:
    """Sends traces of all requests to `sink`, unless fields of `TraceSetting` say otherwise; without it, none."""
    chosen = TraceSetting(**{"on": True, "rate": 1, **setting}) if sink else TraceSetting()
    config = TraceConfig(TraceMode.OPENTELEMETRY, chosen)
    return Watch(TraceSettings(config), sink, STATUSES, joins_traces=True, access_log=access_log)
