"""Triton's flags that are not taken: each has its sentence, all of a command line at once."""

from __future__ import annotations

import pytest

from server.flags import parser
from server.settings import parse
from server.triton_flags import INSTEAD, refusal


def test_no_flag_is_both_taken_and_refused() -> None:
    assert INSTEAD.keys() & parser()._option_string_actions.keys() == set()


def test_every_sentence_names_flags_that_are_taken() -> None:
    words = {word.strip(";,:.") for sentence in INSTEAD.values() for word in sentence.split()}
    assert {word for word in words if word.startswith("--")} <= parser()._option_string_actions.keys()


def test_all_flags_of_a_command_line_are_named_in_their_order_and_once() -> None:
    line = ["--rate-limit", "off", "--model-repository=m", "--trace-rate=1", "--rate-limit=off", "--unheard-of"]
    assert [text.split(":")[0].strip() for text in refusal(line).splitlines()] == ["--rate-limit", "--trace-rate"]


def test_a_value_is_no_flag() -> None:
    assert refusal(["--id", "rate-limit", "--model-repository=--rate-limit", "x--trace-rate=1"]) == ""


def test_a_command_line_of_triton_is_refused_with_what_to_do_about_each_flag(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--model-repository", "m", "--http-thread-count", "8", "--strict-model-config=false"])
    assert caught.value.code == 2
    _, lines = capsys.readouterr().err.split("flags of Triton that this server does not take:\n")
    flags = ("--http-thread-count", "--strict-model-config")
    assert lines.splitlines() == [f"  {flag}: {INSTEAD[flag]}" for flag in flags]
