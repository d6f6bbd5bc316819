"""What a process takes of a batch, what it draws, and what it is told if torchrun started too many."""

from __future__ import annotations

import pytest
import torch

from training.distribution import ALONE, Processes, join
from training.files import TrainingError


@pytest.mark.parametrize("size", [1, 2, 5, 32])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_weighted_means_of_the_parts_average_to_the_mean_of_the_batch(size: int, count: int) -> None:
    values = torch.arange(1.0, size + 1)
    parts = [Processes(rank, count).part(size) for rank in range(count)]
    assert all(len(values[part]) for part, _ in parts)
    average = sum(float(values[part].mean()) * weight for part, weight in parts) / count
    assert average == pytest.approx(float(values.mean()))
    assert sorted(float(v) for part, weight in parts if weight for v in values[part]) == values.tolist()


def test_one_process_takes_all() -> None:
    assert ALONE.part(29) == (slice(0, 29), 1.0)
    assert ALONE.first and not Processes(1, 2).first


def drawn(seed: int, step: int, rank: int) -> list[float]:
    with Processes(rank, 2).own_draws(seed, step):
        return list(torch.rand(4).tolist())


def test_a_networks_draws_depend_on_seed_step_and_process_and_on_nothing_else() -> None:
    torch.manual_seed(1)
    here = drawn(0, 7, 0)
    torch.manual_seed(2)
    assert drawn(0, 7, 0) == here
    assert len({tuple(drawn(*other)) for other in ((0, 7, 0), (1, 7, 0), (0, 8, 0), (0, 7, 1))}) == 4


def test_a_networks_draws_leave_the_shared_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    drawn(0, 0, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with join("cpu") as processes:
        assert processes == ALONE
    assert processes.sum(torch.tensor([1.5, 2.0], dtype=torch.float64)) == [1.5, 2.0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match="started process 2 on a machine with 0 GPUs"), join("cuda"):
        pass
