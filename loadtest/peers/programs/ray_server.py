"""Ray Serve: float32 bytes in and out; `serve.batch` forms batches in the one replica."""

from __future__ import annotations

import signal
import tempfile

import numpy as np
import ray
from ray import serve
from served_model import Tensor, served_model
from starlette.requests import Request
from starlette.responses import Response

MODEL = served_model()


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Classifier:
    def __init__(self) -> None:
        self.run = MODEL.load()

    @serve.batch(max_batch_size=MODEL.max_batch, batch_wait_timeout_s=MODEL.window_us / 1e6)
    async def classify(self, rows: list[Tensor]) -> list[Tensor]:
        return list(self.run(np.stack(rows)))

    async def __call__(self, request: Request) -> Response:
        answer = await self.classify(MODEL.row(await request.body()))
        return Response(answer.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=tempfile.gettempdir())
    serve.start(http_options={"host": "127.0.0.1", "port": MODEL.ports["http"]})
    serve.run(Classifier.bind())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
