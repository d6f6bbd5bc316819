"""A model's configuration as the rest of the server sees it: frozen, complete and already checked by `config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from server.models.versions import VersionPolicy
from server.tensors import DataType


class DeviceKind(Enum):
    """Where instances run."""

    AUTO = "AUTO"
    """The server decides."""
    CPU = "CPU"
    GPU = "GPU"


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """One input or output. Shapes are per sample where the model batches, else full; -1 may vary."""

    name: str
    datatype: DataType
    dims: tuple[int, ...]
    """The shape that callers see."""
    reshape: tuple[int, ...] | None = None
    """The shape that the model sees, where it differs."""
    labels: tuple[str, ...] = ()
    """Class names by index, for the classification extension; outputs only."""

    @property
    def model_dims(self) -> tuple[int, ...]:
        """The shape that the model sees."""
        return self.dims if self.reshape is None else self.reshape


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How long, and how many, requests of one priority level may wait."""

    max_queue_size: int = 0
    """Requests that may wait; 0 takes the server's own bound."""
    default_timeout_us: int = 0
    """The most that a request may spend in the queue; 0 is no limit."""
    allow_timeout_override: bool = False
    """Whether a request may ask for less than `default_timeout_us`."""
    delay: bool = False
    """Whether a request whose time has come is not refused, but goes behind all others of its level."""


@dataclass(frozen=True, slots=True)
class WindowBatching:
    """How requests are combined. All zeros is natural batching: go when an instance is idle."""

    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    levels: tuple[QueuePolicy, ...] = (QueuePolicy(),)
    """By priority level, the most urgent first."""
    default_level: int = 1
    """The level of requests that name none, or one that is not there; the most urgent is 1."""
    preserve_ordering: bool = False
    """Whether answers leave in the order in which their requests arrived."""
    aging_us: int = 0
    """Waiting time that moves a request up by one level; 0: none does."""


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What a configuration decides before any model file is opened."""

    version_policy: VersionPolicy
    model_filename: str
    instance_count: int
    """Lanes in all groups together. 1 by default, where Triton takes 2 on a CPU: the lanes share the machine's cores,
    and one batch may use them all."""
    device_kind: DeviceKind
    gpus: tuple[int, ...]
    """Empty: all of them, where the kind is GPU."""
    graph_optimization_level: int | None
    """Triton's numbers: -1 basic, 1 extended, 2 none; None optimises fully."""
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """All that a model's configuration decides."""

    name: str
    platform: str
    max_batch_size: int
    """0: the model does not batch."""
    inputs: tuple[TensorConfig, ...]
    outputs: tuple[TensorConfig, ...]
    load: LoadSettings
    batching: WindowBatching | None
    """None: requests run one by one."""
    split_oversize: bool
    """Whether a request of more rows than a batch may hold is cut into several, and not refused."""
    objective_ms: float
    """Milliseconds from arrival to answer that the server keeps to; 0: it promises nothing."""
    metric_tags: Mapping[str, str]
    serialized: bytes
    """The completed inference.ModelConfig message, as the ModelConfig RPC gives it."""

    @property
    def fail_on_nan(self) -> bool:
        """Whether a request whose outputs hold NaN fails."""
        return self.load.parameters.get("fail_on_nan") == "true"
