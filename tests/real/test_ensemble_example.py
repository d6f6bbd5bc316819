"""The ensemble of `examples/ensemble`: made, served, and asked by its own client."""

from __future__ import annotations

import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.real.conftest import ROOT, RunningServer, StartServer

EXAMPLE = ROOT / "examples" / "ensemble"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LABELS = [NAMES[label] for label in np.load(ROOT / "examples" / "digits_held_out.npz")["labels"]]


@pytest.fixture
def server(tmp_path: Path, start_server: StartServer) -> RunningServer:
    root = tmp_path / "digits"
    subprocess.run([sys.executable, str(EXAMPLE / "make.py"), str(root)], check=True)
    return start_server(model_repository=root)


def client_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("read_digits", EXAMPLE / "read_digits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_client(server: RunningServer, *files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE / "read_digits.py"), "--url", server.grpc_address, *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_pictures_go_in_and_labels_come_out(server: RunningServer, tmp_path: Path) -> None:
    done = run_client(server)
    assert done.returncode == 0, done.stderr
    read = [re.fullmatch(r"digit \d+: (\w+) \((0\.\d+|1\.0+)\)", line) for line in done.stdout.splitlines()]
    assert all(read), done.stdout
    assert [match[1] for match in read if match] == LABELS[:10]

    client = client_module()
    jpeg = tmp_path / "some.jpg"
    jpeg.write_bytes(client.jpeg_files(1)[0])
    Image.open(io.BytesIO(jpeg.read_bytes())).save(tmp_path / "some.png")
    done = run_client(server, jpeg, tmp_path / "some.png")
    assert [line.split(" (")[0] for line in done.stdout.splitlines()] == [
        f"some.jpg: {LABELS[0]}",
        f"some.png: {LABELS[0]}",
    ]

    files = client.jpeg_files(len(LABELS))
    with client.triton.InferenceServerClient(server.grpc_address) as connection:
        answers = [label for i in range(0, len(files), 60) for label, _ in client.read(connection, files[i : i + 60])]
    assert np.mean([name == label for name, label in zip(answers, LABELS, strict=True)]) >= 0.97

    jpeg.write_bytes(b"no picture")
    done = run_client(server, jpeg)
    assert done.returncode == 1
    assert "in ensemble 'digit_reader', " in done.stderr and "image 0 of input 'ink'" in done.stderr
