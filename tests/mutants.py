"""The mutants that `mutmut` wrote, each against the tests that reach it, quick ones first.

    cd mutants && PYTHONPATH=. python -m tests.mutants [NAME ...]

`mutmut run` starts pytest anew for each mutant, with its tests in any order, and Hypothesis makes what killed it small.
Here the tests are collected once, and each mutant gets a fork of that process, until the first test fails. Verdicts
are kept where `mutmut results` and `mutmut show NAME` look for them. Those that are there stay, but for the mutants
that are named; `*` stands for anything.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import Phase, settings

SURVIVED, KILLED, BROKEN, NO_TESTS = 0, 1, 3, 33
"""Verdicts, as mutmut numbers them. Where a signal ended the tests, it is the signal's number, negative."""
TIMES_AS_LONG = 5
SPARE_CPU_SECONDS = 10
"""A test may take so many times what it took without a mutant, and so much more."""
SPARE_MEMORY_BYTES = 2 << 30
SAVED_AFTER = 20
"""Verdicts."""


class Mutants:
    """Takes the place of pytest's loop over tests. The working directory is mutmut's."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        stats = json.loads(Path("mutmut-stats.json").read_text("utf-8"))
        self._seconds: dict[str, float] = stats["duration_by_test"]
        self._tests: dict[str, list[str]] = stats["tests_by_mangled_function_name"]
        self._items: dict[str, pytest.Item] = {}
        self._latest_killers: dict[str, str] = {}
        """By function. What killed one mutant of it is likely to kill the next."""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Failed("the tests cannot be collected")
        self._items = {item.nodeid: item for item in session.items}
        verdicts: Counter[int] = Counter()
        started = time.monotonic()
        with without_output() as terminal:
            verdict, culprit = self._run("", session.items)
            if verdict != SURVIVED:
                raise session.Failed(f"without a mutant, it ends with {verdict} at {culprit or 'no test'}")
            for path in sorted(Path("server").rglob("*.py.meta")):
                for name, verdict in self._try_all(path):
                    verdicts[verdict] += 1
                    if verdict != KILLED:
                        print(f"{time.monotonic() - started:6.0f} s {verdict:4} {name}", file=terminal, flush=True)
            print(f"{time.monotonic() - started:6.0f} s, verdicts: {dict(verdicts)}", file=terminal)
        return True

    def _try_all(self, path: Path) -> Iterator[tuple[str, int]]:
        """The mutants of one module, and what became of each."""
        meta = json.loads(path.read_text("utf-8"))
        verdicts: dict[str, int | None] = meta["exit_code_by_key"]
        names = [name for name, verdict in verdicts.items() if self._is_wanted(name, verdict)]
        for count, name in enumerate(names, 1):
            verdicts[name] = verdict = self._try(name)
            if count % SAVED_AFTER == 0 or count == len(names):
                path.write_text(json.dumps(meta, indent=4), "utf-8")
            yield name, verdict

    def _is_wanted(self, name: str, verdict: int | None) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._patterns) if self._patterns else verdict is None

    def _try(self, name: str) -> int:
        function, _, _ = name.partition("__mutmut_")
        tests = sorted(self._tests.get(function, ()), key=self._seconds.__getitem__)
        if not tests:
            return NO_TESTS
        if function in self._latest_killers:
            tests = list(dict.fromkeys([self._latest_killers[function], *tests]))
        verdict, killer = self._run(name, [self._items[test] for test in tests])
        if killer:
            self._latest_killers[function] = killer
        return verdict

    def _run(self, mutant: str, items: Sequence[pytest.Item]) -> tuple[int, str]:
        """The verdict, and the first test that failed; "" for none."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            verdict = BROKEN
            try:
                os.environ["MUTANT_UNDER_TEST"] = mutant
                killer = self._killer(items)
                os.write(writing, killer.encode())
                verdict = KILLED if killer else SURVIVED
            finally:
                os._exit(verdict)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            killer = pipe.read()
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status), killer

    def _killer(self, items: Sequence[pytest.Item]) -> str:
        limit_memory()
        for item, following in zip(items, [*items[1:], None], strict=True):
            limit_cpu(SPARE_CPU_SECONDS + TIMES_AS_LONG * self._seconds[item.nodeid])
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if item.session.testsfailed:
                return item.nodeid
        return ""


def limit_memory() -> None:
    """For good: what a mutant would take without end."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    limit = pages * resource.getpagesize() + SPARE_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def limit_cpu(seconds: float) -> None:
    """From now on; then SIGXCPU comes."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + 1, resource.RLIM_INFINITY))


@contextmanager
def without_output() -> Iterator[TextIO]:
    """Standard output leads nowhere; what is yielded leads where it led."""
    kept = os.dup(1)
    with os.fdopen(kept, "w") as terminal, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        try:
            yield terminal
        finally:
            os.dup2(kept, 1)


def main() -> int:
    options = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["tool"]["mutmut"]
    # The first example that fails will do, as large as it is.
    settings.register_profile("first failure", phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False)
    settings.load_profile("first failure")
    arguments = ["--rootdir=.", "--capture=no", "--tb=no", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    arguments += options["pytest_add_cli_args"] + options["pytest_add_cli_args_test_selection"]
    return pytest.main(arguments, plugins=[Mutants(sys.argv[1:])])


if __name__ == "__main__":
    sys.exit(main())
