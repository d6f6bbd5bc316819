"""Single requests whose answers are looked at number by number."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from loadtest.errors import LoadTestError, WrongAnswerError
from loadtest.peers.base import Call, Tensor
from loadtest.target import Target

_ANSWER_SECONDS = 30.0
_ATTEMPT_SECONDS = 10.0
_PAUSE_SECONDS = 0.02
# Sums in another order: of batches, of threads.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-5
_EXCERPT = 300


def ask(address: str, call: Call, row: Tensor, *, timeout: float = _ANSWER_SECONDS) -> bytes:
    """The body of the answer. LoadTestError says what was answered instead, or that nobody was there."""
    body = call.body(row)
    if not call.http1:
        try:
            with Target(address) as target:
                return target.infer(body, timeout=timeout)
        except grpc.RpcError as error:
            raise LoadTestError(f"{error.code().name}: {error.details()}") from error
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("POST", call.path, body, dict(call.headers))
        answer = connection.getresponse()
        told = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise LoadTestError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise LoadTestError(f"status {answer.status}: {told[:_EXCERPT].decode(errors='replace')}")
    return told


def checked(call: Call, answer: bytes, expected: Tensor) -> None:
    """Raises WrongAnswerError unless `answer` has the numbers that are `expected`."""
    try:
        values = call.values(answer)
    except (ValueError, KeyError, TypeError, DecodeError, json.JSONDecodeError) as error:
        raise WrongAnswerError(f"not an answer: {error}; {answer[:_EXCERPT]!r}") from error
    if values.size != expected.size or not np.allclose(values.ravel(), expected, _RELATIVE, _ABSOLUTE):
        raise WrongAnswerError(f"other numbers than ONNX Runtime's: {values.ravel()[:4]} …, expected {expected[:4]} …")


def first_answer(address: str, call: Call, row: Tensor, *, seconds: float, alive: Callable[[], bool]) -> bytes:
    """Asks until there is an answer. LoadTestError where `alive` says no, or after `seconds`, with the last refusal."""
    give_up = time.monotonic() + seconds
    last = "nobody listens"
    while time.monotonic() < give_up:
        if not alive():
            raise LoadTestError("it ended before its first answer")
        if _listens(address):
            try:
                return ask(address, call, row, timeout=_ATTEMPT_SECONDS)
            except LoadTestError as error:
                last = str(error)
        time.sleep(_PAUSE_SECONDS)
    raise LoadTestError(f"no answer in {seconds:.0f} s; {last}")


def check_together(address: str, call: Call, inputs: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Sends all at once, so that they share batches, and checks that each gets its own answer."""
    with ThreadPoolExecutor(len(inputs)) as threads:
        answers = list(threads.map(lambda row: ask(address, call, row), inputs))
    for answer, one in zip(answers, expected, strict=True):
        checked(call, answer, one)


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _ATTEMPT_SECONDS).close()
    except OSError:
        return False
    return True
