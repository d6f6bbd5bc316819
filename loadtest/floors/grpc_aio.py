"""A bare grpc.aio server that answers every ModelInfer with the same bytes: the floor of a Python gRPC server.

python -m loadtest.floors.grpc_aio --answer FILE --ports-file FILE [--port N]
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import grpc

from loadtest.ready import say_ready


async def serve(answer: bytes, ports_file: Path, port: int) -> None:
    """Answers until SIGTERM. Writes {"grpc": port} to `ports_file` once it listens. Port 0: a free one."""

    async def infer(_request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return answer

    handler = grpc.unary_unary_rpc_method_handler(infer)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler})]
    )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    say_ready(ports_file, grpc=port)
    await stop.wait()
    await server.stop(grace=1.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answer", type=Path, required=True, help="a file with a serialised ModelInferResponse")
    parser.add_argument("--ports-file", type=Path, required=True, help="where the chosen port is written")
    parser.add_argument("--port", type=int, default=0, help="where to listen (default: a free port)")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.answer.read_bytes(), arguments.ports_file, arguments.port))
