"""Classify held-out handwritten digits with a running server, and draw them in the terminal.

    python examples/classify_digits.py                  one digit
    python examples/classify_digits.py --index 41       that digit
    python examples/classify_digits.py --all            all of them, ending with the accuracy

The digits are real ones from scikit-learn that no training has seen; `digits_held_out.npz` beside this file has them
with all that it takes to make a network's input. Needs `tritonclient[grpc]` and numpy.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

DIGITS = Path(__file__).with_name("digits_held_out.npz")
SHADES = " .:-=+*#%@"
INK = 16  # the value of a pixel that is all ink


def network_input(digits: np.lib.npyio.NpzFile) -> np.ndarray:
    """The held-out digits as LeNet-5 reads them: (N, 1, 32, 32) float32."""
    upscale = digits["upscale"]
    pixels = upscale @ digits["images"].astype(np.float32) @ upscale.T
    return (pixels * digits["scale"] + digits["offset"])[:, np.newaxis]


def classify(
    client: triton.InferenceServerClient, model: str, output: str, image: np.ndarray, top: int = 3
) -> list[list[str]]:
    """Ask for the best classes of one image (1, 32, 32): [score, index, label] each, best first."""
    tensor = triton.InferInput("input", [1, *image.shape], "FP32")
    tensor.set_data_from_numpy(image[np.newaxis])
    answer = client.infer(model, [tensor], outputs=[triton.InferRequestedOutput(output, class_count=top)])
    return [entry.decode().split(":") for entry in answer.as_numpy(output)[0]]


def draw(image: np.ndarray) -> str:
    """An 8×8 digit of 0..16 in characters."""
    rows = [[SHADES[min(len(SHADES) - 1, pixel * len(SHADES) // (INK + 1))] * 2 for pixel in row] for row in image]
    return "\n".join("    " + "".join(row) for row in rows)


def show(index: int, image: np.ndarray, label: int, classes: list[list[str]]) -> None:
    print(f"digit {index}, written as {label}:\n{draw(image)}")
    for score, _, name in classes:
        print(f"    {name}   {float(score):8.4f}")
    print()


def main() -> int:
    digits = np.load(DIGITS)
    count = len(digits["labels"])
    parser = argparse.ArgumentParser(description="Classify held-out handwritten digits with a running server.")
    parser.add_argument("--url", default="localhost:8001", metavar="H:P", help="gRPC address (default localhost:8001)")
    parser.add_argument("--model", default="lenet5", help="default lenet5")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--index", type=int, default=0, metavar="N", help=f"which digit, 0 to {count - 1}")
    which.add_argument("--all", action="store_true", help="all of them")
    flags = parser.parse_args()
    if not 0 <= flags.index < count:
        parser.error(f"--index must be 0 to {count - 1}")

    inputs = network_input(digits)
    chosen = range(count) if flags.all else [flags.index]
    right = 0
    try:
        with triton.InferenceServerClient(flags.url) as client:
            output = client.get_model_metadata(flags.model).outputs[0].name
            for index in chosen:
                classes = classify(client, flags.model, output, inputs[index])
                right += classes[0][2] == str(digits["labels"][index])
                show(index, digits["images"][index], digits["labels"][index], classes)
    except InferenceServerException as error:
        print(f"{flags.url}: {error.message()}", file=sys.stderr)
        return 1
    if flags.all:
        print(f"accuracy {right / count:.4f} on {count} held-out digits")
    return 0


if __name__ == "__main__":
    sys.exit(main())
