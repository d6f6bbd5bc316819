"""Several servers behind a balancer, callers that never stop asking, and what each of them was told."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from proto import grpc_service_pb2 as pb
from tests.real.clients import SERVICE, arrays, infer_request
from tests.real.conftest import ROOT
from tests.real.test_drain import rows
from tests.real.waiting import wait_until

NGINX_CONF = ROOT / "deploy/nginx/nginx.conf"
UNPACKED = ROOT / ".cache/debian/usr"


def find_nginx() -> tuple[str, dict[str, str]]:
    """The installed program, or the one that tools/system_packages.sh has unpacked, and its environment.

    Skips the test without one.
    """
    installed = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if installed:
        return installed, dict(os.environ)
    if (UNPACKED / "sbin/nginx").exists():
        libraries = ":".join(map(str, (UNPACKED / "lib").glob("*-linux-gnu*")))
        return str(UNPACKED / "sbin/nginx"), {**os.environ, "LD_LIBRARY_PATH": libraries}
    pytest.skip("nginx is missing; as root: apt-get install nginx")


def configuration(port: int, addresses: list[str], folder: Path) -> str:
    """deploy/nginx/nginx.conf for these servers: nothing else is changed but where things are."""
    text = NGINX_CONF.read_text()
    balanced = "server server:8001 resolve "
    (line,) = (line.strip() for line in text.splitlines() if line.strip().startswith(balanced))
    servers = " ".join(line.replace(balanced, f"server {address} ") for address in addresses)
    changes = {
        line: servers,
        "resolver 127.0.0.11 valid=2s;": "",
        "listen 8001 http2;": f"listen 127.0.0.1:{port} http2;",
    }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text.replace("/tmp/", f"{folder}/")


@contextmanager
def nginx(addresses: list[str], folder: Path) -> Iterator[str]:
    """Run nginx before these servers; its address."""
    program, environment = find_nginx()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config, log = folder / "nginx.conf", folder / "nginx.log"
    config.write_text(configuration(port, addresses, folder))
    command = [program, "-p", str(folder), "-c", str(config), "-e", "stderr", "-g", "daemon off;"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)

    def listens() -> bool:
        assert process.poll() is None, f"nginx did not start:\n{log.read_text()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, 20)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(20) == 0


@dataclass
class Callers:
    """Callers on one channel: each asks for numbers of its own until it is refused or told to stop."""

    answered: list[int] = field(default_factory=list)
    failed: list[grpc.StatusCode] = field(default_factory=list)
    stopping: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self, channel: grpc.aio.Channel, count: int) -> list[asyncio.Task[None]]:
        """So many of them."""
        return [asyncio.create_task(self._call(channel, caller, count)) for caller in range(count)]

    async def _call(self, channel: grpc.aio.Channel, value: int, step: int) -> None:
        infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
        while not self.stopping:
            request = infer_request("affine", rows(value)).SerializeToString()
            try:
                answer = await infer(request, timeout=30)
            except grpc.aio.AioRpcError as error:
                self.failed.append(error.code())
                return
            assert arrays(pb.ModelInferResponse.FromString(answer))["y"].item() == 3 * value + 1
            self.answered.append(value)
            self.news.set()
            value += step

    async def more(self, count: int) -> None:
        """Return when so many more have been answered."""
        wanted = len(self.answered) + count
        async with asyncio.timeout(60):
            while len(self.answered) < wanted:
                self.news.clear()
                await self.news.wait()
