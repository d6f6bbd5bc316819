"""The RPCs of the model repository extension: what there is, and loading and unloading on request, as in Triton."""

from __future__ import annotations

from collections.abc import Mapping

from proto import grpc_service_pb2 as pb
from server.control import ControlPlane
from server.errors import InvalidRequest, Unsupported
from server.frontends.calls import Method
from server.frontends.inference_service import SERVICE, awaiting, parsing
from server.frontends.load_codec import Load, decode_load
from server.models.lifecycle import State
from server.models.outlook import not_polled
from server.models.overrides import FILE_PREFIX, Override
from server.models.registry import ModelEntry, Registry
from server.tensors import Buffer

STATE_WORDS = {State.DRAINING: "UNLOADING"}
"""Triton's word for a state, where it differs from ours."""

Index = pb.RepositoryIndexResponse.ModelIndex
Parameters = Mapping[str, pb.ModelRepositoryParameter]


class RepositoryService:
    """Handlers of the model repository extension. They may be called without an engine, too."""

    def __init__(self, control: ControlPlane, registry: Registry) -> None:
        self._control = control
        self._registry = registry

    def methods(self) -> dict[str, Method]:
        """The method table, by full path."""
        return {
            f"/{SERVICE}/RepositoryIndex": awaiting(parsing(pb.RepositoryIndexRequest), self.repository_index),
            f"/{SERVICE}/RepositoryModelLoad": awaiting(decode_load, self.repository_model_load),
            f"/{SERVICE}/RepositoryModelUnload": awaiting(
                parsing(pb.RepositoryModelUnloadRequest), self.repository_model_unload
            ),
        }

    async def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """Every version that the server knows, and the names of models that are there beside."""
        _check_repository(request.repository_name)
        there = {} if request.ready else await self._control.index()
        lines = {entry.name: _lines(entry, there) for entry in self._registry}
        for name, problem in there.items():
            lines.setdefault(name, [_unloaded(name, problem)])
        models = [line for name in sorted(lines) for line in lines[name]]
        return pb.RepositoryIndexResponse(
            models=[line for line in models if not request.ready or line.state == State.READY]
        )

    async def repository_model_load(self, load: Load) -> pb.RepositoryModelLoadResponse:
        """Load a model, or load it again where something about it has changed."""
        request = load.request
        _check_repository(request.repository_name)
        override = _override(request.model_name, request.parameters, load.contents)
        await self._control.load(request.model_name, override)
        return pb.RepositoryModelLoadResponse()

    async def repository_model_unload(
        self, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload a model. The answer comes when it has answered what it was asked, and is gone."""
        _check_repository(request.repository_name)
        with_dependents = _unload_dependents(request.parameters)
        await self._control.unload(request.model_name, with_dependents=with_dependents)
        return pb.RepositoryModelUnloadResponse()


def _check_repository(name: str) -> None:
    if name:
        raise Unsupported("'repository_name' specification is not supported")


def _override(name: str, parameters: Parameters, contents: Mapping[str, Buffer]) -> Override | None:
    """What a load brings along, files in `contents` too. Raises `InvalidRequest` for parameters that there are not, or
    not of that type."""
    files = {key.removeprefix(FILE_PREFIX): content for key, content in contents.items()}
    for key, value in sorted(parameters.items()):
        kind = value.WhichOneof("parameter_choice")
        if key == "config":
            _check_type(key, kind, "string_param")
        elif key.startswith(FILE_PREFIX):
            _check_type(key, kind, "bytes_param")
            files[key.removeprefix(FILE_PREFIX)] = value.bytes_param
        else:
            raise InvalidRequest(f"unrecognized load parameter '{key}'.")
    if "config" in parameters:
        return Override(parameters["config"].string_param, files)
    if files:
        raise InvalidRequest(not_polled(name, "Load parameter 'config' must be specified for model file override"))
    return None


def _check_type(key: str, kind: str | None, expected: str) -> None:
    if kind != expected:
        raise InvalidRequest(f"invalid value type for load parameter '{key}', expected {expected}.")


def _unload_dependents(parameters: Parameters) -> bool:
    for key, value in sorted(parameters.items()):
        if key != "unload_dependents":
            raise InvalidRequest(f"unrecognized unload parameter '{key}'.")
        if value.WhichOneof("parameter_choice") != "bool_param":
            raise InvalidRequest("invalid value type for 'unload_dependents' parameter, expected bool_param.")
    return "unload_dependents" in parameters and parameters["unload_dependents"].bool_param


def _lines(entry: ModelEntry, there: Mapping[str, str]) -> list[Index]:
    if not entry.statuses:
        return [_unloaded(entry.name, entry.problem)] if entry.problem or entry.name in there else []
    return [
        Index(
            name=entry.name,
            version=str(status.version),
            state=STATE_WORDS.get(status.state, status.state.value),
            reason=status.reason or entry.problem,
        )
        for _, status in sorted(entry.statuses.items())
    ]


def _unloaded(name: str, problem: str) -> Index:
    """A model of which no version was ever loaded: a name alone, unless it cannot be loaded."""
    return Index(name=name, state=State.UNAVAILABLE if problem else "", reason=problem)
