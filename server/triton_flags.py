"""Triton's flags that this server does not take, and what to do about each: for whoever pastes its command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_LOOP = "one event loop reads all requests of a port; for more processes: --reuse-grpc-port and --reuse-http-port"
_POOL = "requests are views on what was received, not objects from a pool"
_SHARED_LIBRARIES = "ONNX Runtime is the only backend, and nothing else is loaded as a shared library"
_CLOUD = "put a proxy in front that turns its routes into those of KServe v2 on --http-port"
_TURNS = "models take turns without it; --max-running-batches bounds what runs at a time"
_COPIES = "ONNX Runtime owns the memory of its devices; see gpu_mem_limit among a model's parameters"

INSTEAD: Mapping[str, str] = {
    "--http-thread-count": _LOOP,
    "--grpc-infer-thread-count": _LOOP,
    "--grpc-infer-allocation-pool-size": _POOL,
    "--grpc-max-response-pool-size": _POOL,
    "--grpc-http2-max-pings-without-data": "the server sends one ping in each --grpc-keepalive-time, and no others",
    "--allow-sagemaker": _CLOUD,
    "--sagemaker-port": _CLOUD,
    "--sagemaker-safe-port-range": _CLOUD,
    "--sagemaker-thread-count": _CLOUD,
    "--allow-vertex-ai": _CLOUD,
    "--vertex-ai-port": _CLOUD,
    "--vertex-ai-thread-count": _CLOUD,
    "--vertex-ai-default-model": _CLOUD,
    "--cache-directory": _SHARED_LIBRARIES,
    "--backend-directory": _SHARED_LIBRARIES,
    "--repoagent-directory": _SHARED_LIBRARIES,
    "--rate-limit": _TURNS,
    "--rate-limit-resource": _TURNS,
    "--pinned-memory-pool-byte-size": "page-locked memory is taken as batches need it; see input_pinned_memory",
    "--cuda-memory-pool-byte-size": _COPIES,
    "--cuda-virtual-address-size": "a state whose dims hold -1 may grow without it",
    "--min-supported-compute-capability": "name the GPUs to use in instance_group, or by CUDA_VISIBLE_DEVICES",
    "--buffer-manager-thread-count": "each instance fills and empties its batches on a thread of its own",
    "--host-policy": "start the server under taskset or numactl; session.intra_op_thread_affinities binds threads",
    "--model-load-gpu-limit": _COPIES,
    "--enable-peer-access": "each instance stays on its GPU, and tensors go through main memory",
    "--strict-model-config": "deprecated in Triton too: true is --disable-auto-complete-config, false the default",
    "--trace-file": "deprecated in Triton too: --trace-config triton,file=PATH",
    "--trace-level": "deprecated in Triton too: --trace-config level=TIMESTAMPS",
    "--trace-rate": "deprecated in Triton too: --trace-config rate=N",
    "--trace-count": "deprecated in Triton too: --trace-config count=N",
    "--trace-log-frequency": "deprecated in Triton too: --trace-config triton,log-frequency=N",
}
"""Flag → what to use instead, or why it is not needed."""


def refusal(argv: Sequence[str]) -> str:
    """A line for each flag of `argv` that only Triton takes, in the order of their appearance; "" where there is none.

    A word that begins with two hyphens is a flag wherever it stands, as for `argparse`.
    """
    given = dict.fromkeys(word.partition("=")[0] for word in argv)
    return "\n".join(f"  {flag}: {INSTEAD[flag]}" for flag in given if flag in INSTEAD)
