"""LitServe: base64 of float32 in JSON, as its documentation sends pictures; batches by its own loop."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable

import litserve
import numpy as np
from served_model import Tensor, served_model

MODEL = served_model()


class Api(litserve.LitAPI):
    run: Callable[[Tensor], Tensor]

    def setup(self, device: str) -> None:
        self.run = MODEL.load()

    def decode_request(self, request: dict[str, str]) -> Tensor:
        return MODEL.row(b64decode(request["input"]))

    def batch(self, inputs: list[Tensor]) -> Tensor:
        return np.stack(inputs)

    def predict(self, batch: Tensor) -> Tensor:
        return self.run(batch)

    def unbatch(self, output: Tensor) -> list[Tensor]:
        return list(output)

    def encode_response(self, output: Tensor) -> dict[str, list[float]]:
        return {"output": output.tolist()}


if __name__ == "__main__":
    api = Api(max_batch_size=MODEL.max_batch, batch_timeout=MODEL.window_us / 1e6)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=MODEL.ports["http"], log_level="warning", generate_client_file=False)
