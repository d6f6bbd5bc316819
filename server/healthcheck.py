"""`python -m server.healthcheck`: is the server ready? Exit status 0: yes; 1: no, with the reason on stderr.

For a container's health check: an image needs no curl. It runs every few seconds, so this module imports none of the
server's, and not http.client either, which takes as long to import as all the rest; one line of HTTP is to be read.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

READY_URL = "http://127.0.0.1:8000/v2/health/ready"


def main(argv: Sequence[str] | None = None) -> int:
    """Ask once. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m server.healthcheck",
        description="Ask a server over HTTP whether it is ready.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--url", type=_http_url, default=READY_URL, help="what answers 200 if well (default %(default)s)"
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=2.0, metavar="SECONDS", help="for each step: connect, answer (default 2)"
    )
    for name, what in (("ca", "root of the server's certificate"), ("cert", "certificate to show"), ("key", "its key")):
        parser.add_argument(f"--{name}-file", metavar="PATH", help=f"for https://, a PEM file: {what}")
    options = parser.parse_args(argv)
    problem = ask(options.url, options.timeout, options.ca_file, options.cert_file, options.key_file)
    if problem:
        print(f"{options.url}: {problem}", file=sys.stderr)
    return 1 if problem else 0


def ask(
    url: str, timeout: float, ca_file: str | None = None, cert_file: str | None = None, key_file: str | None = None
) -> str | None:
    """What is wrong with the answer to GET `url`; None where it is 200. `timeout` in seconds.

    PEM files for `https://`: the root of the server's certificate (None: the system's), and what to show.
    """
    parts = urlsplit(url)
    host, secured = parts.hostname or "", parts.scheme == "https"
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        with (
            socket.create_connection((host, parts.port or (443 if secured else 80)), timeout) as plain,
            _wrapped(plain, host, ca_file, cert_file, key_file) if secured else plain as peer,
            peer.makefile("rb") as answer,
        ):
            # HTTP/1.0: the server closes when it has answered.
            peer.sendall(f"GET {target} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
            line = answer.readline(1024)
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except OSError as error:
        return str(error)
    words = line.decode("latin-1").split()
    if len(words) < 2 or not words[0].startswith("HTTP/"):
        return f"no HTTP, but {line[:40]!r}" if line else "closed the connection without an answer"
    return None if words[1] == "200" else f"answered {words[1]}"


def _wrapped(
    peer: socket.socket, host: str, ca_file: str | None, cert_file: str | None, key_file: str | None
) -> socket.socket:
    """Over TLS. Raises `OSError`."""
    import ssl  # takes as long as all else here, and few need it

    context = ssl.create_default_context(cafile=ca_file)
    if cert_file:
        context.load_cert_chain(cert_file, key_file)
    return context.wrap_socket(peer, server_hostname=host)


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(f"must be http://HOST:PORT/PATH or https://…, not '{text}'")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if 0 < value < float("inf"):
        return value
    raise argparse.ArgumentTypeError(f"must be a positive number of seconds, not '{text}'")


if __name__ == "__main__":
    sys.exit(main())
