"""What a configuration decides for speed, read from and written into an `inference.ModelConfig`. Pure.

Only what differs from the present candidate is written, so that everything else in a configuration stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

from loadtest.errors import LoadTestError
from proto import model_config_pb2 as pb

THREADS, OBJECTIVE, PADDING = "intra_op_thread_count", "slo_ms", "pad_to_bucket"
"""Keys of `parameters`."""


class Axis(StrEnum):
    """What can be held fast, by the name that the command line gives it."""

    LANES = "lanes"
    """Instances and threads: one cannot be judged without the other."""
    MAX_BATCH_SIZE = "max-batch-size"
    BATCHING = "batching"
    PADDING = "padding"


@dataclass(frozen=True)
class Alone:
    """Requests run one by one."""

    def __str__(self) -> str:
        return "no batching"


@dataclass(frozen=True)
class Window:
    """`dynamic_batching`: requests wait for others up to a delay; without one, for an idle instance."""

    delay_us: int = 0
    preferred_sizes: tuple[int, ...] = ()

    def __str__(self) -> str:
        delay = f"delay {self.delay_us} us" if self.delay_us else "no delay"
        sizes = ", ".join(map(str, self.preferred_sizes))
        return f"{delay}, prefers {sizes}" if sizes else delay


@dataclass(frozen=True)
class Objective:
    """The parameter `slo_ms`: from arrival to answer."""

    milliseconds: float

    def __str__(self) -> str:
        return f"slo_ms {self.milliseconds:g}"


Batching = Alone | Window | Objective


@dataclass(frozen=True)
class Candidate:
    """One way to serve a model."""

    instances: int
    """On each device."""
    threads: int | None
    """Of ONNX Runtime within an operator, for each instance; None leaves it to the server: cores ÷ instances."""
    max_batch_size: int
    """0: the model has no batch axis."""
    batching: Batching
    pad_to_bucket: bool = False

    def __str__(self) -> str:
        parts = [f"{self.instances} × {self.threads or 'auto'}"]
        if self.max_batch_size:
            parts += [f"batch {self.max_batch_size}", str(self.batching)]
        return ", ".join(parts + ["padded"] * self.pad_to_bucket)

    def changes(self, other: Candidate) -> int:
        """How many settings differ from `other`'s."""
        return sum(getattr(self, field.name) != getattr(other, field.name) for field in fields(self))


def require_tunable(model: str, config: pb.ModelConfig) -> None:
    """A LoadTestError where `config` decides nothing of the kind: that of an ensemble."""
    if config.HasField("ensemble_scheduling"):
        steps = ", ".join(sorted({step.model_name for step in config.ensemble_scheduling.step}))
        raise LoadTestError(f"'{model}' is an ensemble, which has no instances and no batches of its own: tune {steps}")


def read_candidate(config: pb.ModelConfig) -> Candidate:
    """What a completed configuration, as the ModelConfig RPC gives it, decides."""
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    window = config.dynamic_batching
    batching: Batching = Alone()
    if OBJECTIVE in parameters:
        batching = Objective(float(parameters[OBJECTIVE]))
    elif config.HasField("dynamic_batching"):
        batching = Window(window.max_queue_delay_microseconds, tuple(window.preferred_batch_size))
    return Candidate(
        instances=sum(group.count or 1 for group in config.instance_group) or 1,
        threads=int(parameters.get(THREADS, "0")) or None,
        max_batch_size=config.max_batch_size,
        batching=batching,
        pad_to_bucket=parameters.get(PADDING) == "true",
    )


def apply(config: pb.ModelConfig, present: Candidate, wanted: Candidate) -> pb.ModelConfig:
    """A copy of `config`, which serves as `present` says, that serves as `wanted` says.

    Several instance groups become one, with the first one's name, kind and gpus: here they must be alike anyway.
    """
    changed = pb.ModelConfig()
    changed.CopyFrom(config)
    if wanted.max_batch_size != present.max_batch_size:
        changed.max_batch_size = wanted.max_batch_size
    if wanted.instances != present.instances:
        group = changed.instance_group[0] if changed.instance_group else changed.instance_group.add()
        group.count = wanted.instances
        del changed.instance_group[1:]
    if wanted.threads != present.threads:
        _set_parameter(changed, THREADS, wanted.threads)
    if wanted.pad_to_bucket != present.pad_to_bucket:
        _set_parameter(changed, PADDING, "true" if wanted.pad_to_bucket else None)
    if wanted.batching != present.batching:
        _set_batching(changed, wanted.batching)
    return changed


def _set_batching(config: pb.ModelConfig, batching: Batching) -> None:
    objective = batching.milliseconds if isinstance(batching, Objective) else None
    _set_parameter(config, OBJECTIVE, None if objective is None else f"{objective:g}")
    if isinstance(batching, Alone):
        config.ClearField("dynamic_batching")
        return
    window = batching if isinstance(batching, Window) else Window()
    target = config.dynamic_batching
    target.SetInParent()
    target.ClearField("max_queue_delay_microseconds")
    if window.delay_us:
        target.max_queue_delay_microseconds = window.delay_us
    target.preferred_batch_size[:] = window.preferred_sizes


def _set_parameter(config: pb.ModelConfig, key: str, value: object | None) -> None:
    if value is None:
        config.parameters.pop(key, None)
    else:
        config.parameters[key].string_value = str(value)
