"""`python -m server.healthcheck`: is the server ready? Exit status 0: yes; 1: no, with the reason on stderr.

For a container's health check: an image needs no curl, and the standard library alone starts in a fraction of the time
that the server's own modules take, so this module imports none of them.
"""

from __future__ import annotations

import argparse
import http.client
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
    options = parser.parse_args(argv)
    problem = ask(options.url, options.timeout)
    if problem:
        print(f"{options.url}: {problem}", file=sys.stderr)
    return 1 if problem else 0


def ask(url: str, timeout: float) -> str | None:
    """What is wrong with the answer to GET `url`; None where it is 200. `timeout` in seconds."""
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("GET", target, headers={"Connection": "close"})
        status = connection.getresponse().status
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    return None if status == 200 else f"answered {status}"


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(f"must be http://HOST:PORT/PATH, not '{text}'")
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
