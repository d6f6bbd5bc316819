"""What decides how gRPC is served, whichever engine does it. Times in seconds; names after Triton's flags."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from server.frontends.statuses import AS_TRITON, Failures
from server.frontends.tls import TlsFiles
from server.memory_budget import MemoryBudget
from server.pages import Populator


@dataclass(frozen=True, slots=True)
class GrpcOptions:
    """The options of one listener."""

    memory: MemoryBudget = field(default_factory=MemoryBudget)
    """What requests and answers may hold, here and elsewhere in the process."""
    populator: Populator = field(default_factory=Populator)
    """Makes the pages that large requests are read into."""
    failures: Failures = AS_TRITON
    """How calls fail that the budget has no room for."""
    max_message_bytes: int = 128 << 20
    """The largest request, after decompression."""
    compression_level: int = 0
    """Of answers, as grpc core has it: 1 low, 2 medium, 3 high; 0 none. grpcio compresses those of all methods, for
    callers who accept it; nghttp2 those that methods ask it to compress."""
    reuse_port: bool = False
    """Share the port with other processes (SO_REUSEPORT)."""
    tls: TlsFiles | None = None
    keepalive_time: float = 7200.0
    """Silence after which the peer is asked whether it still lives."""
    keepalive_timeout: float = 20.0
    """How long it may take to answer."""
    keepalive_permit_without_calls: bool = False
    """Whether to ask, and to let peers ask, while no call is open."""
    min_recv_ping_interval_without_data: float = 300.0
    """How often a peer may ask while no data is sent to it."""
    max_ping_strikes: int = 2
    """How often a peer may ask too often; 0 lets it."""
    max_connection_age: float = inf
    max_connection_age_grace: float = inf
    """How long calls may go on on a connection that is too old."""
    handshake_timeout: float = 20.0
    """How long a new connection may take to say anything."""
    request_timeout: float = 60.0
    """How long a request may take to arrive whole, and a peer to make room for answers."""
