"""Planted bugs: copies of modules with one expression replaced, and state machines that must notice it.

A search for each bug takes a second, and now and then finds nothing. So machines play recorded programs, in which a
search once found each bug. `python -m tests.unit.find_programs` finds what is missing after a change.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def module_from(name: str, source: str) -> ModuleType:
    """A module of this source that nobody imports."""
    module = ModuleType(name)
    exec(compile(source, f"<mutated {name}>", "exec"), module.__dict__)
    return module


def try_machine(machine: type[RuleBasedStateMachine], examples: int) -> None:
    """Let it run so often, without shrinking what it finds. Raises what it finds."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
        ),
    )


Program = list[tuple[str, dict[str, Any]]]
"""What a machine shall do: names of its rules, with their arguments. The first one is its initial rule."""


def programs_file(name: str) -> Path:
    return Path(__file__).with_name("programs") / f"{name}.jsonl"


def programs_of(name: str) -> list[Program]:
    """The recorded programs of the machine of this name."""
    return [json.loads(line) for line in programs_file(name).read_text().splitlines()]


def play_programs(name: str, machine: type[RuleBasedStateMachine]) -> None:
    """Let a machine do all that is recorded under this name. Raises what it finds first."""
    for program in programs_of(name):
        play(machine, program)


def play(machine: type[RuleBasedStateMachine], program: Program) -> None:
    """Let it do this, and look at its invariants after every step. Raises what it finds."""
    playing = machine()
    for name, arguments in program:
        getattr(playing, name)(**arguments)
        for invariant in playing.invariants:
            invariant.function(playing)
