"""What decides how HTTP is served. Times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from server.frontends.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """The options of one listener."""

    max_input_bytes: int = 64 << 20
    """The largest body of a request, also after decompression."""
    tls: TlsFiles | None = None
    head_timeout: float = 20.0
    """How long a request's head may take to arrive."""
    body_timeout: float = 60.0
    """How long a body that is arriving, or an answer that is read, may make no progress worth the name."""
    idle_timeout: float = 300.0
    """How long a connection may stay open without a request."""
