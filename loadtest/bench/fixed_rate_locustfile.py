"""One Locust user at a fixed rate, whose latencies are kept as they are, for `bench agreement`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from locust import constant_throughput, events
from locust.argument_parser import LocustArgumentParser

from loadtest.swarm import flags, users  # modules, so that Locust does not take their users for ours

_latencies_ms: list[float] = []


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_flags(parser: LocustArgumentParser, **_: Any) -> None:
    flags.add_flags(parser, include_in_web_ui=False)
    parser.add_argument("--requests-per-second", type=float, required=True)
    parser.add_argument("--latencies-file", type=Path, required=True, help="where the latencies go, in ms, as JSON")


@events.request.add_listener  # type: ignore[untyped-decorator]
def keep(response_time: float, exception: Exception | None, **_: Any) -> None:
    if exception is None:
        _latencies_ms.append(response_time)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def write(environment: Any, **_: Any) -> None:
    environment.parsed_options.latencies_file.write_text(json.dumps(_latencies_ms))


class FixedRateUser(users.GrpcUser):
    """As its parent, but no faster than it is told."""

    def wait_time(self) -> float:
        options = self.environment.parsed_options
        assert options is not None, "Locust parses its options before it makes users"
        wait: float = constant_throughput(options.requests_per_second)(self)
        return wait
