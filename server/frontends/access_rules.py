"""What each RPC needs a permission for: its API, the model that its message names, and what it would change."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from proto import grpc_service_pb2 as pb
from proto.grpc_health.v1 import health_pb2
from server.access.policy import EVERY_MODEL, READ
from server.errors import InvalidRequest
from server.frontends.inference_service import SERVICE
from server.frontends.load_codec import decode_load
from server.frontends.restrictions import CATEGORIES
from server.restricted_apis import ApiCategory
from server.tensors import Buffer

May = Callable[[str], bool]
"""Whether the caller may see a model."""
Shown = Callable[[May, bytes], bytes]
"""An answer, without the models that its caller may not see."""

MAX_DETAILS = 16
"""Settings or parameters that an audit line names."""


SERVICE_FIELD = "service"
"""What the health service asks about: a model, or the server as a whole, by the name of its own service or none."""


class Question(NamedTuple):
    """What one call wants."""

    action: str
    """The RPC."""
    api: str
    """As a policy names it."""
    model: str | None = None
    """None: it is about no model, or about all that the caller may see."""
    changes: bool = False
    """Whether it changes the server, or what the server holds."""
    subject: str = ""
    """What it changes, where that is no model: a region of shared memory."""
    details: tuple[str, ...] = ()
    """Names of the settings or parameters that it brings; never what they say."""
    everything: bool = False
    """Whether it reaches models that it does not name."""

    @property
    def scope(self) -> str | None:
        """What the caller needs a permission for: as `model`, or `*`."""
        return EVERY_MODEL if self.everything else self.model


class Rule(NamedTuple):
    """How an RPC's messages are questions."""

    name: str
    api: str
    least: str
    """What a caller needs, whatever the message says."""
    request: type[Message] | None = None
    """None: the message says nothing that matters here."""
    model: str = ""
    """The field that names a model."""
    subject: str = ""
    """The field that names something else."""
    details: str = ""
    """The map of settings or parameters."""
    always_changes: bool = False
    """Otherwise: where `details` is not empty, and there is a reading part of the API."""
    shown: Shown | None = None
    reaches_all: Callable[[Any], bool] | None = None
    """Whether a message that changes something does so to models that it does not name."""

    @property
    def reads(self) -> bool:
        """Whether the message matters."""
        return self.request is not None

    @property
    def unread(self) -> Question:
        """What is known before the message is read: of a change that may be one, that it is."""
        return Question(self.name, self.api, changes=self.always_changes or self.api != self.least)

    def question(self, message: Buffer) -> Question:
        """What the message asks. Raises `InvalidRequest` where it is not one."""
        if self.request is None:
            return Question(self.name, self.api)
        files: Collection[str] = ()
        request: Any
        if self.request is pb.RepositoryModelLoadRequest:
            request, files = decode_load(message)
        else:
            try:
                request = self.request.FromString(bytes(message))
            except DecodeError as error:
                raise InvalidRequest(f"the message is not a {self.request.DESCRIPTOR.name}: {error}") from None
        details = tuple(sorted([*getattr(request, self.details), *files])) if self.details else ()
        changes = self.always_changes or (self.api != self.least and bool(details))
        named = getattr(request, self.model) if self.model else ""
        if self.model == SERVICE_FIELD and named == SERVICE:
            named = ""
        return Question(
            self.name,
            self.api if changes or self.api == self.least else self.least,
            named or None,
            changes,
            getattr(request, self.subject) if self.subject else "",
            details[:MAX_DETAILS],
            changes and self.reaches_all is not None and self.reaches_all(request),
        )


def rule_of(name: str) -> Rule:
    """The rule of an RPC, by its name without its service."""
    api = CATEGORIES.get(name, ApiCategory.METADATA).value
    return _RULES.get(name) or Rule(name, api, api)


def _statistics_shown(may: May, message: bytes) -> bytes:
    answer = pb.ModelStatisticsResponse.FromString(message)
    kept = [each for each in answer.model_stats if may(each.name)]
    return pb.ModelStatisticsResponse(model_stats=kept).SerializeToString(deterministic=True)


def _index_shown(may: May, message: bytes) -> bytes:
    answer = pb.RepositoryIndexResponse.FromString(message)
    kept = [each for each in answer.models if may(each.name)]
    return pb.RepositoryIndexResponse(models=kept).SerializeToString(deterministic=True)


def _unloads_dependents(request: pb.RepositoryModelUnloadRequest) -> bool:
    return "unload_dependents" in request.parameters and request.parameters["unload_dependents"].bool_param


def _of_no_model(request: pb.TraceSettingRequest) -> bool:
    return not request.model_name


def _rules() -> dict[str, Rule]:
    rules: list[Rule] = []

    def add(name: str, *, looks: bool = False, request: type[Message] | None = None, **fields: Any) -> None:
        api = CATEGORIES[name].value
        rules.append(Rule(name, api + READ if looks else api, api + READ if looks else api, request, **fields))

    def add_settings(name: str, request: type[Message], **fields: Any) -> None:
        api = CATEGORIES[name].value
        rules.append(Rule(name, api, api + READ, request, details="settings", **fields))

    add("ModelReady", request=pb.ModelReadyRequest, model="name")
    add("Check", request=health_pb2.HealthCheckRequest, model=SERVICE_FIELD)
    add("Watch", request=health_pb2.HealthCheckRequest, model=SERVICE_FIELD)
    add("ModelMetadata", request=pb.ModelMetadataRequest, model="name")
    add("ModelConfig", request=pb.ModelConfigRequest, model="name")
    add("ModelStatistics", request=pb.ModelStatisticsRequest, model="name", shown=_statistics_shown)
    add("RepositoryIndex", looks=True, shown=_index_shown)
    for name in ("RepositoryModelLoad", "RepositoryModelUnload"):
        add(
            name,
            request=getattr(pb, f"{name}Request"),
            model="model_name",
            details="parameters",
            always_changes=True,
            reaches_all=_unloads_dependents if name.endswith("Unload") else None,
        )
    for kind in ("System", "Cuda"):
        add(f"{kind}SharedMemoryStatus", looks=True)
        for verb in ("Register", "Unregister"):
            name = f"{kind}SharedMemory{verb}"
            add(name, request=getattr(pb, f"{name}Request"), subject="name", always_changes=True)
    add_settings("TraceSetting", pb.TraceSettingRequest, model="model_name", reaches_all=_of_no_model)
    add_settings("LogSettings", pb.LogSettingsRequest)
    return {rule.name: rule for rule in rules}


_RULES = _rules()

CHANGING = tuple(rule.name for rule in _RULES.values() if rule.unread.changes)
"""The RPCs that change the server, or may."""
