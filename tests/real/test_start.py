"""Starting: what the server must not drag in, and what it tells whoever started it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import onnx_models
from tests.real.conftest import ROOT
from tests.repositories import add_model

if TYPE_CHECKING:
    from tests.real.conftest import StartServer

STRANGERS = (
    "torch",
    "onnx",
    "sklearn",
    "matplotlib",
    "training",
    "loadtest",
    "locust",
    "tritonclient",
    "tests",
    "fsspec",
    "s3fs",
)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_server_imports_neither_torch_nor_any_other_stranger() -> None:
    program = "import sys, server.__main__, server.app; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    imported = set(python("-c", program).stdout.split())

    assert {"server", "onnxruntime"} <= imported
    assert imported.isdisjoint(STRANGERS)


def test_help_names_every_flag_without_importing_the_server_proper() -> None:
    helped = python("-X", "importtime", "-m", "server", "--help")

    assert helped.returncode == 0
    for flag in ("--model-repository", "--grpc-port", "--strict-readiness", "--exit-timeout-secs", "--log-format"):
        assert flag in helped.stdout
    assert "onnxruntime" not in helped.stderr


def test_the_table_of_models_and_addresses_is_printed_when_ready(start_server: StartServer, tmp_path: Path) -> None:
    add_model(tmp_path, "good", onnx_models.affine())
    add_model(tmp_path, "bad", b"garbage")
    server = start_server(model_repository=tmp_path)

    words = [line.split() for line in server.log.read_text().splitlines()]
    assert ["good", "1", "READY"] in words
    assert any(line[:3] == ["bad", "1", "UNAVAILABLE:"] for line in words)
    for name, port in (("gRPC", "grpc"), ("HTTP", "http"), ("metrics", "metrics")):
        assert [name, f"127.0.0.1:{server.ports[port]}"] in words


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_several_repositories_are_served_together_and_an_empty_one_is_no_mistake(
    names: tuple[str, ...], start_server: StartServer, tmp_path: Path
) -> None:
    for root in ("one", "two"):
        (tmp_path / root).mkdir()
    for root, name in zip(("one", "two"), names, strict=False):
        add_model(tmp_path / root, name, onnx_models.affine())
    server = start_server("--model-store", str(tmp_path / "two"), model_repository=tmp_path / "one")

    ready = {line.split()[0] for line in server.log.read_text().splitlines() if line.endswith(" READY")}
    assert ready == set(names)
