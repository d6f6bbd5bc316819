"""What a configuration decides, and what may be tried next to it."""

import pytest
from google.protobuf import text_format

from loadtest.errors import LoadTestError
from loadtest.tune.candidates import (
    Alone,
    Axis,
    Candidate,
    Objective,
    Window,
    apply,
    read_candidate,
    require_tunable,
)
from loadtest.tune.space import Space
from proto.model_config_pb2 import ModelConfig

SERVED = """
max_batch_size: 16
instance_group [ { name: "a" count: 1 kind: KIND_CPU }, { name: "b" count: 2 kind: KIND_CPU } ]
dynamic_batching { priority_levels: 2 default_priority_level: 1 preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 500 }
parameters { key: "intra_op_thread_count" value { string_value: "2" } }
parameters { key: "fail_on_nan" value { string_value: "true" } }
"""
PRESENT = Candidate(3, 2, 16, Window(500, (4, 8)))
PLAIN = Candidate(1, None, 16, Window())


def parsed(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


@pytest.mark.parametrize(
    ("text", "candidate"),
    [
        (SERVED, PRESENT),
        ("max_batch_size: 4", Candidate(1, None, 4, Alone())),
        ("max_batch_size: 4 dynamic_batching { }", Candidate(1, None, 4, Window())),
        ("", Candidate(1, None, 0, Alone())),
        (
            """max_batch_size: 4 dynamic_batching { } parameters { key: "slo_ms" value { string_value: "2.5" } }
            parameters { key: "pad_to_bucket" value { string_value: "true" } }""",
            Candidate(1, None, 4, Objective(2.5), pad_to_bucket=True),
        ),
    ],
)
def test_a_candidate_is_read_from_a_configuration(text: str, candidate: Candidate) -> None:
    assert read_candidate(parsed(text)) == candidate


@pytest.mark.parametrize(
    "wanted",
    [
        Candidate(1, 1, 8, Window()),
        Candidate(2, None, 32, Window(100)),
        Candidate(3, 2, 16, Objective(7.5), pad_to_bucket=True),
        Candidate(3, 4, 1, Alone()),
    ],
)
def test_a_configuration_says_what_was_applied_to_it(wanted: Candidate) -> None:
    changed = apply(parsed(SERVED), PRESENT, wanted)

    assert read_candidate(changed) == wanted
    assert changed.parameters["fail_on_nan"].string_value == "true"
    assert not changed.HasField("dynamic_batching") or changed.dynamic_batching.priority_levels == 2


def test_an_ensemble_is_refused_with_the_models_that_can_be_tuned() -> None:
    steps = "".join(f'step {{ model_name: "{name}" }}' for name in ("b", "a", "b"))
    config = text_format.Parse(f"ensemble_scheduling {{ {steps} }}", ModelConfig())

    with pytest.raises(LoadTestError, match=r"'chain' is an ensemble.* tune a, b"):
        require_tunable("chain", config)
    require_tunable("m", ModelConfig())


def test_settings_that_do_not_change_are_not_written() -> None:
    assert apply(ModelConfig(), PLAIN, PLAIN) == ModelConfig()
    assert apply(parsed(SERVED), PRESENT, PRESENT) == parsed(SERVED)


def test_an_objective_takes_the_place_of_delay_and_preferred_sizes_and_gives_it_back() -> None:
    present = Candidate(3, 2, 16, Objective(5.0))
    with_objective = apply(parsed(SERVED), PRESENT, present)

    assert with_objective.dynamic_batching.max_queue_delay_microseconds == 0
    assert not with_objective.dynamic_batching.preferred_batch_size
    assert apply(with_objective, present, PRESENT) == parsed(SERVED)


def lanes(candidate: Candidate, cores: int) -> set[tuple[int, int | None]]:
    space = Space(cores, rows=1, in_flight=8, p99_ms=None)
    return {(one.instances, one.threads) for one in space.neighbours(Axis.LANES, candidate, 1.0)}


def test_lanes_trade_threads_for_instances_and_the_servers_default_stays_one() -> None:
    assert lanes(Candidate(1, None, 8, Window()), 2) == {(1, 1), (2, None), (2, 2)}
    assert lanes(Candidate(1, 1, 8, Window()), 2) == {(1, 2), (2, 1)}
    assert lanes(Candidate(2, 1, 8, Window()), 2) == {(1, 2), (2, 2), (1, 1)}
    assert lanes(Candidate(2, 4, 8, Window()), 8) == {(4, 2), (1, 8), (2, 8), (2, 2), (4, 4), (1, 4)}
    assert lanes(Candidate(1, 1, 8, Window()), 1) == set()


@pytest.mark.parametrize(
    ("size", "in_flight", "rows", "sizes"),
    [
        (16, 64, 1, [32, 8]),
        (64, 64, 1, [32]),
        (64, 8, 1, [8]),
        (8, 8, 4, [16, 4]),
        (4, 8, 4, [8]),
        (12, 64, 1, [16, 8]),
        (1, 1, 1, []),
        (256, None, 1, [128]),
    ],
)
def test_batches_double_and_halve_between_a_request_and_all_in_flight(
    size: int, in_flight: int | None, rows: int, sizes: list[int]
) -> None:
    space = Space(2, rows, in_flight, p99_ms=None)
    steps = space.neighbours(Axis.MAX_BATCH_SIZE, Candidate(1, 1, size, Window()), 1.0)
    assert [step.max_batch_size for step in steps] == sizes


def test_delays_are_shares_of_what_a_request_may_take_and_an_objective_needs_a_promise() -> None:
    candidate = Candidate(2, 1, 16, Window())
    promised = Space(2, rows=1, in_flight=8, p99_ms=10.0).neighbours(Axis.BATCHING, candidate, 3.0)
    free = Space(2, rows=1, in_flight=8, p99_ms=None).neighbours(Axis.BATCHING, candidate, 3.0)

    delays = [Window(1000), Window(2500), Window(5000)]
    assert [one.batching for one in promised] == [*delays, Window(5000, (4,)), Objective(9), Objective(7)]
    assert [one.batching for one in free] == [Window(300), Window(750), Window(1500), Window(1500, (4,))]


def test_what_is_kept_or_not_there_is_no_axis() -> None:
    batching = Candidate(1, 1, 8, Window())
    assert Space(2, 1, 8, None).axes(batching) == [*Axis]
    assert Space(2, 1, 8, None, frozenset({Axis.LANES, Axis.PADDING})).axes(batching) == [
        Axis.MAX_BATCH_SIZE,
        Axis.BATCHING,
    ]
    assert Space(2, 1, 8, None).axes(Candidate(1, 1, 0, Alone())) == [Axis.LANES]
