"""`TraceSetting` and `LogSettings`, handler by handler; what they mean is tested where it is decided."""

from __future__ import annotations

from typing import Any

import pytest

from proto import grpc_service_pb2 as pb
from server.frontends.calls import StatusCode
from tests import fakes
from tests.fakes import KeptRecords
from tests.unit.test_inference_service import Server, run


def traces(model: str = "", **settings: list[str]) -> pb.TraceSettingRequest:
    value = pb.TraceSettingRequest.SettingValue
    return pb.TraceSettingRequest(
        model_name=model, settings={name: value(value=values) for name, values in settings.items()}
    )


def log(**settings: dict[str, Any]) -> pb.LogSettingsRequest:
    value = pb.LogSettingsRequest.SettingValue
    return pb.LogSettingsRequest(settings={name: value(**setting) for name, setting in settings.items()})


def shown(answer: pb.TraceSettingResponse) -> dict[str, list[str]]:
    return {name: list(setting.value) for name, setting in answer.settings.items()}


def test_trace_settings_are_shown_and_changed_for_the_server_and_for_a_model() -> None:
    async def test(server: Server) -> None:
        ask = server.ask
        assert shown(ask("TraceSetting", traces(), pb.TraceSettingResponse)) == {
            "trace_level": ["OFF"],
            "trace_rate": ["1000"],
            "trace_count": ["-1"],
            "trace_mode": ["opentelemetry"],
        }
        assert not server.watch.active
        answer = ask("TraceSetting", traces("m", trace_level=["TIMESTAMPS"], trace_rate=["5"]), pb.TraceSettingResponse)
        assert shown(answer) | {"trace_level": ["TIMESTAMPS"], "trace_rate": ["5"]} == shown(answer)
        assert server.watch.active
        assert shown(ask("TraceSetting", traces(), pb.TraceSettingResponse))["trace_rate"] == ["1000"]
        ask("TraceSetting", traces("m", trace_level=[], trace_rate=[]), pb.TraceSettingResponse)
        assert not server.watch.active

    run(test, watch=fakes.watch(KeptRecords(), on=False, rate=1000))


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        (traces("nobody"), StatusCode.NOT_FOUND, "Request for unknown model: 'nobody' is not found"),
        (traces("nobody", trace_rate=["1"]), StatusCode.NOT_FOUND, "Request for unknown model"),
        (traces(trace_file=["x"]), StatusCode.UNIMPLEMENTED, "trace file location can not be updated"),
        (traces(trace_rate=["often"]), StatusCode.INVALID_ARGUMENT, "Unable to parse 'trace_rate'"),
    ],
)
def test_wrong_trace_settings_are_refused(request_: pb.TraceSettingRequest, status: StatusCode, message: str) -> None:
    async def test(server: Server) -> None:
        refusal = server.refused("TraceSetting", request_)
        assert refusal[0] is status
        assert refusal[1].startswith(message)

    run(test)


def test_log_settings_are_shown_and_changed() -> None:
    async def test(server: Server) -> None:
        ask = server.ask
        settings = ask("LogSettings", log(), pb.LogSettingsResponse).settings
        assert {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in settings.items()} == {
            "log_file": "",
            "log_info": True,
            "log_warning": True,
            "log_error": True,
            "log_verbose_level": 0,
            "log_format": "default",
        }
        changed = log(log_info={"bool_param": False}, log_format={"string_param": "ISO8601"})
        settings = ask("LogSettings", changed, pb.LogSettingsResponse).settings
        assert (settings["log_info"].bool_param, settings["log_format"].string_param) == (False, "ISO8601")
        assert (server.logs.state.info, server.logs.state.warning) == (False, True)

    run(test)


def test_a_verbose_log_has_a_line_for_each_request() -> None:
    async def test(server: Server) -> None:
        for level in (1, 0):
            server.ask("LogSettings", log(log_verbose_level={"uint32_param": level}), pb.LogSettingsResponse)
            assert server.watch.active is (level > 0)

    run(test)


@pytest.mark.parametrize(
    ("settings", "status", "message"),
    [
        (log(log_file={"string_param": "x"}), StatusCode.UNIMPLEMENTED, "log file location can not be updated"),
        (log(log_info={"uint32_param": 1}), StatusCode.INVALID_ARGUMENT, "expect boolean for 'log_info'"),
        (log(log_error={}), StatusCode.INVALID_ARGUMENT, "expect boolean for 'log_error'"),
        (log(log_verbose_level={"bool_param": True}), StatusCode.INVALID_ARGUMENT, "expect uint32"),
        (log(log_format={"bool_param": True}), StatusCode.INVALID_ARGUMENT, "expect string for 'log_format'"),
        (log(log_format={"string_param": "xml"}), StatusCode.INVALID_ARGUMENT, "invalid argument for log_format"),
        (log(log_color={"bool_param": True}), StatusCode.INVALID_ARGUMENT, "unknown log setting 'log_color'"),
    ],
)
def test_wrong_log_settings_are_refused_and_change_nothing(
    settings: pb.LogSettingsRequest, status: StatusCode, message: str
) -> None:
    async def test(server: Server) -> None:
        before = server.logs.state
        settings.settings["log_warning"].bool_param = False
        refusal = server.refused("LogSettings", settings)
        assert refusal[0] is status
        assert refusal[1].startswith(message)
        assert server.logs.state == before

    run(test)
