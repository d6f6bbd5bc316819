"""The command line of the load tests: commands share flags, and none takes one from another."""

import pytest

from loadtest.__main__ import _parser


@pytest.mark.parametrize("command", [["run"], ["bench", "small"], ["mlperf", "server"]])
def test_every_command_on_a_model_takes_its_name(command: list[str]) -> None:
    flags = _parser().parse_args([*command, "--model", "letters26", "--out", "somewhere"])

    assert (flags.model, str(flags.out), str(flags.model_repository)) == ("letters26", "somewhere", "model_repository")
