"""The RPCs that change settings while the server runs: `TraceSetting` and `LogSettings`, as Triton has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proto import grpc_service_pb2 as pb
from server.errors import InvalidRequest, Unsupported
from server.flag_values import LogFormat
from server.frontends.calls import Method
from server.frontends.inference_service import SERVICE, answering
from server.frontends.watch import Watch
from server.logs import Logs, LogState
from server.models.registry import Registry

BOOLEANS = {"log_info": "info", "log_warning": "warning", "log_error": "error"}
"""Log settings that are on or off, and the fields of `LogState` that they are."""


class SettingsService:
    """Handlers of the trace and the logging extension."""

    def __init__(self, registry: Registry, watch: Watch, logs: Logs, access_logged: Callable[[LogState], bool]) -> None:
        """`access_logged`: whether requests have lines of their own, with this state of the log."""
        self._registry = registry
        self._watch = watch
        self._logs = logs
        self._access_logged = access_logged

    def methods(self) -> dict[str, Method]:
        """The method table, by full path."""
        return {
            f"/{SERVICE}/TraceSetting": answering(pb.TraceSettingRequest, self.trace_setting),
            f"/{SERVICE}/LogSettings": answering(pb.LogSettingsRequest, self.log_settings),
        }

    def trace_setting(self, request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
        model = request.model_name
        if model:
            self._registry.find(model, "")
        settings = self._watch.settings
        if request.settings:
            settings.update(model, {name: list(setting.value) for name, setting in sorted(request.settings.items())})
            self._watch.watch_for()
        value = pb.TraceSettingResponse.SettingValue
        return pb.TraceSettingResponse(
            settings={name: value(value=values) for name, values in settings.show(model).items()}
        )

    def log_settings(self, request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
        if request.settings:
            changes = dict(_change(name, setting) for name, setting in sorted(request.settings.items()))
            self._logs.change(**changes)
            self._watch.watch_for(access_log=self._access_logged(self._logs.state))
        state, value = self._logs.state, pb.LogSettingsResponse.SettingValue
        return pb.LogSettingsResponse(
            settings={
                "log_file": value(string_param=self._logs.file),
                "log_info": value(bool_param=state.info),
                "log_warning": value(bool_param=state.warning),
                "log_error": value(bool_param=state.error),
                "log_verbose_level": value(uint32_param=state.verbose),
                "log_format": value(string_param=state.format),
            }
        )


def _change(name: str, setting: pb.LogSettingsRequest.SettingValue) -> tuple[str, Any]:
    """The field of `LogState` that a setting on the wire is, and its value."""
    kind = setting.WhichOneof("parameter_choice")
    if name == "log_file":
        raise Unsupported("log file location can not be updated through network protocol")
    if name in BOOLEANS:
        if kind != "bool_param":
            raise InvalidRequest(f"expect boolean for '{name}'")
        return BOOLEANS[name], setting.bool_param
    if name == "log_verbose_level":
        if kind != "uint32_param":
            raise InvalidRequest(f"expect uint32 for '{name}'")
        return "verbose", setting.uint32_param
    if name == "log_format":
        if kind != "string_param":
            raise InvalidRequest(f"expect string for '{name}'")
        if setting.string_param not in list(LogFormat):
            known = ", ".join(LogFormat)
            raise InvalidRequest(
                f"invalid argument for log_format, expecting one of {known}, got: {setting.string_param}"
            )
        return "format", LogFormat(setting.string_param)
    raise InvalidRequest(
        f"unknown log setting '{name}'; there are log_info, log_warning, log_error, log_verbose_level and log_format"
    )
