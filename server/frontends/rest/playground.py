"""The playground: the files of a page that asks this server's public routes. Built by `make playground`.

They are read once, at the start, and served from memory, plain and gzipped. They hold no secret and ask for no token;
what the page asks for does, where a policy says so.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path

from server.frontends.rest.exchange import Content, Exchange, Route
from server.frontends.rest.http1 import accepts
from server.tensors import Buffer

STATIC = Path(__file__).parents[2] / "playground" / "static"
PAGE = "index.html"
MANIFEST = "sources.json"
"""Says what the page was built from; not served."""

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
COMPRESSED = frozenset((".png",))
"""Gzip makes nothing smaller of these."""

# Nothing but files of this server, no inline scripts or styles, in nobody's frame. Images are drawings, too.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = (
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


def playground_routes(folder: Path = STATIC) -> Iterator[Route]:
    """A route for each file; the page itself is at `/`. Raises `OSError` where a file cannot be read."""
    if not (folder / PAGE).is_file():
        raise OSError(f"{folder} has no {PAGE}: `make playground` builds it; --ui=false serves without it")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            file = _File(path.suffix, path.read_bytes())
            yield Route("GET", "" if name == PAGE else name, partial(_handle, file), "Playground")


class _File:
    """A file in both its codings, and what is said about it. One weak entity tag is for both (RFC 9110, 8.8.3)."""

    __slots__ = ("about", "etag", "gzipped", "plain")

    def __init__(self, suffix: str, body: bytes) -> None:
        """Raises `OSError` for a file of a kind that browsers would have to guess."""
        if suffix not in TYPES:
            raise OSError(f"the playground has a file with the suffix {suffix!r}, whose media type is not known")
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        self.etag = tag
        # Browsers ask each time whether what they have is still good: another version of the server is another page.
        self.about = (
            *SECURITY_HEADERS,
            ("ETag", f"W/{tag}"),
            ("Cache-Control", "no-cache"),
            ("Vary", "Accept-Encoding"),
        )
        described = (*self.about, ("Content-Type", TYPES[suffix]))
        self.plain = Content(body, described)
        self.gzipped = self.plain
        if suffix not in COMPRESSED:
            self.gzipped = Content(gzip.compress(body, mtime=0), (*described, ("Content-Encoding", "gzip")))


def _handle(file: _File, exchange: Exchange, _: Buffer) -> None:
    header = exchange.head.header
    if _matches(header(b"if-none-match"), file.etag):
        exchange.respond(HTTPStatus.NOT_MODIFIED, Content(b"", file.about))
    elif accepts(header(b"accept-encoding"), ("gzip",)):
        exchange.respond(HTTPStatus.OK, file.gzipped)
    else:
        exchange.respond(HTTPStatus.OK, file.plain)


def _matches(if_none_match: str, tag: str) -> bool:
    """Whether the caller has the file already (RFC 9110, 13.1.2: compared weakly)."""
    known = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return tag in known or known == ["*"]
