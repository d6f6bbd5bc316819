"""The flags that Locust and `python -m loadtest run` share, what they mean, and how the one hands them to the other."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import fields
from math import inf
from typing import Any

from loadtest.flag_values import limit, share
from loadtest.payload import Shape, parse_shape
from loadtest.swarm.plans import DEFAULT_SECONDS, Plan

NO_SHAPE = "none"

# The page picks shapes by their class (--class-picker), and would split --shape at its commas.
_NOT_ON_THE_PAGE = {"--load-shape"}

_FLAGS: dict[str, dict[str, Any]] = {
    "--model": {"default": "lenet5", "metavar": "NAME[=WEIGHT],...", "help": "models that are asked, and how often"},
    "--samples": {
        "default": "",
        "metavar": "DIR",
        "help": "send what is in DIR (.npz, .npy, .jpg, .png), of several models in DIR/MODEL (default: random values)",
    },
    "--http-host": {
        "default": "",
        "metavar": "HOST:PORT",
        "help": "where RestUser finds HTTP v2 (default: where all users find their server)",
    },
    "--load-shape": {
        "default": NO_SHAPE,
        "choices": [NO_SHAPE, *DEFAULT_SECONDS],
        "help": "how many users there are over time, up to all of them (%(default)s: all at once)",
    },
    "--steps": {"type": int, "default": 5, "help": "steps: how many (%(default)s)"},
    "--spike-factor": {"type": float, "default": 4.0, "help": "spike: users in it ÷ users around it (%(default)s)"},
    "--spike-seconds": {"type": float, "default": 10.0, "help": "spike: how long (%(default)s)"},
    "--soak-ramp-seconds": {"type": float, "default": 10.0, "help": "soak: until all have started (%(default)s)"},
    "--soak-windows": {"type": int, "default": 10, "help": "soak: parts that are compared (%(default)s)"},
    "--ramp-users": {"type": int, "default": 8, "help": "ramp-to-failure: users added at each level (%(default)s)"},
    "--ramp-seconds": {"type": float, "default": 10.0, "help": "ramp-to-failure: length of a level (%(default)s)"},
    "--p99-ms": {"type": limit, "help": "longest p99 that passes (%(default)s)"},
    "--max-error-rate": {
        "type": share,
        "default": 0.0,
        "help": "largest share of failures that passes, 0 to 1 (%(default)s)",
    },
}


def add_flags(parser: argparse.ArgumentParser, *, p99_ms: float = inf, **hidden: Any) -> None:
    """Adds them to an argparse parser, or to Locust's; `p99_ms`: the limit without a flag.

    `hidden` is for Locust's parser: what keeps a flag off its page, where the page could not change what it does.
    """
    for flag, description in _FLAGS.items():
        options = {"default": p99_ms} | description
        # Locust's page shows the text as it is.
        options["help"] = options["help"].replace("%(default)s", str(options["default"]))
        parser.add_argument(flag, **options, **(hidden if flag in _NOT_ON_THE_PAGE else {}))
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME:DIM,DIM,...",
        help="whole shape of one input, batch axis included; else each variable dimension is 1; may be repeated",
        **hidden,
    )


def as_arguments(parsed: argparse.Namespace) -> list[str]:
    """The command line that says the same to another parser."""
    arguments = [f"{flag}={getattr(parsed, _name(flag))}" for flag in _FLAGS]
    return arguments + [f"--shape={shape}" for shape in parsed.shape]


def plan_of(parsed: argparse.Namespace, shape: str, *, users: int, spawn_rate: float, seconds: float | None) -> Plan:
    """The plan of the load shape `shape`. Raises LoadTestError where its flags make no sense."""
    ours = {field.name for field in fields(Plan)} & {_name(flag) for flag in _FLAGS}
    values = {name: getattr(parsed, name) for name in ours}
    return Plan(
        shape=shape,
        users=users,
        spawn_rate=spawn_rate,
        seconds=DEFAULT_SECONDS[shape] if seconds is None else seconds,
        **values,
    )


def shapes_of(texts: Iterable[str]) -> dict[str, Shape]:
    """What --shape says. A ValueError says what is wrong."""
    return dict(parse_shape(text) for text in texts)


def _name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
