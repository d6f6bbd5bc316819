"""Schedules, the frames that requests travel in, and the arithmetic of what came of them."""

import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from loadtest import http2_frames as http2
from loadtest.errors import LoadTestError
from loadtest.open_loop import GrpcTraffic, Outcome, at_once, constant, poisson, processes_for, quantile
from loadtest.open_loop.outcome import merged
from loadtest.target import INFER

INF = float("inf")


def data_frames(request: bytes) -> list[tuple[int, int, int]]:
    """Stream, flags and length of each DATA frame."""
    return [(stream, flags, end - begin) for kind, flags, stream, begin, end in http2.frames(request) if kind == 0]


def outcome_of(due: list[float], sent: list[float], ended: list[float], answered: list[bool]) -> Outcome:
    return Outcome(
        due=np.array(due),
        sent=np.array(sent),
        ended=np.array(ended),
        answered=np.array(answered),
        held_back=np.zeros(len(due), np.bool_),
        seconds=4.0,
        patience=1.0,
        cpu_shares=(0.5,),
        cpu_seconds=2.0,
    )


def test_frames_that_are_not_whole_yet_are_left_alone() -> None:
    data = http2.frame(http2.DATA, http2.END_STREAM, 3, b"12345") + http2.frame(http2.PING, 0, 0, b"12345678")

    assert [*http2.frames(data[:-1])] == [(http2.DATA, http2.END_STREAM, 3, 9, 14)]
    assert [kind for kind, *_ in http2.frames(data)] == [http2.DATA, http2.PING]


def test_a_request_is_cut_into_frames_of_its_stream() -> None:
    requests = http2.Requests("/a/b", [b"x" * 25], max_frame_size=10)

    cut = [(7, 0, 10), (7, 0, 10), (7, http2.END_STREAM, 5)]
    assert data_frames(bytes(requests.one(7, 0, first=False))) == cut
    assert data_frames(bytes(requests.one(7, 0, first=True))) == cut


def test_many_requests_are_the_same_as_one_after_another() -> None:
    requests = http2.Requests("/a/b", [b"first.", b"second", b"third."], max_frame_size=4)

    one_by_one = b"".join(bytes(requests.one(3 + 2 * i, 5 + i, first=False)) for i in range(4))
    assert requests.many(3, 5, 4).tobytes() == one_by_one


def test_messages_of_different_lengths_are_not_taken() -> None:
    with pytest.raises(ValueError, match="one length"):
        GrpcTraffic("localhost:1", INFER, (b"one", b"three"))


def test_poisson_arrivals_ascend_and_equal_seeds_are_equal() -> None:
    times = poisson(1_000, 2.0, seed=3).tolist()

    assert times == poisson(1_000, 2.0, seed=3).tolist() != poisson(1_000, 2.0, seed=4).tolist()
    assert len(times) == pytest.approx(2_000, rel=0.1)
    assert all(one <= other for one, other in pairwise(times))
    assert times[0] > 0 and times[-1] < 2.0


def test_constant_arrivals_are_at_equal_distances() -> None:
    assert constant(4.0, 1.5).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]


def test_a_schedule_that_no_memory_holds_is_refused_before_it_is_made() -> None:
    for schedule in (
        lambda: poisson(1e9, 1e9, seed=1),
        lambda: constant(1e9, 1e9),
        lambda: at_once(10**18),
    ):
        with pytest.raises(LoadTestError, match="more than 10,000,000"):
            schedule()


def test_a_rate_has_the_processes_that_it_needs_and_the_machine_has_cores_for() -> None:
    assert processes_for(1.0) == processes_for(15_000.0) == 1
    assert processes_for(1e12) == len(os.sched_getaffinity(0))


def test_a_latency_counts_from_the_schedule_whenever_it_was_sent() -> None:
    outcome = outcome_of([1.0, 2.0], [1.0, 2.5], [1.25, 2.75], [True, True])

    assert outcome.latencies_ms.tolist() == [250.0, 750.0]
    assert outcome.latencies_from_sent_ms.tolist() == [250.0, 250.0]
    assert outcome.late_ms.tolist() == [0.0, 500.0]


def test_what_was_held_back_does_not_make_the_generator_late() -> None:
    outcome = outcome_of([1.0, 2.0], [1.5, 2.25], [3.0, 3.0], [True, True])

    assert replace(outcome, held_back=np.array([True, False])).late_ms.tolist() == [250.0]


def test_what_has_no_answer_was_waited_for_until_the_end() -> None:
    outcome = outcome_of([1.0, 2.0, 3.0], [1.0, 2.0, INF], [1.5, 2.25, INF], [True, False, False])

    assert outcome.waits_ms.tolist() == [500.0, 3000.0, 2000.0]
    assert (outcome.refused, outcome.given_up) == (1, 1)


def test_of_what_was_let_in_the_given_up_took_longest() -> None:
    outcome = outcome_of([1.0, 2.0, 3.0], [1.5, 2.0, INF], [2.0, 2.25, INF], [True, False, False])

    assert (outcome.quantile_of_admitted_ms(0.5), outcome.quantile_of_admitted_ms(0.99)) == (1_000.0, INF)
    assert outcome.quantile_of_admitted_ms(0.5, from_sent=True) == 500.0


def test_answers_after_the_schedule_stretch_the_time_they_are_divided_by() -> None:
    assert outcome_of([1.0, 2.0], [1.0, 2.0], [1.5, 3.0], [True, True]).achieved == 2 / 4
    assert outcome_of([1.0, 2.0], [1.0, 2.0], [1.5, 8.0], [True, True]).achieved == 2 / 8
    assert outcome_of([1.0], [1.0], [INF], [False]).achieved == 0.0


def test_what_two_processes_saw_is_one_outcome() -> None:
    one = outcome_of([1.0], [1.0], [1.5], [True])
    other = outcome_of([2.0], [2.0], [INF], [False])
    both = merged([one, other])

    assert (both.scheduled, both.given_up, both.cpu_seconds, both.cpu_shares) == (2, 1, 4.0, (0.5, 0.5))


def test_a_quantile_is_the_smallest_value_that_enough_do_not_exceed() -> None:
    values = np.arange(1.0, 101.0)

    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert quantile(np.empty(0), 0.99) == 0.0
