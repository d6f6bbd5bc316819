"""The plans of a version's requests, remembered: most requests look like others before them."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakValueDictionary

from server.messages import InferenceRequest
from server.models import admission
from server.models.admission import Plan
from server.models.config import ModelConfig
from server.scheduling.assembly import BatchLayout, InputLayout

REMEMBERED_PLANS = 256


class Plans:
    """Of one version."""

    __slots__ = ("_config", "_latest", "_latest_outputs", "_latest_specs", "_layouts", "_remembered")

    _latest: Plan
    """That of the request that came last. A remembered head brings the same objects again."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._remembered: dict[tuple[object, object], Plan] = {}
        self._latest_specs: object = None
        self._latest_outputs: object = None
        self._layouts: WeakValueDictionary[tuple[InputLayout, ...], BatchLayout] = WeakValueDictionary()

    def of(self, request: InferenceRequest) -> Plan:
        """The plan for requests that look like this one. Raises what `admission.make_plan` raises."""
        specs, outputs = request.specs, request.outputs
        if specs is self._latest_specs and outputs is self._latest_outputs:
            return self._latest
        key = (specs, outputs)
        plan = self._remembered.get(key)
        if plan is None:
            plan = admission.make_plan(self._config, specs, outputs, request.label())
            # Requests of different sizes share a batch: their plans must share one layout object.
            plan = replace(plan, layout=self._layouts.setdefault(plan.layout.inputs, plan.layout))
            self._remembered[key] = plan
            if len(self._remembered) > REMEMBERED_PLANS:  # a layout lives on while another plan or a request has it
                del self._remembered[next(iter(self._remembered))]
        self._latest_specs, self._latest_outputs, self._latest = specs, outputs, plan
        return plan
