"""A model's configuration as the rest of the server sees it: frozen, complete and already checked by `config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from server.models.versions import VersionPolicy
from server.pictures.preprocessing import ImagePreprocessing
from server.tensors import Array, DataType


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


class ControlKind(Enum):
    """What a model is told about each request's place in its sequence."""

    START = "CONTROL_SEQUENCE_START"
    READY = "CONTROL_SEQUENCE_READY"
    """This row holds a request."""
    END = "CONTROL_SEQUENCE_END"
    CORRID = "CONTROL_SEQUENCE_CORRID"
    """The sequence's id."""


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """An input that the server fills in: one element a row."""

    tensor: TensorConfig
    kind: ControlKind
    false_true: tuple[float, ...] = ()
    """What it says for false and for true; empty for CORRID."""


@dataclass(frozen=True, slots=True)
class StateConfig:
    """An output of the model that becomes an input of the sequence's next request."""

    input: TensorConfig
    output: TensorConfig
    initial: Array = field(compare=False)
    """What it is when a sequence starts; shaped as one row where the model batches."""


@dataclass(frozen=True, slots=True)
class SequenceBatching:
    """How requests of sequences are combined."""

    max_idle_us: int
    """A sequence that is silent for so long is over."""
    controls: tuple[ControlConfig, ...]
    states: tuple[StateConfig, ...]
    slots: int
    """Sequences that one instance serves at a time."""
    fixed_slots: bool
    """Whether each sequence has a row of its own in every batch (direct), or batches take who is there (oldest)."""
    min_ready: int = 0
    """Requests that are worth running before the delay is over; 0: by `preferred_batch_sizes`."""
    max_queue_delay_us: int = 0
    preferred_batch_sizes: tuple[int, ...] = ()
    preserve_ordering: bool = False
    """Whether no request of an instance may overtake another that could run as well."""


class Fill(Enum):
    """Where a warm-up input's data come from."""

    ZERO = "zero_data"
    RANDOM = "random_data"
    FILE = "input_data_file"


@dataclass(frozen=True, slots=True)
class WarmupInput:
    """One input of a warm-up sample."""

    name: str
    datatype: DataType
    dims: tuple[int, ...]
    """As callers state it, without the batch axis; no free dimension."""
    fill: Fill
    filename: str = ""
    """In the model's folder `warmup`, where the fill is FILE."""


@dataclass(frozen=True, slots=True)
class WarmupSample:
    """A batch that must run well before a version may serve."""

    name: str
    batch_size: int
    """Requests in the batch, all alike."""
    inputs: tuple[WarmupInput, ...]
    count: int = 1
    """How often it runs."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A way to run on a GPU, with its options as the configuration gives them."""

    name: str
    """cuda or tensorrt."""
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EnsembleStep:
    """One call of a model inside an ensemble."""

    model: str
    version: int | None
    """None: the latest."""
    inputs: tuple[tuple[str, str], ...]
    """The model's input, and the ensemble's tensor that it gets."""
    outputs: tuple[tuple[str, str], ...]
    """The model's output, and the ensemble's tensor that it becomes."""


@dataclass(frozen=True, slots=True)
class EnsembleSchedule:
    """The pipeline of models that is served as one."""

    steps: tuple[EnsembleStep, ...]
    max_inflight_requests: int = 0
    """Requests that may be at one step at a time; 0: any number."""

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models, each once."""
        return tuple(dict.fromkeys(step.model for step in self.steps))


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What a configuration decides before any model file is opened."""

    version_policy: VersionPolicy
    model_filename: str
    instance_count: int
    """Lanes in all groups together, on each device. 1 by default, where Triton takes 2 on a CPU: the lanes share the
    machine's cores, and one batch may use them all."""
    device_kind: DeviceKind
    gpus: tuple[int, ...]
    """Empty: all of them, where the kind is GPU."""
    graph_optimization_level: int | None
    """Triton's numbers: -1 basic, 1 extended, 2 none; None optimises fully."""
    parameters: Mapping[str, str]
    op_libraries: tuple[str, ...] = ()
    """Files with operators of the model's own, relative to the model's folder."""

    accelerators: tuple[Accelerator, ...] = ()
    cuda_graphs: bool = False
    """Whether a GPU replays one recording per batch size, which costs the processor next to nothing."""
    pinned_memory: bool = True
    """Whether inputs for a GPU are staged in page-locked memory."""
    ensemble: EnsembleSchedule | None = None
    """None: the model has a file of its own."""

    @property
    def accelerator_names(self) -> frozenset[str]:
        """Those of `accelerators`."""
        return frozenset(accelerator.name for accelerator in self.accelerators)

    @property
    def share_session(self) -> bool:
        """Whether all instances of a device run on one session, so that the weights are in memory once.

        By default they do but where a session runs one batch at a time anyway: TensorRT's holds a lock while it runs,
        and a session with CUDA graphs has one stream.
        """
        default = "false" if self.cuda_graphs or "tensorrt" in self.accelerator_names else "true"
        return self.parameters.get("share_session", default) == "true"


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
    pad_to_bucket: bool | None = None
    """Whether batches are filled up to the sizes that were measured; None: where the session wants fixed shapes."""
    warmup: tuple[WarmupSample, ...] = ()
    sequence: SequenceBatching | None = None
    """How requests of sequences are combined; None: the model keeps nothing from one request to the next."""
    preprocessing: ImagePreprocessing | None = None
    """How pictures become one of the inputs; None: the model takes none."""
    response_cache: bool = False
    """Whether answers are kept, where the server has a cache."""

    @property
    def run_timeout_ms(self) -> int | None:
        """Milliseconds that a run may take, 0: as many as it likes; None: what the server's flag says."""
        text = self.load.parameters.get("run_timeout_ms")
        return None if text is None else int(text)

    @property
    def fail_on_nan(self) -> bool:
        """Whether a request whose outputs hold NaN fails."""
        return self.load.parameters.get("fail_on_nan") == "true"
