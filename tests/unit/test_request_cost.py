"""A small request on the nghttp2 engine stays cheap: what its way takes is counted, which no busy machine changes."""

from __future__ import annotations

from collections import Counter

import pytest
import uvloop

pytest.importorskip("server.frontends.grpc._http2", exc_type=ImportError)

from tools.request_cost import REQUESTS, RequestPath, counted

MOST_PYTHON_CALLS = 33.0
MOST_CALLS = 69.0
"""Per request, with those of C. Who adds one should know what for: `tools/request_cost.py --functions` names all."""


@pytest.fixture(scope="module")
def calls() -> Counter[str]:
    async def count() -> Counter[str]:
        path = RequestPath()
        await path.warm()
        counts = await counted(path, rounds=1)
        await path.close()
        return counts

    return uvloop.run(count())


def test_a_request_takes_few_calls_of_python(calls: Counter[str]) -> None:
    python = sum(count for name, count in calls.items() if not name.startswith("C "))
    assert python / REQUESTS <= MOST_PYTHON_CALLS


def test_a_request_takes_few_calls_at_all(calls: Counter[str]) -> None:
    assert calls.total() / REQUESTS <= MOST_CALLS
