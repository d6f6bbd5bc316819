"""All servers of the side-by-side benchmark, in the order of the report."""

from __future__ import annotations

from loadtest.peers.bentoml import BENTOML
from loadtest.peers.fastapi import FASTAPI
from loadtest.peers.grpc_floor import GRPC_FLOOR
from loadtest.peers.litserve import LITSERVE
from loadtest.peers.mlserver import MLSERVER
from loadtest.peers.ours import GRPCIO, HTTP, NGHTTP2
from loadtest.peers.pytriton import PYTRITON
from loadtest.peers.ray_serve import RAY_SERVE

PEERS = (NGHTTP2, GRPCIO, HTTP, PYTRITON, MLSERVER, LITSERVE, BENTOML, RAY_SERVE, FASTAPI, GRPC_FLOOR)
REFERENCE = NGHTTP2
"""Whose figures the others' are divided by."""
FLOORS = (FASTAPI, GRPC_FLOOR)
