"""Every network of the zoo in the real server: exported with random weights, loaded, asked over gRPC, and taken away.

    PYTHONPATH=. python tools/serve_zoo.py [NETWORK …]

One after the other, each with a server of its own, so that the server's peak memory is the network's. `export` refuses
if ONNX Runtime and torch differ by more than 1e-4 of the greatest answer; here the server's answers, at batches of 1, 2
and 5, must be those of ONNX Runtime alone, as near. Any shortcoming ends it with a status of 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import tritonclient.grpc as triton
from numpy.typing import NDArray

from loadtest.processes import Running, our_server, starting
from training import nets

BATCHES = (1, 2, 5)
TOLERANCE = 1e-4
"""Of the greatest answer."""
MEMORY_LIMIT_GB = 8.0
EXPORT_SECONDS, ANSWER_SECONDS = 600, 120
HEAD = "| network | input | ONNX (MB) | apart | ready (s) | answer (ms) | server's peak (GB) |"


@dataclass(frozen=True)
class Served:
    """One network's line."""

    name: str
    graph_mb: float
    apart: float
    """Greatest difference between the server and ONNX Runtime alone, as a part of the greatest answer."""
    ready_s: float
    """From the start of the server, warm-up at each batch size included."""
    answer_ms: float
    """One picture, there and back; the least of three."""
    peak_gb: float
    """Of the server's process."""

    def line(self) -> str:
        """As a row under `HEAD`."""
        size = "×".join(map(str, nets.NETWORKS[self.name].input_shape))
        figures = f"{self.graph_mb:.1f} | {self.apart:.0e} | {self.ready_s:.1f} | {self.answer_ms:.1f}"
        return f"| {self.name} | {size} | {figures} | {self.peak_gb:.2f} |"

    def shortcoming(self) -> str | None:
        """What it lacks, in a sentence; None: nothing."""
        if not self.apart <= TOLERANCE:
            return f"{self.name}: server and ONNX Runtime are {self.apart:.1e} of the answer apart."
        if self.peak_gb > MEMORY_LIMIT_GB:
            return f"{self.name}: the server took {self.peak_gb:.1f} GB, and {MEMORY_LIMIT_GB:.0f} are allowed."
        return None


def main(arguments: list[str]) -> int:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="default: all")
    names = parser.parse_args(arguments).networks or list(nets.NETWORKS)
    for name in names:
        nets.find(name)
    print(f"{HEAD}\n|{'---|' * HEAD.count(' | ')}---|")
    lacking = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="convoy-zoo-") as folder:
            served = serve(name, Path(folder))
        print(served.line(), flush=True)
        lacking += filter(None, [served.shortcoming()])
    print("\n".join(lacking), file=sys.stderr, end="\n" if lacking else "")
    return 1 if lacking else 0


def serve(name: str, folder: Path) -> Served:
    """Export one network into the folder, serve it, and ask."""
    repository = folder / "models"
    command = [sys.executable, "-m", "training", "export", name, "--random-weights", "--repository", str(repository)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=EXPORT_SECONDS)
    path = repository / name / "1" / "model.onnx"
    began = time.monotonic()
    with starting(our_server(repository), folder, "server") as start:
        server = start.wait_until_ready()
        ready_s = time.monotonic() - began
        with asking(server, name) as client:
            apart = max(compare(client, name, path))
            answer_ms = min(milliseconds(client, name) for _ in range(3))
        return Served(name, path.stat().st_size / 1e6, apart, ready_s, answer_ms, server.peak_rss_bytes() / 1e9)


@contextmanager
def asking(server: Running, name: str) -> Iterator[triton.InferenceServerClient]:
    """A client, once the server says that the model is ready."""
    with triton.InferenceServerClient(server.address) as client:
        if not client.is_model_ready(name):
            raise SystemExit(f"{name} is not ready, though its server is.")
        yield client


def compare(client: triton.InferenceServerClient, name: str, path: Path) -> Iterator[float]:
    """At each batch size, how far the server is from ONNX Runtime alone, as a part of the greatest answer."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    for batch in BATCHES:
        images = generator.random((batch, *nets.NETWORKS[name].input_shape), dtype=np.float32)
        expected = session.run(None, {"input": images})[0]
        answer = ask(client, name, images)
        if answer.shape != (batch, nets.NETWORKS[name].classes):
            raise SystemExit(f"{name} answered {answer.shape} to a batch of {batch}.")
        yield float(np.abs(answer - expected).max() / np.abs(expected).max())


def milliseconds(client: triton.InferenceServerClient, name: str) -> float:
    """What one picture takes, there and back."""
    image = np.zeros((1, *nets.NETWORKS[name].input_shape), np.float32)
    began = time.monotonic()
    ask(client, name, image)
    return (time.monotonic() - began) * 1000


def ask(client: triton.InferenceServerClient, name: str, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The answer over gRPC. (N, C, H, W) → (N, classes)."""
    tensor = triton.InferInput("input", images.shape, "FP32")
    tensor.set_data_from_numpy(images)
    answer = client.infer(name, [tensor], client_timeout=ANSWER_SECONDS)
    return np.asarray(answer.as_numpy("probabilities"), np.float32)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
