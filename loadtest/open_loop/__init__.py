"""A load generator that keeps to its schedule: tens of thousands of requests per second from one core.

`play` sends traffic at the times of a schedule (`poisson`, `constant`, `at_once`, or your own) and returns an
`Outcome`, whose latencies count from the moment that the schedule names: a late generator, or a server that stands
still, flatters nobody. `play_queries` is the closed loop. `play_apart` and `play_queries_apart` do the same in
processes of their own.

    due = poisson(rate=2_000, seconds=10, seed=1)
    outcome = play(GrpcTraffic("127.0.0.1:8001", INFER, framed([message])), due, seconds=10, patience=1)

What travels, and how, is a `Traffic`: `GrpcTraffic` (HTTP/2) or `HttpTraffic` (HTTP/1.1). The parts: `traffic` (the
seam), `clients` (connections, who takes the next request), `player` (the loops), `outcome` (what came of it), `apart`.
"""

from loadtest.open_loop.apart import play_apart, play_queries_apart, processes_for
from loadtest.open_loop.grpc_traffic import GrpcTraffic, framed
from loadtest.open_loop.http_traffic import HttpTraffic
from loadtest.open_loop.outcome import Outcome, quantile
from loadtest.open_loop.player import at_once, constant, play, play_queries, poisson
from loadtest.open_loop.traffic import Traffic

__all__ = [
    "GrpcTraffic",
    "HttpTraffic",
    "Outcome",
    "Traffic",
    "at_once",
    "constant",
    "framed",
    "play",
    "play_apart",
    "play_queries",
    "play_queries_apart",
    "poisson",
    "processes_for",
    "quantile",
]
