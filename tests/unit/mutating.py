"""Planted bugs: copies of modules with one expression replaced, and state machines that must notice it."""

from __future__ import annotations

from types import ModuleType

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
