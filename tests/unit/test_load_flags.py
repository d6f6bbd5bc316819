"""The command line of the load tests: commands share flags, and none takes one from another."""

import argparse
import json
from math import inf, nan

import pytest

from loadtest.__main__ import _parser
from loadtest.figures import finite
from loadtest.flag_values import address, limit, positive, seed, share


@pytest.mark.parametrize("command", [["run"], ["bench", "small"], ["mlperf", "server"]])
def test_every_command_on_a_model_takes_its_name(command: list[str]) -> None:
    flags = _parser().parse_args([*command, "--model", "letters26", "--out", "somewhere"])

    assert (flags.model, str(flags.out), str(flags.model_repository)) == ("letters26", "somewhere", "model_repository")


@pytest.mark.parametrize("text", ["a:1", "http://a:1", "grpc://a:1", "http://a:1/"])
def test_an_address_may_have_a_scheme_and_loses_it(text: str) -> None:
    assert address(text) == "a:1"
    assert address("[::1]:8001") == "[::1]:8001"


@pytest.mark.parametrize("text", ["", "a", ":1", "a:", "a:x", "a:0", "a:65536", "a:-1", "https://a:1", "http://a"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        address(text)


@pytest.mark.parametrize(
    ("kind", "text"),
    [(kind, text) for kind in (positive, limit, share) for text in ("x", "nan", "-1")]
    + [(positive, "0"), (positive, "inf"), (limit, "0"), (share, "1.1")],
)
def test_numbers_out_of_bounds_are_refused_by_what_they_say(kind: type[float], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=text):
        kind(text)


def test_no_limit_is_a_limit_and_no_seed_is_negative() -> None:
    assert limit("inf") == inf
    with pytest.raises(argparse.ArgumentTypeError, match="negative"):
        seed("-1")


def test_reports_hold_nothing_that_json_has_no_number_for() -> None:
    report = finite({"a": inf, "b": [1.5, -inf], "c": ({"d": nan},), "e": "inf", "f": None})

    assert (
        json.dumps(report, allow_nan=False)
        == '{"a": null, "b": [1.5, null], "c": [{"d": null}], "e": "inf", "f": null}'
    )
