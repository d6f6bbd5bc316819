"""Classify held-out handwritten digits with a running server, and draw them in the terminal.

    python examples/classify_digits.py                  one digit
    python examples/classify_digits.py --index 41       that digit
    python examples/classify_digits.py --all            all of them, ending with the accuracy
    python examples/classify_digits.py --all --png      the same, sent as PNG files
    python examples/classify_digits.py --file five.jpg  a picture of yours: a dark digit on light paper, in its middle

The digits are real ones from scikit-learn that no training has seen; `digits_held_out.npz` beside this file has them
with all that it takes to make a network's input. Needs `tritonclient[grpc]` and numpy; `--png` needs Pillow.
"""

from __future__ import annotations

import argparse
import io
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


def png_files(digits: np.lib.npyio.NpzFile) -> list[bytes]:
    """The same as pictures of 32×32: the server makes the network's input, as its config.pbtxt says."""
    from PIL import Image

    upscale = digits["upscale"]
    ink = upscale @ digits["images"].astype(np.float32) @ upscale.T / INK
    files = []
    for pixels in np.rint(255 * (1 - ink)).astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files.append(file.getvalue())
    return files


def classify(
    client: triton.InferenceServerClient, model: str, output: str, image: np.ndarray | bytes, top: int = 3
) -> list[list[str]]:
    """Ask for the best classes of one image, (1, 32, 32) or a file: [score, index, label] each, best first."""
    if isinstance(image, bytes):
        tensor = triton.InferInput("input", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([image], dtype=np.object_))
    else:
        tensor = triton.InferInput("input", [1, *image.shape], "FP32")
        tensor.set_data_from_numpy(image[np.newaxis])
    answer = client.infer(model, [tensor], outputs=[triton.InferRequestedOutput(output, class_count=top)])
    return [entry.decode().split(":") for entry in answer.as_numpy(output)[0]]


def draw(image: np.ndarray) -> str:
    """An 8×8 digit of 0..16 in characters."""
    rows = [[SHADES[min(len(SHADES) - 1, pixel * len(SHADES) // (INK + 1))] * 2 for pixel in row] for row in image]
    return "\n".join("    " + "".join(row) for row in rows)


def show(title: str, classes: list[list[str]]) -> None:
    print(title)
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
    which.add_argument("--file", type=Path, metavar="PICTURE", help="a PNG or JPEG file instead")
    parser.add_argument("--png", action="store_true", help="send the digits as PNG files, not as tensors")
    flags = parser.parse_args()
    if not 0 <= flags.index < count:
        parser.error(f"--index must be 0 to {count - 1}")

    if flags.file is not None:
        chosen = range(0)
    else:
        inputs = png_files(digits) if flags.png else network_input(digits)
        chosen = range(count) if flags.all else range(flags.index, flags.index + 1)
    right = 0
    try:
        with triton.InferenceServerClient(flags.url) as client:
            output = client.get_model_metadata(flags.model).outputs[0].name
            if flags.file is not None:
                show(f"{flags.file}:", classify(client, flags.model, output, flags.file.read_bytes()))
            for index in chosen:
                classes = classify(client, flags.model, output, inputs[index])
                right += classes[0][2] == str(digits["labels"][index])
                show(f"digit {index}, written as {digits['labels'][index]}:\n{draw(digits['images'][index])}", classes)
    except InferenceServerException as error:
        print(f"{flags.url}: {error.message()}", file=sys.stderr)
        return 1
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    if flags.all:
        print(f"accuracy {right / count:.4f} on {count} held-out digits")
    return 0


if __name__ == "__main__":
    sys.exit(main())
