"""Our server, with each of its engines; a repository of one model is written for it."""

from __future__ import annotations

import shutil
import sys
from functools import partial

from loadtest.peers.base import Launch, Peer, Serving
from loadtest.peers.calls import v2_grpc, v2_http


def _launch(engine: str, serving: Serving) -> Launch:
    subject = serving.subject
    version = serving.scratch / "repository" / subject.name / "1"
    version.mkdir(parents=True)
    shutil.copyfile(subject.file, version / "model.onnx")
    (version.parent / "config.pbtxt").write_text(
        f'platform: "onnxruntime_onnx"\nmax_batch_size: {subject.max_batch}\ndynamic_batching {{ }}\n'
        f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{subject.threads}" }} }}\n'
    )
    command = [sys.executable, "-m", "server", f"--model-repository={serving.scratch / 'repository'}"]
    command += [f"--grpc-engine={engine}"]
    for kind, port in serving.ports.items():
        command += [f"--{kind}-address=127.0.0.1", f"--{kind}-port={port}"]
    return Launch(tuple(command))


NGHTTP2 = Peer(
    name="nghttp2",
    title="Convoy, nghttp2",
    protocol="gRPC",
    call=v2_grpc,
    launch=partial(_launch, "nghttp2"),
    configuration="`--grpc-engine=nghttp2`; `dynamic_batching { }`: a batch goes when an instance is idle, no delay",
    packages=("onnxruntime", "uvloop", "numpy"),
    ours=True,
)
GRPCIO = Peer(
    name="grpcio",
    title="Convoy, grpcio",
    protocol="gRPC",
    call=v2_grpc,
    launch=partial(_launch, "grpcio"),
    configuration="`--grpc-engine=grpcio`; the rest as above",
    packages=("grpcio", "onnxruntime"),
    ours=True,
)
HTTP = Peer(
    name="http",
    title="Convoy, HTTP",
    protocol="HTTP/1.1",
    call=v2_http,
    launch=partial(_launch, "nghttp2"),
    configuration="the same server, asked over HTTP/1.1 with the binary tensor extension",
    packages=("onnxruntime", "uvloop"),
    ours=True,
)
