"""The command line of `python -m loadtest run`."""

from __future__ import annotations

import argparse
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.flag_values import address, count, positive
from loadtest.run import LoadTest, run
from loadtest.swarm.flags import NO_SHAPE, add_flags, shapes_of
from loadtest.swarm.mix import parse_models

USER_CLASSES = ("GrpcUser", "GrpcStreamUser", "RestUser")
DEFAULT_P99_MS = 250.0
_DEFAULT_SECONDS = 60


def add_run_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add `run` to the commands of a parser."""
    parser = commands.add_parser(
        "run",
        parents=[common],
        help="Locust users on a server, a report and a verdict",
        description="Puts Locust's users on a server and judges p99, errors and counts. docs/loadtest.md explains it.",
    )
    parser.add_argument(
        "user_classes",
        type=_user_class,
        nargs="*",
        metavar="USER_CLASS",
        help=f"of {', '.join(USER_CLASSES)}: who sends (default: {USER_CLASSES[0]})",
    )
    parser.add_argument(
        "--url",
        type=address,
        metavar="HOST:PORT",
        help="gRPC address of a running server (default: start a fresh one)",
    )
    parser.add_argument("--users", type=count, default=64, help="clients with one request in flight each (%(default)s)")
    parser.add_argument(
        "--spawn-rate", type=positive, help="users started or stopped per second (default: all at once)"
    )
    parser.add_argument(
        "--seconds", type=count, help=f"how long ({_DEFAULT_SECONDS}; soak: an hour; ramp-to-failure: its levels)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes that send, beside one that directs (0: one does both)",
    )
    add_flags(parser, p99_ms=DEFAULT_P99_MS)


def run_load(arguments: argparse.Namespace) -> bool:
    """Carries out `run`. Returns whether every limit was kept; raises LoadTestError where a flag makes no sense."""
    _check(arguments)
    seconds = arguments.seconds
    if seconds is None and arguments.load_shape == NO_SHAPE:
        seconds = _DEFAULT_SECONDS
    return run(
        LoadTest(
            flags=arguments,
            user_classes=tuple(arguments.user_classes),
            users=arguments.users,
            spawn_rate=arguments.spawn_rate or arguments.users,
            seconds=seconds,
            workers=arguments.workers,
            url=arguments.url,
            model_repository=arguments.model_repository,
            out=arguments.out or Path("runs/load"),
        )
    )


def _check(arguments: argparse.Namespace) -> None:
    try:
        parse_models(arguments.model)
        shapes_of(arguments.shape)
    except ValueError as error:
        raise LoadTestError(str(error)) from error
    if arguments.shape and arguments.samples:
        raise LoadTestError("--shape is for random values: --samples have their own shapes")
    if arguments.workers < 0:
        raise LoadTestError(f"--workers {arguments.workers}: must not be negative")
    if "RestUser" in arguments.user_classes and arguments.url and not arguments.http_host:
        raise LoadTestError("RestUser on a running server needs --http-host too: --url is where its gRPC is")


def _user_class(text: str) -> str:
    if text not in USER_CLASSES:
        raise argparse.ArgumentTypeError(f"'{text}' is not one of {', '.join(USER_CLASSES)}")
    return text
