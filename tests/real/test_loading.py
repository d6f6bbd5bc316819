"""Opening large models: whoever serves meanwhile is not held up, and nobody who stops waits for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.backends.base import SessionOptions
from server.backends.loading import LoadAttempt
from server.backends.onnx import OnnxBackend
from server.errors import LoadFailed
from tests import onnx_models
from tests.real.test_drain import starting
from tests.real.waiting import wait_until
from tests.repositories import add_model

ONE_THREAD = SessionOptions(intra_op_threads=1)
LARGE_WIDTH = 4096
"""128 MiB of weights: some 300 ms to open."""

TURNS = 20
"""An ONNX Runtime that keeps the interpreter leaves three turns to others: before, between and after its two steps."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a small model, and a large one that is loaded after it."""
    root = tmp_path_factory.mktemp("large")
    add_model(root, "affine", onnx_models.affine())
    add_model(root, "large", onnx_models.mlp(LARGE_WIDTH))
    return root


@pytest.fixture(scope="module")
def large_file(large: Path) -> Path:
    return large / "large" / "1" / "model.onnx"


def test_other_threads_run_while_a_session_is_opened(large_file: Path) -> None:
    backend, opened = OnnxBackend(), threading.Event()
    turns = 0
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(backend.load, large_file, ONE_THREAD)
        future.add_done_callback(lambda _: opened.set())
        while not opened.wait(0.001):
            turns += 1

    assert future.result().inputs[0].shape == (-1, LARGE_WIDTH)
    assert turns >= TURNS


def test_a_session_that_is_being_opened_is_given_up_on_request(large_file: Path) -> None:
    attempt = LoadAttempt()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(OnnxBackend().load, large_file, ONE_THREAD, attempt)
        wait_until(future.running, 10)
        attempt.interrupt(LoadFailed("not wanted any more"))

    with pytest.raises(LoadFailed, match=r"^not wanted any more$"):
        future.result()


def test_nothing_is_opened_for_a_load_that_was_given_up(large: Path) -> None:
    attempt = LoadAttempt()
    attempt.interrupt(LoadFailed("not wanted any more"))

    with pytest.raises(LoadFailed, match=r"^not wanted any more$"):
        OnnxBackend().load(large / "affine" / "1" / "model.onnx", ONE_THREAD, attempt)


def test_sigterm_while_a_large_model_is_opened_gives_it_up(engine: str, large: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = starting(engine, large, log, "--grpc-port=0", "--log-verbose=1")
    wait_until(lambda: "large/1/model.onnx: being opened" in log.read_text(), 30)
    process.terminate()

    assert process.wait(30) == 0, log.read_text()
    assert "large/1/model.onnx: given up" in log.read_text()
    assert "Traceback" not in log.read_text()
