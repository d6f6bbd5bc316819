"""TensorBoard: one point of each curve for each epoch, in the run folder's `tensorboard/`."""

from __future__ import annotations

from pathlib import Path

from training.runs import Epoch


class Scalars:
    """The curves of one run. Points after `epochs_done`, which a killed run may have left, are taken back."""

    def __init__(self, folder: Path, epochs_done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=epochs_done + 1)

    def add(self, epoch: Epoch, images_per_second: float) -> None:
        """Write an epoch's points; they are in the file on return."""
        points = {
            "loss/training": epoch.loss,
            "loss/validation": epoch.validation_loss,
            "held-out accuracy": epoch.held_out_accuracy,
            "learning rate": epoch.learning_rate,
            "images per second": images_per_second,
        }
        for name, value in points.items():
            if value is not None:
                self.writer.add_scalar(name, value, epoch.epoch)
        self.writer.flush()

    def close(self) -> None:
        """Let go of the file."""
        self.writer.close()
