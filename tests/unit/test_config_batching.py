"""config.pbtxt's dynamic_batching: levels, policies, order and the parameters that belong to them."""

from __future__ import annotations

import pytest

from server.models.config import QueuePolicy, WindowBatching
from tests.unit.test_config import TENSORS, configure, refusal

BATCHING: dict[str, tuple[str, WindowBatching]] = {
    "nothing": ("", WindowBatching()),
    "levels take the default policy": (
        (
            "priority_levels: 2 default_priority_level: 2 "
            "default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5 }"
        ),
        WindowBatching(levels=(QueuePolicy(default_timeout_us=5, delay=True),) * 2, default_level=2),
    ),
    "a level's own policy replaces the default one": (
        (
            "priority_levels: 2 default_priority_level: 1 default_queue_policy { default_timeout_microseconds: 5 } "
            "priority_queue_policy { key: 2 value { max_queue_size: 7 allow_timeout_override: true } }"
        ),
        WindowBatching(levels=(QueuePolicy(default_timeout_us=5), QueuePolicy(7, allow_timeout_override=True))),
    ),
    "one level may be said": ("priority_levels: 1 default_priority_level: 1", WindowBatching()),
    "order": ("preserve_ordering: true", WindowBatching(preserve_ordering=True)),
    "order of one level": (
        "preserve_ordering: true priority_levels: 1 default_priority_level: 1",
        WindowBatching(preserve_ordering=True),
    ),
}


@pytest.mark.parametrize(("text", "expected"), BATCHING.values(), ids=BATCHING)
def test_dynamic_batching_is_read(text: str, expected: WindowBatching) -> None:
    assert configure(f"{TENSORS} max_batch_size: 4 dynamic_batching {{ {text} }}").batching == expected


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def test_aging_is_read() -> None:
    levels = "dynamic_batching { priority_levels: 2 default_priority_level: 1 }"
    config = configure(f"{TENSORS} max_batch_size: 4 {levels} {parameter('priority_aging_ms', '250')}")
    assert config.batching
    assert config.batching.aging_us == 250_000


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("false", False)])
@pytest.mark.parametrize("batching", ["", "dynamic_batching {}"])
def test_split_oversize_is_read(value: str, expected: bool, batching: str) -> None:
    config = configure(f"{TENSORS} max_batch_size: 4 {batching} {parameter('split_oversize', value)}")
    assert config.split_oversize is expected


@pytest.mark.parametrize(("value", "expected"), [("30", 30.0), ("2.5", 2.5)])
def test_an_objective_is_read(value: str, expected: float) -> None:
    assert configure(f"{TENSORS} max_batch_size: 4 {parameter('slo_ms', value)}").objective_ms == expected


def test_an_objective_means_that_requests_are_batched() -> None:
    assert configure(f"{TENSORS} max_batch_size: 4 {parameter('slo_ms', '30')}").batching == WindowBatching()


