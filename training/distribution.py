"""One training in several processes, as torchrun starts them. Must not know what is trained.

    torchrun --nproc-per-node 2 -m training train lenet5

All processes draw the same order and the same distortions, take their parts of each batch, and average gradients
(DistributedDataParallel; gloo on CPUs, nccl on GPUs), so that each step is the step that one process would have made.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from training.files import TrainingError


@dataclass(frozen=True, slots=True)
class Processes:
    """How many work on this training, and which of them this one is."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """The one that writes files, prints, and looks at validation and held-out data."""
        return self.rank == 0

    def together(self, network: nn.Module, example: torch.Tensor) -> nn.Module:
        """The network as it is to be called in training: its backward pass averages gradients over the processes.

        `example` is a batch of one. After its first backward pass DistributedDataParallel lays gradients out anew, by
        the order in which they came, and more than two of them then add up in another order. That pass is made here,
        and leaves nothing, so that a run that resumes adds as one that nobody disturbed.
        """
        if self.count == 1:
            return network
        model = DistributedDataParallel(network)
        model.eval()
        model(example).sum().backward()
        model.zero_grad()
        return model

    def part(self, size: int) -> tuple[slice, float]:
        """This process's part of a batch of `size`, and the weight of its mean loss.

        Weighted so, the average over the processes is the mean over the whole batch, even if parts differ in size.
        A process that the batch is too small for takes its first example with weight 0: all must take part in a step.
        """
        begin, end = size * self.rank // self.count, size * (self.rank + 1) // self.count
        if begin == end:
            return slice(0, 1), 0.0
        return slice(begin, end), (end - begin) * self.count / size

    def sum(self, figures: torch.Tensor) -> list[float]:
        """Each figure (float64) summed over the processes, the same bits for all of them."""
        if self.count > 1:
            distributed.all_reduce(figures)
        return [float(figure) for figure in figures.tolist()]

    @contextmanager
    def own_draws(self, seed: int, step: int) -> Iterator[None]:
        """What a network draws in here, dropout say, is a function of seed, step and process: nothing to store.

        The CPU's generator, which the processes draw order and distortions from alike, is afterwards as before.
        """
        digest = hashlib.blake2b(f"{seed}/{step}/{self.rank}".encode(), digest_size=7).digest()
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(int.from_bytes(digest))  # torch.manual_seed takes 0.2 ms
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed(int.from_bytes(digest))
        try:
            yield
        finally:
            torch.set_rng_state(before)


ALONE = Processes()


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """The processes that torchrun started, for as long as the block lasts; without torchrun this one is alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ALONE
        return
    rank, count, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise TrainingError(
                f"torchrun started process {local + 1} on a machine with {torch.cuda.device_count()} GPUs. "
                "Use --nproc-per-node with one process for each GPU, or --device cpu."
            )
        torch.cuda.set_device(local)
    # Its default arguments keep the group that there is at its first import, and DistributedDataParallel imports it.
    importlib.import_module("torch.distributed.nn.functional")
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Processes(rank, count)
    finally:
        distributed.destroy_process_group()
        # The group's threads end with its last reference, and DistributedDataParallel, which holds one, is in a cycle.
        # A thread that outlives the interpreter and lets go of a tensor aborts the process.
        gc.collect()
