"""Which requests are traced: one in so many, by settings of the server and of models that may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from server.errors import ConvoyError, InvalidRequest, Unsupported
from server.trace_config import TraceConfig, TraceMode, TraceSetting
from server.tracing.sampling import TraceSettings


def settings(mode: TraceMode = TraceMode.OPENTELEMETRY, file: str = "", **setting: int) -> TraceSettings:
    return TraceSettings(TraceConfig(mode, TraceSetting(**{"on": True, "rate": 4, **setting}), file=file))


def picked(settings: TraceSettings, model: str, requests: int) -> list[int]:
    """Which of so many requests of a model are picked."""
    return [n for n in range(1, requests + 1) if settings.sampler(model).pick()]


def test_every_nth_request_is_picked() -> None:
    assert picked(settings(rate=4), "m", 12) == [4, 8, 12]
    assert picked(settings(rate=1), "m", 3) == [1, 2, 3]


def test_models_without_settings_are_counted_together() -> None:
    both = settings(rate=4)
    assert [model for model in "abababab" if both.sampler(model).pick()] == ["b", "b"]


def test_a_rate_of_zero_picks_none() -> None:
    assert picked(settings(rate=0), "m", 10) == []


def test_no_more_than_count_are_picked() -> None:
    few = settings(rate=2, count=2)
    assert picked(few, "m", 10) == [2, 4]
    assert few.show("")["trace_count"] == ["0"]


def test_a_model_has_its_own_rate_and_the_rest_from_the_server() -> None:
    both = settings(rate=4)
    both.update("m", {"trace_rate": ["2"]})
    assert picked(both, "m", 6) == [2, 4, 6]
    assert picked(both, "other", 6) == [4]
    both.update("", {"trace_level": ["OFF"]})
    assert both.show("m")["trace_level"] == ["OFF"]
    assert both.show("m")["trace_rate"] == ["2"]
    assert not both.on


def test_a_model_may_be_traced_while_the_server_is_not() -> None:
    one = settings(on=False)
    assert not one.on
    one.update("m", {"trace_level": ["TIMESTAMPS"]})
    assert one.on
    assert one.sampler("m").setting.on
    assert not one.sampler("other").setting.on


def test_a_setting_without_a_value_is_taken_back() -> None:
    one = settings(rate=4)
    one.update("", {"trace_rate": ["8"]})
    one.update("m", {"trace_rate": ["2"], "trace_count": ["5"]})
    one.update("m", {"trace_rate": []})
    assert one.show("m")["trace_rate"] == ["8"]
    assert one.show("m")["trace_count"] == ["5"]
    one.update("m", {"trace_count": []})
    assert one.sampler("m") is one.sampler("")
    one.update("", {"trace_rate": []})
    assert one.show("")["trace_rate"] == ["4"]


def test_another_setting_does_not_give_back_what_was_picked() -> None:
    for model in ("", "m"):
        one = settings(rate=1)
        one.update(model, {"trace_count": ["3"]})
        assert picked(one, "m", 2) == [1, 2]
        one.update("", {"log_frequency": ["9"]})
        one.update(model, {"trace_rate": ["2"]})
        assert one.show(model)["trace_count"] == ["1"]


def test_what_the_flags_allowed_is_not_given_again_either() -> None:
    one = settings(rate=1, count=3)
    assert picked(one, "m", 2) == [1, 2]
    one.update("", {"trace_rate": ["2"]})
    assert one.show("")["trace_count"] == ["1"]


def test_the_settings_of_a_file_are_shown_where_there_is_one() -> None:
    shown = settings(TraceMode.TRITON, "t.json", log_frequency=5).show("")
    assert shown == {
        "trace_level": ["TIMESTAMPS"],
        "trace_rate": ["4"],
        "trace_count": ["-1"],
        "trace_mode": ["triton"],
        "log_frequency": ["5"],
        "trace_file": ["t.json"],
    }
    assert settings().show("")["trace_mode"] == ["opentelemetry"]
    assert "trace_file" not in settings().show("")


@pytest.mark.parametrize(
    ("wanted", "kind", "message"),
    [
        ({"trace_file": ["x"]}, Unsupported, "trace file location can not be updated through network protocol"),
        ({"trace_mode": ["triton"]}, Unsupported, "trace mode can not be updated"),
        ({"trace_level": ["TENSORS"]}, Unsupported, "tensor contents are never traced"),
        ({"trace_level": ["LOUD"]}, InvalidRequest, "got: LOUD"),
        ({"trace_level": ["OFF", "TIMESTAMPS"]}, InvalidRequest, "Expect only one trace level 'OFF' is specified"),
        ({"trace_rate": ["many"]}, InvalidRequest, "Unable to parse 'trace_rate'"),
        ({"trace_rate": ["-1"]}, InvalidRequest, "[0, 4294967295], got: -1"),
        ({"trace_rate": ["1", "2"]}, InvalidRequest, "expect only 1 value for 'trace_rate'"),
        ({"trace_count": ["-2"]}, InvalidRequest, "[-1, 2147483647], got: -2"),
        ({"trace_speed": ["1"]}, InvalidRequest, "unknown trace setting 'trace_speed'"),
    ],
)
@pytest.mark.parametrize("model", ["", "m"])
def test_a_wrong_setting_is_refused_and_changes_nothing(
    wanted: Mapping[str, Sequence[str]], kind: type[ConvoyError], message: str, model: str
) -> None:
    one = settings()
    before = one.show("")
    with pytest.raises(kind) as caught:
        one.update(model, {"trace_count": ["7"], **wanted} if "trace_count" not in wanted else wanted)
    assert message in str(caught.value)
    assert one.show("") == before == one.show("m")


def test_traces_cannot_be_switched_on_where_they_have_no_place() -> None:
    nowhere = TraceSettings(TraceConfig())
    with pytest.raises(InvalidRequest, match="trace file name is not given: start the server with --trace-config"):
        nowhere.update("", {"trace_level": ["TIMESTAMPS"]})
    nowhere.update("", {"trace_rate": ["5"]})  # harmless while nothing is traced
    assert not nowhere.on


def test_a_change_of_the_server_that_a_model_cannot_follow_is_refused() -> None:
    one = settings(TraceMode.TRITON, "t.json", on=False)
    one.update("m", {"trace_level": ["TIMESTAMPS"]})
    with pytest.raises(InvalidRequest, match="non-zero"):
        one.update("", {"trace_rate": ["0"]})
    assert one.show("")["trace_rate"] == one.show("m")["trace_rate"] == ["4"]
