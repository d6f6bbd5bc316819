"""The plans of a version's requests, remembered: most requests look like others before them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from server.messages import InferenceRequest
from server.models import admission
from server.models.admission import Plan
from server.models.config import ModelConfig
from server.scheduling.assembly import BatchLayout, InputLayout

REMEMBERED_PLANS = 256
"""Of each version: whoever sends ever new shapes fills no memory."""

P = TypeVar("P")


class Plans(Generic[P]):
    """Of one version, each made by `make` of the first request that looks like it."""

    __slots__ = ("_latest", "_latest_outputs", "_latest_specs", "_make", "_remembered")

    _latest: P
    """That of the request that came last. A remembered head brings the same objects again."""

    def __init__(self, make: Callable[[InferenceRequest], P]) -> None:
        self._make = make
        self._remembered: dict[tuple[object, object], P] = {}
        self._latest_specs: object = None
        self._latest_outputs: object = None

    def of(self, request: InferenceRequest) -> P:
        """The plan for requests that look like this one. Raises what `make` raises, and remembers nothing then."""
        specs, outputs = request.specs, request.outputs
        if specs is self._latest_specs and outputs is self._latest_outputs:
            return self._latest
        key = (specs, outputs)
        plan = self._remembered.get(key)
        if plan is None:
            plan = self._remembered[key] = self._make(request)
            if len(self._remembered) > REMEMBERED_PLANS:
                del self._remembered[next(iter(self._remembered))]
        self._latest_specs, self._latest_outputs, self._latest = specs, outputs, plan
        return plan


def plans_of(config: ModelConfig) -> Plans[Plan]:
    """Those of a model, made by `admission.make_plan`.

    Requests of different sizes share a batch: their plans share one layout object, which lives on while any plan or
    request has it.
    """
    layouts: WeakValueDictionary[tuple[InputLayout, ...], BatchLayout] = WeakValueDictionary()

    def make(request: InferenceRequest) -> Plan:
        plan = admission.make_plan(config, request.specs, request.outputs, request.label())
        return replace(plan, layout=layouts.setdefault(plan.layout.inputs, plan.layout))

    return Plans(make)
