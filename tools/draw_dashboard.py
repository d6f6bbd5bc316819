"""A picture of a dashboard with real figures: a server, load that comes in waves, and a Prometheus, for two minutes.

    PYTHONPATH=. python tools/draw_dashboard.py overview docs/images/overview.png

LeNet-5 and the lecture's convolution are asked by more and fewer callers; a slow model with an objective is flooded in
the middle, so that it must refuse.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.grafana.generate import DASHBOARDS
from deploy.grafana.picture import Span, draw
from tests import onnx_models
from tests.real.clients import Client
from tests.real.conftest import MODEL_REPOSITORY, start
from tests.real.monitored import MISSING, PROGRAM, Act, prometheus, slow_rows, together, traffic
from tests.repositories import add_model

ROUNDS = 600
"""Of the slow model: some 10 ms on a core."""
OBJECTIVE_MS = 250
WAVE_SECONDS = 40.0
WARM_SECONDS = 8.0
"""Until a rate has enough scrapes; not drawn."""
RATE_INTERVAL = "5s"


@dataclass(frozen=True)
class Wave:
    """How many callers there are, over time."""

    began: float
    seconds: float

    def callers(self, least: int, most: int, phase: float = 0.0) -> int:
        """Between the two, up and down."""
        height = 0.5 - 0.5 * math.cos(2 * math.pi * ((time.monotonic() - self.began) / WAVE_SECONDS + phase))
        return round(least + (most - least) * height)

    def flood(self, usual: int, flooded: int) -> int:
        """The one number, and the other in the middle fifth of the time."""
        return flooded if abs((time.monotonic() - self.began) / self.seconds - 0.5) < 0.1 else usual


def main() -> None:
    """Draw the picture that the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=100, help="that are drawn (%(default)s)")
    parser.add_argument("--model", help="the one of the dashboard 'model'")
    parser.add_argument("dashboard", choices=sorted(DASHBOARDS))
    parser.add_argument("out", type=Path)
    flags = parser.parse_args()
    if PROGRAM is None:
        parser.error(MISSING)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        server = start(folder, "--metrics-interval-ms=500", model_repository=_repository(folder / "models"))
        wave = Wave(time.monotonic(), flags.seconds + WARM_SECONDS)
        try:
            with prometheus(folder, [f"127.0.0.1:{server.ports['metrics']}"]) as asked, traffic(server, _acts(wave)):
                time.sleep(wave.seconds)
                span = Span(time.time() - flags.seconds, time.time(), RATE_INTERVAL)
                chosen = {"model": flags.model} if flags.model else {}
                flags.out.write_bytes(draw(flags.dashboard, asked, span, chosen))
        finally:
            server.terminate()
    print(f"{flags.out}: {flags.out.stat().st_size / 1000:.0f} kB")


def _repository(root: Path) -> Path:
    shutil.copytree(MODEL_REPOSITORY, root)
    objective = f'parameters {{ key: "slo_ms" value {{ string_value: "{OBJECTIVE_MS}" }} }}'
    add_model(root, "slow", onnx_models.slow(), f"max_batch_size: 4 dynamic_batching {{ }} {objective}")
    return root


def _acts(wave: Wave) -> list[Act]:
    random = np.random.default_rng(0)
    digits = {"input": random.standard_normal((1, 1, 32, 32), np.float32)}
    patch = {"input": random.standard_normal((1, 3, 5, 5), np.float32)}
    wrong = {"input": np.zeros((1, 1, 32, 31), np.float32)}

    return [
        lambda client: _ask(client, "lenet5", digits, wave.callers(4, 60)),
        lambda client: _ask(client, "lenet5", digits, wave.callers(4, 60, 0.1)),
        lambda client: _ask(client, "lecture_conv", patch, wave.callers(2, 30, 0.5)),
        lambda client: _ask(client, "slow", slow_rows(ROUNDS), wave.flood(1, 150)),
        lambda client: together(client, "lenet5", wrong, 1),
        lambda client: together(client, "nobody", digits, 1),
    ]


def _ask(client: Client, model: str, inputs: Mapping[str, np.ndarray], count: int) -> None:
    together(client, model, inputs, count, timeout=1.0)


if __name__ == "__main__":
    main()
