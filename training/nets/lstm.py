"""A recurrent network that reads a picture row by row: S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", 1997.

    input    (N, 1, H, 32)   H rows of 32 pixels, from the top
    memory   (N, 128)        the hidden state after the last row
    output   (N, 10)

The cells have forget gates, open at first (F. Gers, J. Schmidhuber, F. Cummins, 2000).
"""

from __future__ import annotations

from torch import Tensor, nn

INPUT_SHAPE = (1, 32, 32)
CLASSES = 10

NETWORKS = {"lstm_rows": 128}
"""Cells."""


def build(name: str, classes: int = CLASSES) -> nn.Module:
    """A freshly initialised network of the table."""
    return RowReader(INPUT_SHAPE[2], NETWORKS[name], classes)


class RowReader(nn.Module):
    """(N, 1, H, W) → (N, classes)."""

    def __init__(self, width: int, cells: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, cells, batch_first=True)
        self.output = nn.Linear(cells, classes)
        # Torch orders the gates: input, forget, cell, output. Its two biases add up.
        for bias, forget in ((self.lstm.bias_ih_l0, 1.0), (self.lstm.bias_hh_l0, 0.0)):
            assert isinstance(bias, Tensor)
            nn.init.constant_(bias[cells : 2 * cells], forget)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x.squeeze(1))  # (N, H, cells)
        scores: Tensor = self.output(states[:, -1])
        return scores
