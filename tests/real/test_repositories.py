"""Repositories that change while a server serves from them: folders, and a bucket of a real S3 server on loopback."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.real.clients import Client
from tests.real.conftest import RunningServer, StartServer, connect
from tests.real.test_drain import starting
from tests.real.waiting import wait_until
from tests.repositories import add_model

POLL = ("--model-control-mode=poll", "--repository-poll-secs=0.1")
BUCKET = "models"
SECRET = "a-secret-that-nobody-must-see"
SECONDS = 30
"""How long a change may take to be served on a busy machine."""


def model(factor: int) -> bytes:
    return onnx_models.affine(factor=factor).SerializeToString()


class Load:
    """Callers that ask one after another until they are stopped, and what they were answered."""

    def __init__(self, channel: grpc.Channel, callers: int = 4) -> None:
        self._client = Client(channel)
        self._stop = threading.Event()
        self.answers: list[list[int]] = [[] for _ in range(callers)]
        """Of each caller, in order."""
        self.failures: list[grpc.RpcError] = []
        self._threads = [threading.Thread(target=self._ask, args=[answers]) for answers in self.answers]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, answers: list[int]) -> None:
        while not self._stop.is_set():
            try:
                answer = self._client.infer("m", {"x": np.array([[10]], np.int64)})
                answers.append(int(answer["y"][0, 0]))
            except grpc.RpcError as error:
                self.failures.append(error)

    def answered(self, value: int) -> bool:
        """Whether this is what all callers are answered now."""
        return all(answers[-1:] == [value] for answers in self.answers)

    def check(self) -> None:
        """Nobody's request failed, and nobody went back to what was replaced: versions answer more and more here."""
        assert self.failures == []
        assert all(answers == sorted(answers) for answers in self.answers)


def index(client: Client, name: str = "m") -> dict[str, tuple[str, str]]:
    """State and reason of every version of a model."""
    lines = client.call("RepositoryIndex", pb.RepositoryIndexRequest()).models
    return {line.version: (line.state, line.reason) for line in lines if line.name == name}


def stop(server: RunningServer) -> str:
    """Stop a server, and return what it has logged."""
    assert server.terminate() == 0, server.log.read_text()
    text = server.log.read_text()
    assert "Traceback" not in text and SECRET not in text, text
    return text


def test_a_folder_is_followed_without_a_failed_request(start_server: StartServer, tmp_path: Path) -> None:
    root = tmp_path / "models"
    add_model(root, "m", model(1))
    server = start_server(*POLL, model_repository=root)
    with connect(server) as channel, Load(channel) as load:
        client = Client(channel)
        wait_until(lambda: load.answered(11), SECONDS)

        add_model(tmp_path, "new", model(2))
        (tmp_path / "new" / "1").rename(root / "m" / "2")
        wait_until(lambda: load.answered(21) and index(client).keys() == {"2"}, SECONDS)

        (tmp_path / "other.onnx").write_bytes(model(3))
        (tmp_path / "other.onnx").replace(root / "m" / "2" / "model.onnx")
        wait_until(lambda: load.answered(31), SECONDS)

        (root / "m" / "3").mkdir()
        (root / "m" / "3" / "model.onnx").write_bytes(b"no model")
        wait_until(lambda: index(client).get("3", ("", ""))[0] == "UNAVAILABLE", SECONDS)
        assert client.call("ServerReady", pb.ServerReadyRequest()).ready

        shutil.rmtree(root / "m" / "3")
        wait_until(lambda: index(client) == {"2": ("READY", "")}, SECONDS)

    load.check()
    stop(server)


class Bucket:
    """A bucket of an S3 server on loopback."""

    def __init__(self, port: int) -> None:
        import boto3

        url = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self._s3: Any = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="somebody",
            aws_secret_access_key=SECRET,
        )
        self._s3.create_bucket(Bucket=BUCKET)

    def close(self) -> None:
        self._s3.close()

    def put(self, path: str, content: bytes | str) -> None:
        self._s3.put_object(Bucket=BUCKET, Key=path, Body=content)

    def put_in_parts(self, path: str, content: bytes) -> None:
        """As clients upload large files: the ETag is no MD5 then."""
        at = {"Bucket": BUCKET, "Key": path}
        at["UploadId"] = self._s3.create_multipart_upload(**at)["UploadId"]
        tag = self._s3.upload_part(**at, PartNumber=1, Body=content)["ETag"]
        self._s3.complete_multipart_upload(**at, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]})


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Bucket]]:
    """moto's server, a process of its own, and a bucket in it."""
    for name in ("moto", "s3fs", "boto3"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    program = (
        "from moto.server import ThreadedMotoServer as S; s = S('127.0.0.1', 0, False); s.start();"
        "print(s.get_host_and_port()[1], flush=True); s._thread.join()"
    )
    with (tmp_path / "s3.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    try:
        bucket = Bucket(int(process.stdout.readline()))
        yield process, bucket
        bucket.close()
    finally:
        process.kill()
        process.communicate()


def test_a_bucket_is_served_followed_and_outlived(
    s3: tuple[subprocess.Popen[bytes], Bucket],
    start_server: StartServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3_process, bucket = s3
    bucket.put("models/m/1/model.onnx", model(1))
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    flags = (*POLL, f"--model-repository-cache-dir={tmp_path / 'cache'}", "--log-verbose=1")
    url: Any = f"s3://{BUCKET}/models"
    server = start_server(*flags, model_repository=url)
    with connect(server) as channel, Load(channel) as load:
        client = Client(channel)
        wait_until(lambda: load.answered(11), SECONDS)

        bucket.put_in_parts("models/m/2/model.onnx", model(2))
        wait_until(lambda: load.answered(21) and index(client).keys() == {"2"}, SECONDS)

        bucket.put("models/m/3/model.onnx", b"no model")
        wait_until(lambda: index(client).get("3", ("", ""))[0] == "UNAVAILABLE", SECONDS)
        assert "model.onnx" in index(client)["3"][1] and index(client)["2"] == ("READY", "")

        wrong, right = (hashlib.sha256(data).hexdigest() for data in (model(3), model(4)))
        bucket.put("models/m/4/model.onnx.sha256", wrong)
        bucket.put("models/m/4/model.onnx", model(4))
        wait_until(lambda: f"its SHA-256 is {right}, not {wrong}" in index(client)["2"][1], SECONDS)
        bucket.put("models/m/4/model.onnx.sha256", right)
        wait_until(lambda: load.answered(41) and index(client) == {"4": ("READY", "")}, SECONDS)

        s3_process.kill()
        wait_until(lambda: "so nothing of it changes" in server.log.read_text(), SECONDS)
        seen = len(load.answers[0])
        wait_until(lambda: len(load.answers[0]) > seen + 10, SECONDS)

    load.check()
    stop(server)

    again = start_server(*flags, model_repository=url)
    with connect(again) as channel:
        assert Client(channel).infer("m", {"x": np.array([[10]], np.int64)})["y"].tolist() == [[41]]
    log = stop(again)
    assert "serving what was fetched before" in log and "files fetched" not in log


def test_a_store_that_never_answers_does_not_keep_a_server_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        process = starting("grpcio", "s3://bucket/models", log, "--grpc-port=0")
        connection, _ = listener.accept()
        with connection:
            process.terminate()
            assert process.wait(20) == 0, log.read_text()

    assert "Traceback" not in log.read_text()
    assert list(tmp_path.glob("convoy-*")) == []
