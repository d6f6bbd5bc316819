"""What `make serve` starts: make's own dry run tells, and the server's own reader of flags understands it."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from server.settings import ModelControlMode, parse

ROOT = Path(__file__).parents[2]


def flags(arguments: str) -> list[str]:
    """Of the server that `make serve ARGS=…` would start."""
    made = subprocess.run(
        ["make", "-n", "serve", f"ARGS={arguments}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    commands = made.stdout.replace("\\\n", " ").splitlines()
    (command,) = [line for line in commands if " -m server " in line]
    return shlex.split(command.partition(" -m server ")[2])


@pytest.mark.parametrize(
    ("arguments", "mode", "models"),
    [
        ("", ModelControlMode.EXPLICIT, ("*",)),
        ("--http-port 9000", ModelControlMode.EXPLICIT, ("*",)),
        ("--load-model lenet5", ModelControlMode.EXPLICIT, ("lenet5",)),
        ("--model-control-mode poll", ModelControlMode.POLL, ()),
        ("--model-control-mode=explicit", ModelControlMode.EXPLICIT, ()),
        ("--model-control-mode explicit --load-model lenet5", ModelControlMode.EXPLICIT, ("lenet5",)),
    ],
)
def test_what_is_loaded_at_first_is_all_unless_the_arguments_say_so(
    arguments: str, mode: ModelControlMode, models: tuple[str, ...]
) -> None:
    settings = parse(flags(arguments))
    assert (settings.model_control_mode, settings.load_models) == (mode, models)
    assert settings.http_address == settings.grpc_address == "127.0.0.1"
