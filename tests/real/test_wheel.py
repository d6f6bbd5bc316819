"""The wheel: what is in it, and that a clean environment with nothing else but its requirements serves with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import triton_to_np_dtype

from loadtest.processes import our_server, running

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(420)


def run(*command: str | Path, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},  # where the repository may be
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # From a copy: setuptools would put what an earlier build left in build/ into the wheel, and leave its own there.
    source = tmp_path_factory.mktemp("source")
    for name in ("server", "proto", "training", "loadtest", "tests"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    target = tmp_path_factory.mktemp("dist")
    built = run(sys.executable, "-m", "build", "--wheel", "--outdir", target, source, seconds=180)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = target.glob("*.whl")
    return wheel


def test_it_holds_the_protocol_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    proto_files = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "proto").rglob("*.proto")}
    assert proto_files
    assert proto_files <= names
    page = {
        f"server/playground/static/{name}" for name in ("index.html", "favicon.svg", "sources.json", "assets/app.js")
    }
    assert {"server/__main__.py", "loadtest/locustfile.py", *page} <= names
    assert not [name for name in names if name.startswith("tests/")]


def test_it_serves_in_a_clean_environment_without_torch(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    python = environment / "bin" / "python"
    made = run(sys.executable, "-m", "venv", environment, seconds=60)
    assert made.returncode == 0, made.stderr
    pip = (python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile", "--quiet")
    installed = run(*pip, "--constraint", REPOSITORY / "constraints.txt", f"{wheel}[cpu]", seconds=240)
    assert installed.returncode == 0, installed.stderr

    # -P: the working folder, which may be the repository, is not searched for modules.
    where = run(python, "-P", "-c", "import server; print(server.__file__)", seconds=30)
    assert Path(where.stdout.strip()).is_relative_to(environment), where
    torch = run(python, "-P", "-c", "import torch", seconds=30)
    assert "No module named 'torch'" in torch.stderr

    command = our_server(REPOSITORY / "model_repository")
    # Leaving the block sends SIGTERM and demands exit code 0.
    with running([str(python), "-P", *command[1:]], tmp_path, "installed") as served:
        client = tritonclient.grpc.InferenceServerClient(served.address)
        metadata = client.get_model_metadata("lenet5")
        (tensor,) = metadata.inputs
        pixels = np.zeros([max(dim, 1) for dim in tensor.shape], triton_to_np_dtype(tensor.datatype))
        asked = tritonclient.grpc.InferInput(tensor.name, pixels.shape, tensor.datatype)
        asked.set_data_from_numpy(pixels)
        answer = client.infer("lenet5", [asked], client_timeout=30)
        client.close()
        with urlopen(f"http://127.0.0.1:{served.ports['http']}/", timeout=30) as page:
            assert b"<title>Convoy</title>" in page.read()

    scores = answer.as_numpy(metadata.outputs[0].name)
    assert scores is not None
    assert scores.shape == (1, 10)
    assert np.isfinite(scores).all()
