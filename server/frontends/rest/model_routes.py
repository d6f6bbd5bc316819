"""What every route that asks a model needs."""

from __future__ import annotations

from dataclasses import dataclass

from server.frontends.access import Gate
from server.frontends.inference_service import InferenceService
from server.frontends.rest.bodies import Bodies
from server.frontends.rest.json_tensors import NonFinite
from server.header_pattern import HeaderPattern
from server.models.registry import Registry


@dataclass(frozen=True)
class ModelRoutes:
    """The parts of the server that `InferRoutes` and `GenerateRoutes` work with."""

    service: InferenceService
    registry: Registry
    bodies: Bodies
    non_finite: NonFinite
    forwarded: HeaderPattern | None = None
    """Which headers requests carry on."""
    gate: Gate | None = None
    """Asked whether requests may have tensors in shared memory; None: nobody is."""
