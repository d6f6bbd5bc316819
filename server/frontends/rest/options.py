"""What decides how HTTP is served. Times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.frontends.statuses import AS_TRITON, Failures
from server.frontends.tls import TlsFiles
from server.memory_budget import MemoryBudget
from server.pages import Populator


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """The options of one listener."""

    memory: MemoryBudget = field(default_factory=MemoryBudget)
    """What requests and answers may hold, here and elsewhere in the process."""
    populator: Populator = field(default_factory=Populator)
    """Makes the pages that large requests are read into."""
    failures: Failures = AS_TRITON
    """How requests fail that the budget has no room for."""
    max_input_bytes: int = 64 << 20
    """The largest body of a request, also after decompression."""
    tls: TlsFiles | None = None
    reuse_port: bool = False
    """Whether other processes may listen on the port too; the kernel deals connections out."""
    head_timeout: float = 20.0
    """How long a request's head may take to arrive."""
    body_timeout: float = 60.0
    """How long a body that is arriving, or an answer that is read, may make no progress worth the name."""
    idle_timeout: float = 300.0
    """How long a connection may stay open without a request."""