REFUSALS: dict[str, tuple[str, str]] = {
    "levels without a default": (
        "dynamic_batching { priority_levels: 2 }",
        "'dynamic_batching.default_priority_level' must be 1 to priority_levels, which is 2, not 0",
    ),
    "a default above the levels": (
        "dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
        "'dynamic_batching.default_priority_level' must be 1 to priority_levels, which is 2, not 3",
    ),
    "a default without levels": (
        "dynamic_batching { default_priority_level: 1 }",
        "'dynamic_batching.default_priority_level' needs priority_levels",
    ),
    "too many levels": (
        "dynamic_batching { priority_levels: 18446744073709551615 default_priority_level: 1 }",
        "'dynamic_batching.priority_levels' must be 0 to 1000, not 18446744073709551615",
    ),
    "a policy of level 0": (
        "dynamic_batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 0 value {} } }",
        "'dynamic_batching.priority_queue_policy[0]' is of no level",
    ),
    "a policy above the levels": (
        "dynamic_batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 value {} } }",
        "'dynamic_batching.priority_queue_policy[3]' is of no level: priority_levels is 2",
    ),
    "a policy without levels": (
        "dynamic_batching { priority_queue_policy { key: 1 value {} } }",
        "'dynamic_batching.priority_queue_policy[1]' is of no level: priority_levels is 0",
    ),
    "order and levels": (
        "dynamic_batching { preserve_ordering: true priority_levels: 2 default_priority_level: 1 }",
        "'dynamic_batching.preserve_ordering' cannot go with more than one of priority_levels",
    ),
    "order and DELAY": (
        "dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY } }",
        "'dynamic_batching.default_queue_policy.timeout_action' cannot be DELAY with preserve_ordering",
    ),
    "order and a level's DELAY": (
        (
            "dynamic_batching { preserve_ordering: true priority_levels: 1 default_priority_level: 1 "
            "priority_queue_policy { key: 1 value { timeout_action: DELAY } } }"
        ),
        "'dynamic_batching.priority_queue_policy[1].timeout_action' cannot be DELAY with preserve_ordering",
    ),
    "aging of one level": (
        f"dynamic_batching {{}} {parameter('priority_aging_ms', '5')}",
        "'parameters['priority_aging_ms']' needs dynamic_batching.priority_levels of at least 2",
    ),
    "aging without batching": (
        parameter("priority_aging_ms", "5"),
        "'parameters['priority_aging_ms']' needs dynamic_batching.priority_levels of at least 2",
    ),
    "aging backwards": (parameter("priority_aging_ms", "-5"), "must be an integer from 0 to 2147483647, not '-5'"),
    "an objective of nothing": (parameter("slo_ms", "0"), "must be a number above 0, like 30 or 2.5, not '0'"),
    "an objective that is no number": (
        parameter("slo_ms", "1e3"),
        "must be a number above 0, like 30 or 2.5, not '1e3'",
    ),
    "an objective and a delay": (
        f"dynamic_batching {{ max_queue_delay_microseconds: 5 }} {parameter('slo_ms', '5')}",
        "'dynamic_batching.max_queue_delay_microseconds' cannot go with parameters['slo_ms']",
    ),
    "an objective and preferred sizes": (
        f"dynamic_batching {{ preferred_batch_size: 2 }} {parameter('slo_ms', '5')}",
        "'dynamic_batching.preferred_batch_size' cannot go with parameters['slo_ms']",
    ),
    "an objective and order": (
        f"dynamic_batching {{ preserve_ordering: true }} {parameter('slo_ms', '5')}",
        "'dynamic_batching.preserve_ordering' cannot go with parameters['slo_ms']",
    ),
    "an objective and DELAY": (
        f"dynamic_batching {{ default_queue_policy {{ timeout_action: DELAY }} }} {parameter('slo_ms', '5')}",
        "'dynamic_batching.default_queue_policy.timeout_action' cannot go with parameters['slo_ms']",
    ),
    "an objective and aging": (
        (
            "dynamic_batching { priority_levels: 2 default_priority_level: 1 } "
            f"{parameter('slo_ms', '5')} {parameter('priority_aging_ms', '5')}"
        ),
        "'parameters['priority_aging_ms']' cannot go with parameters['slo_ms']",
    ),
    "a split of neither": (parameter("split_oversize", "1"), "must be true or false, not '1'"),
}


@pytest.mark.parametrize(("text", "problem"), REFUSALS.values(), ids=REFUSALS)
def test_the_impossible_is_refused_with_file_and_field(text: str, problem: str) -> None:
    message = refusal(f"{TENSORS} max_batch_size: 4 {text}")
    assert message.startswith("m/config.pbtxt: field '")
    assert problem in message


def test_a_model_without_a_batch_axis_cannot_split() -> None:
    message = refusal(f"{TENSORS} {parameter('split_oversize', 'true')}")
    assert "field 'parameters['split_oversize']' needs max_batch_size of at least 1" in message


@pytest.mark.parametrize(("text", "expected"), [("", False), ("false", False), ("true", True)])
def test_fail_on_nan_is_read(text: str, expected: bool) -> None:
    assert configure(f"{TENSORS} {parameter('fail_on_nan', text) if text else ''}").fail_on_nan is expected


def test_fail_on_nan_needs_an_output_that_can_be_nan() -> None:
    message = refusal(f"{TENSORS.replace('FP32 dims: [ 2 ]', 'INT32 dims: [ 2 ]')} {parameter('fail_on_nan', 'true')}")
    assert message == (
        "m/config.pbtxt: field 'parameters['fail_on_nan']' needs an output of FP16, FP32, FP64 or BF16; remove it"
    )
