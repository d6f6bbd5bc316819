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
"""Mutmut's codes; a mutant that was stopped by a signal has the signal's number, negative."""
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
        codes: Counter[int] = Counter()
        started = time.monotonic()
        with without_output() as terminal:
            for path in sorted(Path("server").rglob("*.py.meta")):
                for name, code in self._try_all(path):
                    codes[code] += 1
                    if code != KILLED:
                        print(f"{time.monotonic() - started:6.0f} s {code:4} {name}", file=terminal, flush=True)
            print(f"{time.monotonic() - started:6.0f} s, codes: {dict(codes)}", file=terminal)
        return True

    def _try_all(self, path: Path) -> Iterator[tuple[str, int]]:
        """The mutants of one module, and what became of each."""
        meta = json.loads(path.read_text("utf-8"))
        codes: dict[str, int | None] = meta["exit_code_by_key"]
        names = [name for name, code in codes.items() if self._is_wanted(name, code)]
        for count, name in enumerate(names, 1):
            codes[name] = code = self._try(name)
            if count % SAVED_AFTER == 0 or count == len(names):
                path.write_text(json.dumps(meta, indent=4), "utf-8")
            yield name, code

    def _is_wanted(self, name: str, code: int | None) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._patterns) if self._patterns else code is None

    def _try(self, name: str) -> int:
        function, _, _ = name.partition("__mutmut_")
        tests = sorted(self._tests.get(function, ()), key=self._seconds.__getitem__)
        if not tests:
            return NO_TESTS
        if function in self._latest_killers:
            tests.insert(0, self._latest_killers[function])
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = BROKEN
            try:
                os.environ["MUTANT_UNDER_TEST"] = name
                killer = self._killer([self._items[test] for test in dict.fromkeys(tests)])
                os.write(writing, killer.encode())
                code = KILLED if killer else SURVIVED
            finally:
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            if killer := pipe.read():
                self._latest_killers[function] = killer
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    def _killer(self, items: Sequence[pytest.Item]) -> str:
        """The first test that fails; "" for none."""
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
