"""The `dynamic_batching` of config.pbtxt, with the parameters that belong to it. A part of `config`, for its length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from proto import model_config_pb2 as pb
from server.models.config_fields import FieldInvalid
from server.models.config_types import QueuePolicy, WindowBatching

MAX_PRIORITY_LEVELS = 1000
"""More cannot be meant; each level has a queue of its own."""

_DEFAULT_POLICY = "dynamic_batching.default_queue_policy"


def read_batching(message: pb.ModelConfig, parameters: Mapping[str, str]) -> WindowBatching | None:
    """How the model batches; None where it does not. Raises FieldInvalid."""
    aging_us = int(parameters.get("priority_aging_ms", "0")) * 1000
    if aging_us and message.dynamic_batching.priority_levels < 2:
        raise FieldInvalid(
            "parameters['priority_aging_ms']", "needs dynamic_batching.priority_levels of at least 2; set it, or remove"
        )
    if not message.HasField("dynamic_batching"):
        # An objective can only be kept where requests may share batches: it says so for whoever leaves the field out.
        return WindowBatching() if "slo_ms" in parameters and message.max_batch_size else None
    if message.max_batch_size == 0:
        raise FieldInvalid("dynamic_batching", "needs max_batch_size of at least 1; set it or remove dynamic_batching")
    batching = message.dynamic_batching
    for size in batching.preferred_batch_size:
        if not 0 < size <= message.max_batch_size:
            limit = f"1 to max_batch_size, which is {message.max_batch_size}"
            raise FieldInvalid("dynamic_batching.preferred_batch_size", f"must be {limit}, not {size}")
    _check_levels(batching)
    if batching.preserve_ordering:
        _check_order(batching)
    by_level = batching.priority_queue_policy
    levels = range(1, max(1, batching.priority_levels) + 1)
    return WindowBatching(
        preferred_batch_sizes=tuple(batching.preferred_batch_size),
        max_queue_delay_us=batching.max_queue_delay_microseconds,
        levels=tuple(_policy(by_level.get(n, batching.default_queue_policy)) for n in levels),
        default_level=batching.default_priority_level or 1,
        preserve_ordering=batching.preserve_ordering,
        aging_us=aging_us,
    )


def read_objective(message: pb.ModelConfig, parameters: Mapping[str, str]) -> float:
    """The latency objective in milliseconds; 0 where there is none. Raises FieldInvalid."""
    objective_ms = float(parameters.get("slo_ms", "0"))
    if not objective_ms:
        return 0.0
    batching = message.dynamic_batching
    rivals = {
        "dynamic_batching.preferred_batch_size": bool(batching.preferred_batch_size),
        "dynamic_batching.max_queue_delay_microseconds": bool(batching.max_queue_delay_microseconds),
        "dynamic_batching.preserve_ordering": batching.preserve_ordering,
        "parameters['priority_aging_ms']": parameters.get("priority_aging_ms", "0") != "0",
    } | {
        f"{field}.timeout_action": policy.timeout_action == pb.ModelQueuePolicy.DELAY
        for field, policy in _policies(batching)
    }
    for field, given in rivals.items():
        if given:
            raise FieldInvalid(field, "cannot go with parameters['slo_ms'], which decides it; remove one of the two")
    return objective_ms


def read_split_oversize(message: pb.ModelConfig, parameters: Mapping[str, str]) -> bool:
    """Whether requests that are too large for one batch are split. Raises FieldInvalid."""
    wanted = parameters.get("split_oversize", "false") == "true"
    if wanted and message.max_batch_size == 0:
        raise FieldInvalid("parameters['split_oversize']", "needs max_batch_size of at least 1; set it, or remove")
    return wanted


def read_pad_to_bucket(message: pb.ModelConfig, parameters: Mapping[str, str]) -> bool | None:
    """Whether batches are filled up to a bucket; None where the configuration leaves it open. Raises FieldInvalid."""
    text = parameters.get("pad_to_bucket")
    if text == "true" and message.max_batch_size == 0:
        raise FieldInvalid("parameters['pad_to_bucket']", "needs max_batch_size of at least 1; set it, or remove")
    return None if text is None else text == "true"


def _check_levels(batching: pb.ModelDynamicBatching) -> None:
    count, default = batching.priority_levels, batching.default_priority_level
    if count > MAX_PRIORITY_LEVELS:
        raise FieldInvalid("dynamic_batching.priority_levels", f"must be 0 to {MAX_PRIORITY_LEVELS}, not {count}")
    if not count and default:
        raise FieldInvalid("dynamic_batching.default_priority_level", "needs priority_levels; set it, or remove")
    if count and not 1 <= default <= count:
        limit = f"1 to priority_levels, which is {count}"
        raise FieldInvalid("dynamic_batching.default_priority_level", f"must be {limit}, not {default}")
    for level in sorted(batching.priority_queue_policy):
        if not 1 <= level <= count:
            raise FieldInvalid(
                f"dynamic_batching.priority_queue_policy[{level}]",
                f"is of no level: priority_levels is {count}, and the first is 1",
            )


def read_response_cache(message: pb.ModelConfig) -> bool:
    """Whether answers are kept. Raises FieldInvalid where one answer does not stand for itself."""
    if not message.response_cache.enable:
        return False
    for is_set, field in (
        (message.HasField("sequence_batching"), "sequence_batching: answers depend on what came before"),
        (message.model_transaction_policy.decoupled, "model_transaction_policy.decoupled: there is no one answer"),
        (
            message.dynamic_batching.preserve_ordering,
            "dynamic_batching.preserve_ordering: an answer that is at hand waits for none",
        ),
    ):
        if is_set:
            raise FieldInvalid("response_cache.enable", f"cannot go with {field}; remove one of the two")
    return True


def _check_order(batching: pb.ModelDynamicBatching) -> None:
    if batching.priority_levels > 1:
        raise FieldInvalid(
            "dynamic_batching.preserve_ordering", "cannot go with more than one of priority_levels; remove one of them"
        )
    for field, policy in _policies(batching):
        if policy.timeout_action == pb.ModelQueuePolicy.DELAY:
            raise FieldInvalid(f"{field}.timeout_action", "cannot be DELAY with preserve_ordering; remove one of them")


def _policies(batching: pb.ModelDynamicBatching) -> Iterator[tuple[str, pb.ModelQueuePolicy]]:
    """Every queue policy that is given, with the name of its field."""
    yield _DEFAULT_POLICY, batching.default_queue_policy
    for level, policy in sorted(batching.priority_queue_policy.items()):
        yield f"dynamic_batching.priority_queue_policy[{level}]", policy


def _policy(message: pb.ModelQueuePolicy) -> QueuePolicy:
    return QueuePolicy(
        max_queue_size=message.max_queue_size,
        default_timeout_us=message.default_timeout_microseconds,
        allow_timeout_override=message.allow_timeout_override,
        delay=message.timeout_action == pb.ModelQueuePolicy.DELAY,
    )
