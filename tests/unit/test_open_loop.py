"""Poisson arrivals, and the frames that they travel in."""

from itertools import pairwise

import pytest

from loadtest import http2_frames as http2
from loadtest.open_loop import poisson


def test_frames_that_are_not_whole_yet_are_left_alone() -> None:
    data = http2.frame(http2.DATA, http2.END_STREAM, 3, b"12345") + http2.frame(http2.PING, 0, 0, b"12345678")

    assert [*http2.frames(data[:-1])] == [(http2.DATA, http2.END_STREAM, 3, 9, 14)]
    assert [kind for kind, *_ in http2.frames(data)] == [http2.DATA, http2.PING]


def test_a_request_is_cut_into_frames_of_its_stream() -> None:
    request = http2.Request(b"x" * 25, max_frame_size=10)
    request.on(1)
    data = bytes(request.on(7))

    assert [(kind, stream, end - begin) for kind, _, stream, begin, end in http2.frames(data)][1:] == [
        (http2.DATA, 7, 10),
        (http2.DATA, 7, 10),
        (http2.DATA, 7, 5),
    ]
    assert [flags for kind, flags, *_ in http2.frames(data) if kind == http2.DATA] == [0, 0, http2.END_STREAM]


def test_poisson_arrivals_ascend_and_equal_seeds_are_equal() -> None:
    times = poisson(1_000, 2.0, seed=3)

    assert times == poisson(1_000, 2.0, seed=3) != poisson(1_000, 2.0, seed=4)
    assert len(times) == pytest.approx(2_000, rel=0.1)
    assert all(one <= other for one, other in pairwise(times))
    assert times[0] > 0 and times[-1] < 2.0
