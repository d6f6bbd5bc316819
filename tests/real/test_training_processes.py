"""`torchrun -m training train` with two processes: the weights of one, and the same bits after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from tests.tiny_training import states, torch_as_before
from training import runs
from training.recipes import RECIPES
from training.runs import Plan
from training.train import train

ROOT = Path(__file__).parents[2]
WITH_ROOT = {**os.environ, "PYTHONPATH": str(ROOT)}
EPOCHS, SEED = 2, 5


TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
JOINS = """
import os
import socket
import sys
from pathlib import Path
import torch
from training.distribution import join

with socket.create_server(("127.0.0.1", 0)) as free:
    os.environ["MASTER_PORT"] = str(free.getsockname()[1])
os.environ |= {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "as torchrun does"}
children = []
for rank in "01":
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
    children.append(os.fork())
    if not children[-1]:
        break
else:
    sys.exit(any([os.waitpid(child, 0)[1] for child in children]))

with join("cpu") as processes:
    network = processes.together(torch.nn.Linear(3, 3), torch.ones(1, 3))
    network(torch.ones(1, 3)).sum().backward()
    del network
threads = " ".join(thread.read_text().strip() for thread in Path("/proc/self/task").glob("*/comm"))
print(f"{processes.rank} of {processes.count}: {threads}")
"""
"""Two processes for the price of one import of torch, with the environment that torchrun gives them."""


def command(folder: Path, *more: str) -> list[str]:
    plan = ["-m", "training", "train", "lenet5", "--epochs", str(EPOCHS), "--seed", str(SEED), "--device", "cpu"]
    return [*TWO, *plan, "--run-dir", str(folder), *more]


def run(folder: Path, *more: str) -> str:
    done = subprocess.run(command(folder, *more), cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    said = run(folder).splitlines()
    assert [line.split()[1] for line in said if line.startswith("epoch")] == ["1/2", "2/2"]
    return folder


def test_two_processes_train_the_weights_of_one(finished: Path, tmp_path: Path) -> None:
    with torch_as_before():
        train(Plan(RECIPES["lenet5"], SEED, EPOCHS, "cpu"), tmp_path, resume=False)
    one, two = runs.load(tmp_path), runs.load(finished)
    assert two.plan.processes == 2
    for name, weight in one.network.items():
        assert torch.allclose(weight, two.network[name], rtol=1e-4, atol=1e-5), name
    assert [epoch.loss for epoch in one.history] == pytest.approx([epoch.loss for epoch in two.history], rel=1e-5)
    assert [epoch.held_out_accuracy for epoch in one.history] == [epoch.held_out_accuracy for epoch in two.history]
    assert torch.equal(one.generator, two.generator)


def test_a_kill_of_one_process_ends_all_and_they_resume_to_the_same_bits(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    with subprocess.Popen(
        command(folder), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as torchrun:
        assert torchrun.stdout is not None
        assert any(line.startswith("epoch 1/") for line in torchrun.stdout)
        workers = [child for child in psutil.Process(torchrun.pid).children() if "RANK" in child.environ()]
        assert len(workers) == 2
        workers[1].send_signal(signal.SIGKILL)
        torchrun.stdout.read()
    assert torchrun.returncode == 1
    assert len(runs.load(folder).history) == 1

    assert "epoch 1/" not in run(folder, "--resume")
    assert states(folder) == states(finished)


def test_no_thread_of_the_group_outlives_it(tmp_path: Path) -> None:
    """One that did could let go of a tensor while the interpreter ends, which aborts the process."""
    script = tmp_path / "joins.py"
    script.write_text(JOINS)
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT, capture_output=True, text=True, timeout=280, env=WITH_ROOT
    )
    assert done.returncode == 0, done.stderr
    assert sorted(line.split(":")[0] for line in done.stdout.splitlines()) == ["0 of 2", "1 of 2"]
    assert "python" in done.stdout
    assert "gloo" not in done.stdout
