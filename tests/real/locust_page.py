"""Locust with its page, as its users start it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.real.conftest import ROOT
from tests.real.waiting import wait_until

LOCUST = (sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py")
SECONDS = 60


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def page(folder: Path, *arguments: str) -> Iterator[str]:
    """The address of Locust's page, while Locust runs with these arguments. Its log is in `folder`."""
    port = free_port()
    log = folder / "locust.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*LOCUST, "--web-host=127.0.0.1", f"--web-port={port}", *arguments],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def is_there() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return "templateArgs" in get(url)
        except URLError:
            return False

    try:
        wait_until(is_there, SECONDS)
        yield url
    finally:
        process.terminate()
        process.wait(SECONDS)
    assert "Traceback" not in log.read_text(), log.read_text()


def get(url: str, **form: Any) -> str:
    with urlopen(url, urlencode(form).encode() if form else None, timeout=SECONDS) as answer:
        return answer.read().decode()


def state(url: str) -> str:
    """What Locust says of its run: "ready", "running", "stopped" and so on."""
    said: str = json.loads(get(f"{url}/stats/requests"))["state"]
    return said
