"""In which form a network is exported. Must not import torch: the command's --help reads it."""

from __future__ import annotations

from dataclasses import dataclass

from training.files import TrainingError

OUTPUTS = {"softmax": "probabilities", "logits": "logits"}
"""What a model answers, and the name of that output."""
INPUTS = {"tensor": "input", "pixels": "pixels"}
"""What a model reads, and the name of that input: (batch, C, H, W) float32 ready made, or (batch, H, W, C) uint8."""
LOWER_PRECISIONS = {"--fp16": "float16", "--int8": "int8"}
"""What can be had of a float32 graph, by the flag that asks for it."""
PRECISIONS = ("float32", *LOWER_PRECISIONS.values())
OPSETS = range(18, 24)
"""Versions of ONNX's operators: torch's exporter writes 18 and newer, and documents what it can up to 23."""
DEFAULT_OPSET = 20
MAX_ACCURACY_DROP = 0.01


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The defaults are a graph that reads what the network reads, and answers probabilities."""

    output: str = "softmax"
    """A row of `OUTPUTS`."""
    input: str = "tensor"
    """A row of `INPUTS`."""
    any_size: bool = False
    """Whether height and width are left open."""
    opset: int = DEFAULT_OPSET
    precision: str = "float32"
    """One of `PRECISIONS`: of the weights and of the arithmetic inside; what goes in and comes out stays as it is."""
    max_accuracy_drop: float = MAX_ACCURACY_DROP
    """Greatest loss of held-out accuracy, 0 to 1, that a precision other than float32 may cost."""

    def __post_init__(self) -> None:
        """Raise TrainingError for what there is not."""
        for field, value, known in (
            ("output", self.output, OUTPUTS),
            ("input", self.input, INPUTS),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise TrainingError(f"{field} {value!r} is none of {', '.join(known)}.")
        if self.opset not in OPSETS:
            raise TrainingError(f"--opset {self.opset}: {OPSETS[0]} to {OPSETS[-1]} can be written.")
        if not 0 <= self.max_accuracy_drop <= 1:
            raise TrainingError(f"--max-accuracy-drop {self.max_accuracy_drop}: a part of 1 is needed, such as 0.01.")

    @property
    def input_name(self) -> str:
        """Of the graph's input."""
        return INPUTS[self.input]

    @property
    def output_name(self) -> str:
        """Of the graph's output."""
        return OUTPUTS[self.output]

    def flags(self) -> list[str]:
        """The command's flags that ask for this form; none for the defaults."""
        flags = [
            f"--{name} {value}"
            for name, value, usual in (
                ("input", self.input, PLAIN.input),
                ("output", self.output, PLAIN.output),
                ("opset", self.opset, PLAIN.opset),
            )
            if value != usual
        ]
        if self.any_size:
            flags.append("--any-size")
        flags += [flag for flag, precision in LOWER_PRECISIONS.items() if precision == self.precision]
        if self.max_accuracy_drop != PLAIN.max_accuracy_drop:
            flags.append(f"--max-accuracy-drop {self.max_accuracy_drop:g}")
        return flags


PLAIN = ExportOptions()
"""As the network is."""
