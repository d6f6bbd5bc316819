"""What a GPU's sessions do that needs no GPU: bindings and their memory, on ONNX Runtime's CPU provider."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from server import tensors
from server.backends import cuda
from server.backends.base import GraphTensor, Session, SessionOptions
from server.backends.cuda import CudaSession, GraphSession, check_graph_tensors, gpu_session, staging_memory
from server.backends.onnx import OnnxBackend
from server.errors import LoadFailed
from tests import onnx_models


def opened(folder: Path) -> tuple[ort.InferenceSession, Session]:
    path = folder / "model.onnx"
    path.write_bytes(onnx_models.add_sub().SerializeToString())
    return ort.InferenceSession(path), OnnxBackend().load(path, SessionOptions(intra_op_threads=1))


def recorded(folder: Path) -> GraphSession:
    """A session with bindings, whose device is the CPU: it binds and runs, and records nothing."""
    session, plain = opened(folder)
    return GraphSession(session, plain, np.empty, ("cpu", 0))


def feed(rows: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    a = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4) * np.float32(scale)
    return {"a": a, "b": a + 1}


def test_a_binding_gives_the_answers_of_an_ordinary_run(tmp_path: Path) -> None:
    session = recorded(tmp_path)
    for rows in (1, 3, 1, 3, 3):
        for scale in (1.0, -2.0):
            inputs = feed(rows, scale)
            total, difference = session.run(inputs, ["sum", "difference"])
            assert (total == inputs["a"] + inputs["b"]).all()
            assert (difference == inputs["a"] - inputs["b"]).all()


def test_outputs_are_the_callers_to_keep(tmp_path: Path) -> None:
    session = recorded(tmp_path)
    answers = [session.run(feed(2, scale), ["sum"])[0] for scale in (1.0, 2.0, 3.0)]
    assert [answer[0, 0] for answer in answers] == [1, 1, 1]
    assert [answer[0, 1] for answer in answers] == [3, 5, 7]


def test_only_the_outputs_that_are_asked_for_come_back_in_their_order(tmp_path: Path) -> None:
    session = recorded(tmp_path)
    for _ in range(2):
        assert len(session.run(feed(2), ["difference"])) == 1
        difference, total = session.run(feed(2), ["difference", "sum"])
        assert (difference == -1).all() and total[0, 0] == 1


def test_recordings_are_bounded_and_further_shapes_run_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "MAX_GRAPHS", 2)
    session = recorded(tmp_path)
    for _ in range(2):
        for rows in (1, 2, 3, 4):
            assert session.run(feed(rows), ["sum"])[0].shape == (rows, 4)
    assert len(session._bindings) == 2


def test_read_only_inputs_can_be_bound(tmp_path: Path) -> None:
    session = recorded(tmp_path)
    inputs = {name: np.frombuffer(array.tobytes(), np.float32).reshape(2, 4) for name, array in feed(2).items()}
    for _ in range(2):
        assert session.run(inputs, ["sum"])[0][0, 0] == 1


def test_after_an_interruption_nothing_is_replayed_or_recorded_any_more(tmp_path: Path) -> None:
    session = recorded(tmp_path)
    for _ in range(2):
        session.run(feed(2), ["sum"])
    assert session.interruptible() is session  # with its recordings
    session.interrupt()
    for rows in (2, 3):  # recorded, and not
        with pytest.raises(Exception, match="terminate flag"):
            session.run(feed(rows), ["sum"])
    fresh = session.interruptible()
    for rows in (2, 3, 2, 3):
        inputs = feed(rows)
        assert (fresh.run(inputs, ["sum"])[0] == inputs["a"] + inputs["b"]).all()
    assert fresh._bindings == {}


@pytest.mark.parametrize("on_gpu", [False, True])
def test_one_lane_is_interrupted_and_the_others_go_on(tmp_path: Path, on_gpu: bool) -> None:
    plain = opened(tmp_path)[1]
    session = CudaSession(plain, np.empty) if on_gpu else plain
    one, other = session.interruptible(), session.interruptible()
    one.interrupt()
    with pytest.raises(Exception, match="terminate flag"):
        one.run(feed(1), ["sum"])
    for going_on in (other, session):
        assert going_on.run(feed(1), ["sum"])[0][0, 0] == 1


def test_a_session_that_lost_its_gpu_is_refused(tmp_path: Path) -> None:
    session, plain = opened(tmp_path)
    with pytest.raises(LoadFailed, match=re.escape("could not start its CUDA provider on GPU 1; ")):
        gpu_session(session, plain, tmp_path, 1, graphs=False, pinned=True)


@pytest.mark.parametrize("datatype", [tensors.BYTES, tensors.BF16], ids=str)
def test_recordings_of_what_numpy_cannot_bind_are_refused(datatype: tensors.DataType) -> None:
    with pytest.raises(LoadFailed, match=re.escape("'optimization.cuda.graphs' cannot go with 'x', which is")):
        check_graph_tensors(Path("m"), (GraphTensor("x", datatype, (-1,)),))


def test_without_page_locked_memory_inputs_are_staged_in_ordinary_memory(caplog: pytest.LogCaptureFixture) -> None:
    array = staging_memory(0)((2, 3), np.dtype(np.float32))
    assert array.shape == (2, 3) and array.dtype == np.float32
    assert "inputs for GPU 0 are staged in ordinary memory" in caplog.text


def test_this_machine_tells_what_it_can_run_on() -> None:
    devices = OnnxBackend().devices()
    assert "CPUExecutionProvider" in devices.providers
    assert devices.gpu_count >= 0
