"""The loops in processes of their own: a generator has a core to itself, and several share a schedule."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess

from loadtest.errors import LoadTestError
from loadtest.open_loop.clients import Clients
from loadtest.open_loop.outcome import Floats, Outcome, merged
from loadtest.open_loop.player import play_on, play_queries_on
from loadtest.open_loop.traffic import Traffic

_RATE_PER_PROCESS = 15_000.0
"""Requests per second that one process is trusted with."""
_START_SECONDS = 60.0
_GRACE_SECONDS = 30.0
_HEAD_START_SECONDS = 0.05
"""For the word to reach all processes before the schedule begins."""

Loop = Callable[[Clients, float], Outcome]


def processes_for(rate: float) -> int:
    """As many as `rate` requests per second demand, and no more than there are cores for."""
    return max(1, min(ceil(rate / _RATE_PER_PROCESS), len(os.sched_getaffinity(0))))


def play_apart(
    traffic: Traffic, due: Floats, *, seconds: float, patience: float, in_flight: int | None = None, processes: int = 1
) -> Outcome:
    """As `play`, by so many processes, each with connections of its own: every n-th request is the n-th's.

    `in_flight` is shared out.
    """
    most = None if in_flight is None else max(1, in_flight // processes)
    loops = [
        partial(play_on, due=due[first::processes], seconds=seconds, patience=patience, in_flight=most)
        for first in range(processes)
    ]
    return _run(traffic, loops, seconds + patience)


def play_queries_apart(traffic: Traffic, *, seconds: float, patience: float, samples: int = 1) -> Outcome:
    """As `play_queries`, in a process."""
    loop = partial(play_queries_on, seconds=seconds, patience=patience, samples=samples)
    return _run(traffic, [loop], seconds + patience)


def _run(traffic: Traffic, loops: Sequence[Loop], seconds: float) -> Outcome:
    # Started afresh, not forked: the parent has grpcio's threads.
    context = multiprocessing.get_context("spawn")
    pipes: list[Pipe] = []
    processes: list[BaseProcess] = []
    try:
        for loop in loops:
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=_generate, args=(theirs, traffic, loop), daemon=True))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)
        for pipe in pipes:
            _take(pipe, _START_SECONDS)
        began = time.perf_counter() + _HEAD_START_SECONDS
        for pipe in pipes:
            pipe.send(began)
        outcomes = [_take(pipe, seconds + _GRACE_SECONDS) for pipe in pipes]
        return merged([outcome for outcome in outcomes if outcome is not None])
    finally:
        for process in processes:
            process.terminate()
            process.join()
        for pipe in pipes:
            pipe.close()


def _take(pipe: Pipe, seconds: float) -> Outcome | None:
    """What a process says next: None for its readiness, an outcome, or an error, which is raised."""
    try:
        said = pipe.recv() if pipe.poll(seconds) else LoadTestError(f"a generator said nothing for {seconds:.0f} s")
    except EOFError:
        said = LoadTestError("a generator's process ended early, see above")
    if isinstance(said, LoadTestError):
        raise said
    taken: Outcome | None = said
    return taken


def _generate(pipe: Pipe, traffic: Traffic, loop: Loop) -> None:
    """A process of the generator. `perf_counter` is one clock for all processes of a Linux machine."""
    # Ctrl-C reaches all processes of a terminal: the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Clients(traffic) as clients:
            gc.disable()
            pipe.send(None)
            pipe.send(loop(clients, pipe.recv()))
    except LoadTestError as error:
        pipe.send(error)
