"""BentoML. What is batched has a JSON type; arrays travel as base64, which is a third of their size in decimal."""

from __future__ import annotations

from loadtest.peers.base import PROGRAMS, Launch, Peer, Serving, requirements
from loadtest.peers.calls import base64_in_json


def _launch(serving: Serving) -> Launch:
    command = [str(serving.python.with_name("bentoml")), "serve", "bentoml_server:Classifier"]
    command += ["--host", "127.0.0.1", "--port", str(serving.ports["http"]), "--working-dir", str(PROGRAMS)]
    return Launch(tuple(command), {**serving.environment(), "BENTOML_DO_NOT_TRACK": "True"})


BENTOML = Peer(
    name="bentoml",
    title="BentoML",
    protocol="HTTP/1.1",
    call=lambda _: base64_in_json("/predict", "inputs", listed=True, answer_key=None),
    launch=_launch,
    configuration="`batchable=True`, `max_batch_size`, `max_latency_ms` as it comes (its batcher adapts the window); "
    "`workers=1`, no access log; base64 in JSON",
    packages=("bentoml", "uvicorn", "onnxruntime"),
    requirements=requirements("bentoml"),
)
