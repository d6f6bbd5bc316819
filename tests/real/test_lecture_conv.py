"""The lecture's convolution layer, served from `model_repository/` and asked over gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np

from tests.real.clients import Client
from tests.real.conftest import MODEL_REPOSITORY
from training import lecture

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer

ANSWER = [[[2, 3, 3], [3, 7, 3], [8, 10, -3]], [[-8, -8, -3], [-3, 1, 0], [-3, -8, -5]]]


def test_the_pages_volume_has_the_pages_answer(shared_server: RunningServer) -> None:
    volume = np.array([lecture.VOLUME], dtype=np.float32)
    with grpc.insecure_channel(shared_server.grpc_address) as channel:
        client = Client(channel)
        assert client.infer("lecture_conv", {"input": volume})["output"].tolist() == [ANSWER]
        assert client.infer("lecture_conv", {"input": volume.repeat(3, axis=0)})["output"].tolist() == [ANSWER] * 3


def test_the_committed_model_is_what_the_command_writes(tmp_path: Path) -> None:
    written = lecture.write_model(tmp_path, None)
    committed = MODEL_REPOSITORY / "lecture_conv"
    for file in ("config.pbtxt", "README.md"):
        assert (written.parent / file).read_text() == (committed / file).read_text()
    assert not (written.parent / "labels.txt").exists()
    assert (committed / "1" / "model.onnx").stat().st_size < 2_000
