"""Inference requests from Locust's users, over gRPC (unary and streamed) or HTTP v2: docs/loadtest.md has the flags.

    locust -f loadtest/locustfile.py --host H:8001 --model lenet5            a page on port 8089
    locust -f loadtest/locustfile.py --headless --users 64 --spawn-rate 64 --run-time 60s --host H:8001 GrpcStreamUser

Without a class on the command line, and without `--class-picker`, all users are of GrpcUser. Latencies are recorded in
microseconds, beside Locust's rounded ones.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import gevent
from locust import events, stats
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import Runner, WorkerRunner

from loadtest.swarm import flags, reports
from loadtest.swarm.latencies import total
from loadtest.swarm.levels import Book, describe, ramp_check
from loadtest.swarm.page import add_page
from loadtest.swarm.recording import Recording, options_of, runner_of
from loadtest.swarm.shapes import PlannedShape, RampToFailure, Soak, Spike, Steps
from loadtest.swarm.users import CANNOT_RUN, GrpcStreamUser, GrpcUser, InferenceUser, RestUser
from loadtest.verdict import CLOSED_LOOP, Limits, limit_checks

__all__ = ["GrpcStreamUser", "GrpcUser", "RampToFailure", "RestUser", "Soak", "Spike", "Steps"]

_recording = Recording()


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_flags(parser: LocustArgumentParser, **_: Any) -> None:
    flags.add_flags(parser, include_in_web_ui=False)
    parser.add_argument(
        "--latencies",
        default="",
        metavar="PREFIX",
        help="where to write percentiles and distributions in microseconds: PREFIX_percentiles.csv, PREFIX_*.hgrm, ...",
        include_in_web_ui=False,
    )


@events.init.add_listener  # type: ignore[untyped-decorator]
def set_up(environment: Environment, runner: Runner, web_ui: Any, **_: Any) -> None:
    """Chooses users and shape as the flags say, and has everything recorded."""
    options = options_of(environment)
    # A worker has all classes ready: its master says of which there are users.
    if not options.class_picker and not isinstance(runner, WorkerRunner):
        if not options.user_classes:
            environment.user_classes = [GrpcUser]
        chosen = (shape for shape in _shapes(environment) if shape.name == options.load_shape)
        environment.shape_class = next(chosen, None)
    _recording.attach(environment)
    for shape in _shapes(environment):
        shape.recording, shape.runner = _recording, runner
    environment.events.test_start.add_listener(_forget_workloads)
    if not isinstance(runner, WorkerRunner):
        environment.events.test_stop.add_listener(_end_shape)
        runner.register_message(CANNOT_RUN, _give_up)
    if web_ui is not None:
        add_page(environment, _recording)
    # gevent's timers count from when its loop last looked at the clock, before all these imports: --run-time is one.
    gevent.get_hub().loop.update_now()


def _shapes(environment: Environment) -> list[PlannedShape]:
    available = (environment.available_shape_classes or {}).values()
    return [shape for shape in available if isinstance(shape, PlannedShape)]


def _forget_workloads(environment: Environment, **_: Any) -> None:
    for user_class in environment.user_classes:
        if issubclass(user_class, InferenceUser):
            user_class.forget_workloads()


def _end_shape(environment: Environment, **_: Any) -> None:
    """Says what was measured at each level; called after the recording has ended the last."""
    shape = environment.shape_class
    if not isinstance(shape, PlannedShape):
        return
    shape.forget()
    levels, limits = _recording.book.levels, _limits(environment)
    for level in levels:
        logging.info("%s: %s", "kept" if level.keeps(limits) else "BROKEN", describe(level))
    if isinstance(shape, RampToFailure):
        logging.info("%s", ramp_check(levels, limits).text)


def _give_up(environment: Environment, msg: Any, **_: Any) -> None:
    """Users cannot send anything: no test. Each of them says so; the page stays, for another try."""
    runner = runner_of(environment)
    if environment.process_exit_code == 2:
        return
    logging.error("%s", msg.data)
    if options_of(environment).headless:
        environment.process_exit_code = 2
        gevent.spawn(runner.quit)
    else:
        gevent.spawn(runner.stop)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def conclude(environment: Environment, **_: Any) -> None:
    """Leaves files and an exit code. Registered before the runner's own listener, and so called after it has ended."""
    options, runner = options_of(environment), runner_of(environment)
    if isinstance(runner, WorkerRunner):
        return
    book = _recording.refresh()
    if options.latencies:
        reports.write(Path(options.latencies), book, busy=_was_busy(runner))
    if options.headless and environment.process_exit_code is None and not runner.exceptions:
        _judge(environment, book)
    if options.csv_prefix:
        # Locust writes its CSV files once a second and not at the end: without a pause they lack the last second.
        time.sleep(stats.CSV_STATS_INTERVAL_SEC + 0.1)


def _was_busy(runner: Runner) -> bool:
    """Whether a process that sends used more than Locust's 90 % of a core, of which Locust warns."""
    return bool(runner.cpu_warning_emitted or runner.worker_cpu_warning_emitted)


def _limits(environment: Environment) -> Limits:
    options = options_of(environment)
    return Limits(options.p99_ms, options.max_error_rate)


def _judge(environment: Environment, book: Book) -> None:
    limits = _limits(environment)
    if isinstance(environment.shape_class, RampToFailure):
        checks = [ramp_check(book.levels, limits)]
    else:
        tally = total(book.totals)
        checks = limit_checks(tally.percentile_ms(99), tally.error_rate, limits)
    for check in checks:
        logging.info("%s: %s", "kept" if check.passed else "BROKEN", check.text)
    logging.info("%s", CLOSED_LOOP)
    passed = all(check.passed for check in checks)
    environment.process_exit_code = 0 if passed else options_of(environment).exit_code_on_error
