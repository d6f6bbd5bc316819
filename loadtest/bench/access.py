"""What a policy costs: LeNet-5, the same requests with a bearer token that is checked, one that nobody reads, none.

A server without a policy is what all other workloads measure; the token beside it shows what the header alone costs.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256

from loadtest.bench.comparison import take_turns
from loadtest.bench.servers import NGHTTP2, Plan, prepare, start_ours

OPEN = "no policy"
UNREAD = "no policy, a token"
CHECKED = "policy, a token"
_TOKEN = "token-of-the-benchmark-0123456789abcdef"  # noqa: S105 -- of a server that lives for a minute, on loopback
_APIS = '["inference", "metadata", "model-config", "statistics", "health"]'
_POLICY = f"""
[anonymous]
allow = [{{ apis = {_APIS}, models = ["*"] }}]

[[principals]]
name = "benchmark"
tokens = ["sha256:{sha256(_TOKEN.encode()).hexdigest()}"]
allow = [{{ apis = ["inference"], models = ["*"] }}]
limits = {{ requests_per_second = 1e9, bytes_per_second = 1e15 }}
"""


def access(plan: Plan) -> dict[str, object]:
    """Two servers, three ways to ask them, in turn."""
    load = plan.load(requests=20_000, connections=4, streams=16)
    policy = plan.out / "policy.toml"
    policy.write_text(_POLICY)
    with ExitStack() as stack:
        unguarded = start_ours(stack, plan, NGHTTP2, name="open")
        guarded = start_ours(stack, plan, NGHTTP2, f"--auth-policy={policy}", name="guarded")
        plain = prepare(plan, unguarded, load)
        with_token = replace(plain, headers={"authorization": f"Bearer {_TOKEN}"})
        turns = {}
        for name, shot, ours in (
            (OPEN, plain, unguarded),
            (UNREAD, with_token, unguarded),
            (CHECKED, with_token, guarded),
        ):
            shot.warm_up(ours.server)
            turns[name] = partial(shot.fire_counted, ours)
        comparison = take_turns(turns, plan.rounds, ((UNREAD, OPEN), (CHECKED, UNREAD)))
    print(comparison.table())
    return {"load": asdict(load), **comparison.as_json()}
