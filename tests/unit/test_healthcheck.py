"""The probe of containers, against an HTTP server of this process."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from server.healthcheck import main

TIMEOUT = "--timeout=5"


class Answer(BaseHTTPRequestHandler):
    """The status that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.rpartition("/")[2]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def answered_with(answer: bytes) -> int:
    """The probe's exit status, asking a peer that reads the request, says this and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        status = main([f"--url=http://127.0.0.1:{listener.getsockname()[1]}/", TIMEOUT])
        thread.join()
    return status


def test_a_server_that_answers_200_is_well(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([f"--url={address}/v2/health/200", TIMEOUT]) == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("status", [204, 301, 400, 503])
def test_a_server_that_answers_anything_else_is_not(
    status: int, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--url={address}/{status}", TIMEOUT]) == 1
    assert capfd.readouterr().err == f"{address}/{status}: answered {status}\n"


def test_a_port_that_nobody_listens_on_is_not_well(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as bound_but_silent:
        bound_but_silent.bind(("127.0.0.1", 0))
        assert main([f"--url=http://127.0.0.1:{bound_but_silent.getsockname()[1]}", TIMEOUT]) == 1
    assert "Connection refused" in capfd.readouterr().err


def test_a_server_that_never_answers_is_not_well(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert main([f"--url=http://127.0.0.1:{listener.getsockname()[1]}/", "--timeout=0.05"]) == 1
    assert "no answer within 0.05 s" in capfd.readouterr().err


def test_a_peer_that_hangs_up_is_not_well(capfd: pytest.CaptureFixture[str]) -> None:
    assert answered_with(b"") == 1
    assert "closed the connection without an answer" in capfd.readouterr().err


def test_a_peer_that_speaks_another_protocol_is_not_well(capfd: pytest.CaptureFixture[str]) -> None:
    assert answered_with(b"SSH-2.0-OpenSSH\r\n") == 1
    assert "no HTTP, but b'SSH-2.0-OpenSSH" in capfd.readouterr().err


@pytest.mark.parametrize(
    "flag", ["--url=127.0.0.1:8000", "--url=ftp://there/", "--url=http://there:port/", "--timeout=0", "--timeout=nan"]
)
def test_a_wrong_flag_is_a_usage_error(flag: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([flag])
    assert caught.value.code == 2
    assert f"not '{flag.partition('=')[2]}'" in capfd.readouterr().err


def test_it_starts_without_the_modules_of_the_server() -> None:
    listing = "import sys, server.healthcheck; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True, timeout=60)
    modules = set(loaded.stdout.split())
    assert {name for name in modules if name.partition(".")[0] == "server"} == {"server", "server.healthcheck"}
    assert not modules & {"numpy", "grpc", "asyncio", "uvloop", "onnxruntime", "http.client"}
