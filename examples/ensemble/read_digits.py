"""Send picture files to the ensemble of `make.py` and print what it reads.

    python examples/ensemble/read_digits.py three.jpg seven.png    pictures of yours: a dark digit on light paper
    python examples/ensemble/read_digits.py                        ten held-out digits, as JPEG files

All pictures go in one request: every step of the ensemble runs them as one batch. Needs `tritonclient[grpc]`, numpy,
and Pillow where no files are given.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

DIGITS = Path(__file__).parents[1] / "digits_held_out.npz"


def jpeg_files(count: int) -> list[bytes]:
    """Held-out digits, as pictures of 32×32."""
    from PIL import Image

    digits = np.load(DIGITS)
    ink = digits["upscale"] @ digits["images"][:count].astype(np.float32) @ digits["upscale"].T / 16
    files = []
    for pixels in np.rint(255 * (1 - ink)).clip(0, 255).astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    return files


def read(client: triton.InferenceServerClient, files: list[bytes]) -> list[tuple[str, float]]:
    """Label and confidence of each picture."""
    pictures = triton.InferInput("picture", [len(files), 1], "BYTES")
    pictures.set_data_from_numpy(np.array(files, dtype=np.object_).reshape(-1, 1))
    answer = client.infer("digit_reader", [pictures])
    labels, confidences = answer.as_numpy("label")[:, 0], answer.as_numpy("confidence")[:, 0]
    return [(label.decode(), float(confidence)) for label, confidence in zip(labels, confidences, strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description="Read pictures of digits with an ensemble.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--url", default="localhost:8001", help="default: localhost:8001")
    options = parser.parse_args()
    try:
        files = [path.read_bytes() for path in options.files] or jpeg_files(10)
        with triton.InferenceServerClient(options.url) as client:
            answers = read(client, files)
    except (OSError, InferenceServerException) as error:
        print(f"read_digits: {error}", file=sys.stderr)
        return 1
    names = [path.name for path in options.files] or [f"digit {n}" for n in range(len(files))]
    for name, (label, confidence) in zip(names, answers, strict=True):
        print(f"{name}: {label} ({confidence:.4f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
