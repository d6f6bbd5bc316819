"""Locust's events become a book: each request at once, what workers saw with each of their reports.

A worker sends what it has recorded since its last report, and the master adds it up; in a test of one process, the same
happens whenever somebody looks. Before a master lets its workers go, it has them finish what they are at and report, so
that no request is lost between a client and the tables, neither ours nor Locust's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import gevent
from locust import runners
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner

from loadtest.swarm.latencies import Kind, Tally
from loadtest.swarm.levels import Book

REPORT_SECONDS = 1.0
"""How often a worker reports; Locust's own 3 s are as long as a short level."""

_REPORT = "latencies"
_FINISH, _FINISHED = "finish_and_report", "finished_and_reported"
_POLL_SECONDS = 0.05
# What a worker may need beyond Locust's --stop-timeout, in which its users finish.
_SLACK_SECONDS = 10.0
_HERE = "this process"


def options_of(environment: Environment) -> argparse.Namespace:
    """The command line, as changed on the page since; there is one wherever there is a locustfile."""
    options = environment.parsed_options
    assert isinstance(options, argparse.Namespace), "Locust parses its options before it makes an environment"
    return options


def runner_of(environment: Environment) -> Runner:
    """Whoever directs the test in this process; there is one from Locust's `init` on."""
    assert environment.runner is not None, "Locust makes its runner before it says init"
    return environment.runner


class Recorder:
    """Where users run: what they have seen since it was last taken."""

    def __init__(self, now: float) -> None:
        self._tallies: dict[Kind, Tally] = {}
        self._taken_at = now

    def record(
        self,
        request_type: str,
        name: str,
        response_time: float | None,
        exception: BaseException | str | None = None,
        **_: Any,
    ) -> None:
        """A listener of Locust's `request`."""
        if response_time is not None:
            kind = (request_type, name)
            tally = self._tallies.get(kind)
            if tally is None:
                tally = self._tallies[kind] = Tally()
            tally.record(response_time, failed=exception is not None)

    def take(self, now: float) -> tuple[dict[Kind, Tally], float]:
        """What has been recorded until `now`, and the seconds in which it was."""
        tallies, seconds = self._tallies, now - self._taken_at
        self._tallies, self._taken_at = {}, now
        return tallies, seconds


class Recording:
    """The book of a test. `attach` it to the environment of a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.book = Book()
        self._clock = clock
        self._recorder = Recorder(clock())

    def attach(self, environment: Environment) -> None:
        """Listens to `environment`, whose runner exists."""
        events, runner = environment.events, environment.runner
        events.test_start.add_listener(self._clear)
        events.reset_stats.add_listener(self._clear)
        if isinstance(runner, MasterRunner):
            events.worker_report.add_listener(self._on_worker_report)
            _let_workers_finish(environment, runner)
        else:
            events.request.add_listener(self._recorder.record)
        if isinstance(runner, WorkerRunner):
            events.report_to_master.add_listener(self._on_report_to_master)
            _report_in_time(environment, runner)
        else:
            events.spawning_complete.add_listener(lambda **_: self._users_are_there())
            events.test_stop.add_listener(lambda **_: self.end_level())
        # As Locust's own statistics, with --reset-stats.
        if environment.reset_stats:
            events.spawning_complete.add_listener(self._clear)

    def refresh(self) -> Book:
        """The book with all that has been recorded here."""
        self._refresh()
        return self.book

    def begin_level(self, users: int) -> None:
        """From now on the test wants that many."""
        self.book.begin_level(users, self._refresh())

    def end_level(self) -> None:
        """The test wants something else, or is over."""
        self._refresh()
        self.book.end_level()

    def level_seconds(self) -> float:
        """How long the level has had all its users; 0 before."""
        window = self.book.window
        return max(0.0, self._clock() - window.opened_at) if window else 0.0

    def _refresh(self) -> float:
        """Returns until when the book is complete."""
        now = self._clock()
        tallies, seconds = self._recorder.take(now)
        if tallies:
            self.book.absorb(_HERE, tallies, seconds, now)
        return now

    def _users_are_there(self) -> None:
        self.book.users_are_there(self._refresh())

    def _clear(self, **_: Any) -> None:
        self._recorder.take(self._clock())
        self.book.clear()

    def _on_report_to_master(self, data: dict[str, Any], **_: Any) -> None:
        tallies, seconds = self._recorder.take(self._clock())
        kinds = [{"type": kind[0], "name": kind[1], **tally.as_message()} for kind, tally in tallies.items()]
        data[_REPORT] = {"seconds": seconds, "kinds": kinds}

    def _on_worker_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        report = data[_REPORT]
        tallies = {(kind["type"], kind["name"]): Tally.from_message(kind) for kind in report["kinds"]}
        self.book.absorb(client_id, tallies, report["seconds"], self._clock())


def _report_in_time(environment: Environment, runner: WorkerRunner) -> None:
    """Often enough for a level; at once when one begins, and when the master wants an end."""
    runners.WORKER_REPORT_INTERVAL = REPORT_SECONDS

    def report(**_: Any) -> None:
        data: dict[str, Any] = {}
        environment.events.report_to_master.fire(client_id=runner.client_id, data=data)
        runner.send_message("stats", data)

    def finish(**_: Any) -> None:
        runner.stop()
        report()
        runner.send_message(_FINISHED)

    environment.events.spawning_complete.add_listener(report)
    runner.register_message(_FINISH, finish)


def _let_workers_finish(environment: Environment, runner: MasterRunner) -> None:
    finished: set[str] = set()
    users: dict[str, int] = {}

    def on_finished(msg: Any, **_: Any) -> None:
        finished.add(msg.node_id)

    def at_work() -> set[str]:
        """Workers that live, as far as their heartbeats tell."""
        return {client.id for client in runner.clients.running + runner.clients.spawning}

    def finish(**_: Any) -> None:
        users.update(runner.reported_user_classes_count)
        finished.clear()
        asked = at_work()
        for client_id in asked:
            runner.send_message(_FINISH, client_id=client_id)
        give_up = time.monotonic() + environment.stop_timeout + _SLACK_SECONDS
        while (asked & at_work()) - finished and time.monotonic() < give_up:
            gevent.sleep(_POLL_SECONDS)

    def remember_users(**_: Any) -> None:
        # For the report's ratios, which Locust would count among users that have stopped.
        runner.final_user_classes_count = dict(users)

    runner.register_message(_FINISHED, on_finished)
    environment.events.test_stopping.add_listener(finish)
    environment.events.test_stop.add_listener(remember_users)
