"""MLServer's custom runtime. Started by `mlserver start FOLDER`, whose model-settings.json names this class."""

from __future__ import annotations

from collections.abc import Callable

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from served_model import Tensor, served_model

MODEL = served_model()


class OnnxRuntime(MLModel):
    run: Callable[[Tensor], Tensor]

    async def load(self) -> bool:
        self.run = MODEL.load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        batch = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output(MODEL.output, self.run(batch))
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
