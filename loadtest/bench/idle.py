"""A crowd of idle connections: what each costs in memory, and whether the active ones notice.

Two servers take turns, one with the crowd on it and one without. Memory is the process's own (RSS): what the kernel
keeps for a socket is not in it.
"""

from __future__ import annotations

import resource
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial

from loadtest.bench.comparison import take_turns
from loadtest.bench.servers import NGHTTP2, Plan, prepare, start_ours
from loadtest.errors import LoadTestError
from loadtest.processes import Running, running

CROWDED = "with the crowd"
ALONE = "without"
_OTHER_FILES = 256
"""What a process has open besides."""
_ACCEPT_SECONDS = 60.0


def idle(plan: Plan) -> dict[str, object]:
    """Small requests, 16 in flight, beside `plan.idle_connections` connections that say nothing."""
    load = plan.load(requests=20_000, connections=4, streams=4)
    _allow_files(plan.idle_connections + _OTHER_FILES)
    with ExitStack() as stack:
        crowded = start_ours(stack, plan, NGHTTP2, name="crowded")
        alone = start_ours(stack, plan, NGHTTP2, name="alone")
        shot = prepare(plan, crowded, load)
        for ours in (crowded, alone):
            shot.warm_up(ours.server)
        before_bytes, before_files = crowded.server.rss_bytes(), crowded.server.open_files()
        command = [sys.executable, "-m", "loadtest.bench.crowd", "--port", str(crowded.server.ports["grpc"])]
        command += ["--connections", str(plan.idle_connections)]
        stack.enter_context(running(command, plan.out, "crowd"))
        wanted_files = before_files + plan.idle_connections
        _wait_until_accepted(crowded.server, wanted_files)
        shot.warm_up(crowded.server)
        rss_bytes = crowded.server.rss_bytes()
        turns = {CROWDED: partial(shot.fire_counted, crowded), ALONE: partial(shot.fire_counted, alone)}
        comparison = take_turns(turns, plan.rounds, ((CROWDED, ALONE),))
        if crowded.server.open_files() < wanted_files:
            raise LoadTestError(f"the server closed idle connections: {crowded.server.open_files()} files are open")
    kib_per_connection = (rss_bytes - before_bytes) / plan.idle_connections / 1024
    print(comparison.table())
    print(
        f"{plan.idle_connections:,} idle connections: RSS {before_bytes / 2**20:.1f} → {rss_bytes / 2**20:.1f} MiB, "
        f"{kib_per_connection:.1f} KiB each"
    )
    memory = {"rss_before_bytes": before_bytes, "rss_with_crowd_bytes": rss_bytes}
    memory |= {"idle_connections": plan.idle_connections}
    return {"load": asdict(load), **memory, "kib_per_connection": kib_per_connection, **comparison.as_json()}


def _allow_files(wanted: int) -> None:
    """Lets this process, and those that it starts from now on, have that many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise LoadTestError(f"{wanted} open files are needed and {hard} allowed: ulimit -Hn, --idle-connections")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _wait_until_accepted(server: Running, wanted_files: int) -> None:
    give_up = time.monotonic() + _ACCEPT_SECONDS
    while server.open_files() < wanted_files:
        if time.monotonic() > give_up:
            raise LoadTestError(f"{server.open_files()} files are open in the server instead of {wanted_files}")
        time.sleep(0.1)
