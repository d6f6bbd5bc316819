"""Find programs in which the machines of planted bugs fail, for bugs that no recorded one shows: see `mutating`.

`python -m tests.unit.find_programs` takes some minutes from nothing.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from tests.unit import test_queue_machine, test_sequences_machine, test_turns_machine
from tests.unit.mutating import Program, play, programs_file, programs_of

MODULES: dict[str, Any] = {
    "queue": test_queue_machine,
    "sequences": test_sequences_machine,
    "turns": test_turns_machine,
}

SEARCH = settings(
    max_examples=50_000, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=list(HealthCheck)
)

Machine = type[RuleBasedStateMachine]


class Finder:
    """Programs for the bugs of one test module."""

    def __init__(self, name: str) -> None:
        module = MODULES[name]
        self.name = name
        self.caught = module.CAUGHT
        self.machines: dict[str, Machine] = {bug: module.mutated(*words) for bug, words in module.MUTATIONS.items()}

    def run(self) -> None:
        programs = programs_of(self.name) if programs_file(self.name).exists() else []
        for bug, machine in self.machines.items():
            if not any(self.shows(program, machine) for program in programs):
                programs.append(find(all_programs(machine), partial(self.shows, machine=machine), settings=SEARCH))
                print(f"{self.name}: {bug}: {len(programs[-1])} steps", flush=True)
        shortest = [self.shortened(program, bugs) for program, bugs in self.needed(programs)]
        programs_file(self.name).write_text("".join(f"{json.dumps(program)}\n" for program in shortest))
        print(f"{self.name}: {len(shortest)} programs for {len(self.machines)} bugs", flush=True)

    def shows(self, program: Program, machine: Machine) -> bool:
        """Whether the bug of this machine is noticed."""
        try:
            play(machine, program)
        except self.caught:
            return True
        return False

    def needed(self, programs: list[Program]) -> list[tuple[Program, set[str]]]:
        """A few of these that show all bugs together, each with those bugs that none before it shows."""
        shown = [{bug for bug, machine in self.machines.items() if self.shows(it, machine)} for it in programs]
        chosen, missing = [], set(self.machines)
        while missing:
            best = max(range(len(programs)), key=lambda index: len(shown[index] & missing))
            chosen.append((programs[best], shown[best] & missing))
            missing -= shown[best]
        return chosen

    def shortened(self, program: Program, bugs: set[str]) -> Program:
        """Without the steps that are not needed to show these bugs."""
        for index in reversed(range(1, len(program))):
            shorter = program[:index] + program[index + 1 :]
            if all(self.shows(shorter, self.machines[bug]) for bug in bugs):
                program = shorter
        return program


def all_programs(machine: Machine) -> st.SearchStrategy[Program]:
    """Programs of up to 30 steps after the first."""

    def step(rules: Any) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
        return st.one_of(
            [st.tuples(st.just(it.function.__name__), st.fixed_dictionaries(it.arguments)) for it in rules]
        )

    state = machine.setup_state()
    steps = st.integers(5, 30).flatmap(lambda count: st.lists(step(state.rules), min_size=count, max_size=count))
    return st.builds(lambda first, others: [first, *others], step(state.initializers), steps)


if __name__ == "__main__":
    for each in MODULES:
        Finder(each).run()
