"""BentoML: base64 of float32 in JSON; its adaptive batching, which finds the window by itself.

Started by `bentoml serve bentoml_server:Classifier`.
"""

from __future__ import annotations

from base64 import b64decode

import bentoml
import numpy as np
from served_model import served_model

MODEL = served_model()


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Classifier:
    def __init__(self) -> None:
        self.run = MODEL.load()

    @bentoml.api(batchable=True, max_batch_size=MODEL.max_batch)
    def predict(self, inputs: list[str]) -> list[list[float]]:
        answers: list[list[float]] = self.run(np.stack([MODEL.row(b64decode(text)) for text in inputs])).tolist()
        return answers
