"""What the grpcio engine does where grpcio itself fails."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc
import pytest

from server.frontends.calls import StatusCode
from server.frontends.grpc.grpcio_calls import Context
from server.frontends.grpc.grpcio_engine import abort_call


class Departed:
    """The context of a call whose peer has gone just now."""

    async def abort(self, code: Any, details: str) -> None:
        raise grpc.aio.InternalError("cannot send")


def test_a_peer_that_goes_before_its_status_is_sent_is_no_bug_of_the_method() -> None:
    """grpcio logs whatever a method raises with its traceback, but for `AbortError`."""
    with pytest.raises(grpc.aio.AbortError):
        asyncio.run(abort_call(cast("Context", Departed()), StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
