"""The two loops: `play` sends at the times of a schedule, `play_queries` the next as soon as the last is answered."""

from __future__ import annotations

import time
from bisect import bisect_right
from pathlib import Path

import numpy as np

from loadtest.errors import LoadTestError
from loadtest.open_loop.clients import Clients, Ended
from loadtest.open_loop.outcome import Booleans, Floats, Outcome
from loadtest.open_loop.traffic import Traffic
from loadtest.simulation.arrivals import RandomArrivals

_SLACK = Path("/proc/self/timerslack_ns")


MOST_REQUESTS = 10_000_000
"""Of one schedule: each takes some 100 bytes of the generator's memory."""


def poisson(rate: float, seconds: float, seed: int) -> Floats:
    """Arrivals of a Poisson process of `rate` per second, in seconds from its beginning. Equal seeds are equal.

    This and the other schedules raise LoadTestError where they would have more than MOST_REQUESTS.
    """
    _require_few(rate * seconds)
    arrivals = RandomArrivals(np.array([0.0, seconds]), np.array([0.0, rate * seconds]), seed)
    return np.concatenate([np.empty(0), *(times for times, _ in arrivals.blocks())])


def constant(rate: float, seconds: float) -> Floats:
    """Arrivals at equal distances."""
    _require_few(rate * seconds)
    return np.arange(int(rate * seconds)) / rate


def at_once(count: int) -> Floats:
    """All at the beginning."""
    _require_few(count)
    return np.zeros(count)


def play(traffic: Traffic, due: Floats, *, seconds: float, patience: float, in_flight: int | None = None) -> Outcome:
    """Sends `traffic` at the times `due` (in seconds from the beginning, ascending) over connections of its own.

    An open loop: a request is sent at its time, whatever became of those before. `patience` seconds after `seconds`,
    the length of the schedule, what has not ended is given up. No more than `in_flight` are under way at a time, where
    that is given, and no more than the connections allow: what has to wait for that is marked in the outcome.
    LoadTestError where there is no server, or none any longer.
    """
    with Clients(traffic) as clients:
        return play_on(clients, time.perf_counter(), due=due, seconds=seconds, patience=patience, in_flight=in_flight)


def play_on(
    clients: Clients, began: float, *, due: Floats, seconds: float, patience: float, in_flight: int | None = None
) -> Outcome:
    """The same over given connections. The schedule begins at `began`, on `time.perf_counter`."""
    take_timers_exactly()
    clock = time.perf_counter
    times: list[float] = due.tolist()
    total, most = len(times), in_flight or len(times)
    sent_at, ended_at = np.full(total, np.inf), np.full(total, np.inf)
    answered, held_back = np.zeros(total, np.bool_), np.zeros(total, np.bool_)
    sent = over = 0
    blocked = False
    give_up = seconds + patience
    ran_from, cpu_from = clock(), time.thread_time()
    while over < total and (now := clock() - began) < give_up:
        if sent < total and times[sent] <= now:
            ready = bisect_right(times, now, sent)
            first, sent = sent, clients.send(sent, min(ready, over + most))
            sent_at[first:sent] = now
            held_back[first if blocked else sent : ready] = True
        blocked = sent < total and not (sent - over < most and clients.have_room)
        until = give_up if blocked or sent == total else min(times[sent], give_up)
        ended = clients.wait(until - (clock() - began))
        if ended.answered or ended.failed:
            _note(ended, clock() - began, ended_at, answered)
            over += len(ended.answered) + len(ended.failed)
    if blocked:
        held_back[sent:] = due[sent:] <= now
    cpu_seconds = time.thread_time() - cpu_from
    return Outcome(
        due=due,
        sent=sent_at,
        ended=ended_at,
        answered=answered,
        held_back=held_back,
        seconds=seconds,
        patience=patience,
        cpu_shares=(cpu_seconds / max(clock() - ran_from, 1e-9),),
        cpu_seconds=cpu_seconds,
    )


def play_queries(traffic: Traffic, *, seconds: float, patience: float, samples: int = 1) -> Outcome:
    """A closed loop: queries of `samples` requests, each sent as soon as the last is answered whole, for `seconds`.

    A request is due when it is sent. Those of query i are i × samples and following. A query that is not answered in
    `patience` seconds ends the run.
    """
    with Clients(traffic) as clients:
        return play_queries_on(clients, time.perf_counter(), seconds=seconds, patience=patience, samples=samples)


def play_queries_on(clients: Clients, began: float, *, seconds: float, patience: float, samples: int = 1) -> Outcome:
    """The same over given connections."""
    clock = time.perf_counter
    due: list[float] = []
    endings: list[tuple[Ended, float]] = []
    now, missing = clock() - began, 0
    cpu_from = time.thread_time()
    while now < seconds and not missing:
        if clients.send(len(due), len(due) + samples) < len(due) + samples:
            raise LoadTestError(f"the connections do not take {samples} requests at a time: use more of them")
        due += [now] * samples
        missing, give_up = samples, now + patience
        while missing and (now := clock() - began) < give_up:
            ended = clients.wait(give_up - now)
            now = clock() - began
            endings.append((ended, now))
            missing -= len(ended.answered) + len(ended.failed)
    cpu_seconds = time.thread_time() - cpu_from
    ended_at, answered = np.full(len(due), np.inf), np.zeros(len(due), np.bool_)
    for ended, when in endings:
        _note(ended, when, ended_at, answered)
    return Outcome(
        due=np.array(due),
        sent=np.array(due),
        ended=ended_at,
        answered=answered,
        held_back=np.zeros(len(due), np.bool_),
        seconds=seconds,
        patience=patience,
        cpu_shares=(cpu_seconds / max(now, 1e-9),),
        cpu_seconds=cpu_seconds,
    )


def take_timers_exactly() -> None:
    """Have Linux wake this thread when it asked for, not up to 50 µs later; where it does not let us, so be it."""
    try:
        _SLACK.write_text("1")
    except OSError:
        return


def _require_few(requests: float) -> None:
    if requests > MOST_REQUESTS:
        raise LoadTestError(f"{requests:,.0f} requests in one run are more than {MOST_REQUESTS:,}: use a shorter one")


def _note(ended: Ended, when: float, ended_at: Floats, answered: Booleans) -> None:
    ended_at[ended.answered] = when
    answered[ended.answered] = True
    ended_at[ended.failed] = when
