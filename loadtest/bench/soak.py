"""Millions of requests, and whether memory grows with them: RSS after each volley, and a line through the samples."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace

from loadtest.bench.servers import NGHTTP2, Plan, prepare, start_ours
from loadtest.figures import slope

_REQUESTS = 10_000_000
_REQUESTS_PER_SAMPLE = 100_000
"""Some seconds' worth."""
_FEWEST_SAMPLES = 20


def soak(plan: Plan) -> dict[str, object]:
    """Small requests to one server, 64 in flight. Connections are new with each sample. One round."""
    load = plan.load(requests=_REQUESTS, connections=4, streams=16)
    per_sample = max(load.connections, min(_REQUESTS_PER_SAMPLE, load.requests // _FEWEST_SAMPLES))
    with ExitStack() as stack:
        ours = start_ours(stack, plan, NGHTTP2, name="soak")
        shot = replace(prepare(plan, ours, load), load=replace(load, requests=per_sample))
        shot.warm_up(ours.server)
        samples = [(0, ours.server.rss_bytes())]
        while samples[-1][0] < load.requests:
            figures = shot.fire_counted(ours)
            samples.append((samples[-1][0] + per_sample, ours.server.rss_bytes()))
            sent, rss_bytes = samples[-1]
            rate = figures["requests_per_second"]
            print(f"bench: {sent:,} of {load.requests:,}: RSS {rss_bytes / 2**20:.2f} MiB, {rate:,.0f}/s", flush=True)
    slopes = {
        "rss_bytes_per_million_requests": slope(samples) * 1e6,
        "rss_bytes_per_million_requests_in_second_half": slope(samples[len(samples) // 2 :]) * 1e6,
    }
    for name, value in slopes.items():
        print(f"{name.replace('_', ' ')}: {value:,.0f}")
    return {"load": asdict(load), **slopes, "samples_requests_rss_bytes": samples}
