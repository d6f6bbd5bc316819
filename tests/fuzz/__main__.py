"""Coverage-guided fuzzing with atheris: `python -m tests.fuzz [--seconds=60|--runs=N|--ci] [--jobs=1] [target ...]`.

The targets take their turns, each in a process of its own that is forked off this one: what they share is imported
and instrumented once. A finding ends its target; its input is kept in runs/fuzz, its traceback in the log beside it.
What was learned is kept in .cache/fuzz for the next time, unless --fresh is given. At the end there is a table.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FINDINGS = ROOT / "runs" / "fuzz"
CORPUS = ROOT / ".cache" / "fuzz"
INSTRUMENTED = ["server"]
MEMORY = Path("/dev/shm")
"""Where files are made that live for one input."""
SLOW_SECONDS = 300
"""One input that takes longer is a finding, however busy the machine is; so is one that makes the process larger than
`LARGE_MIB`."""
LARGE_MIB = 2000

_PROGRESS = re.compile(r"^#(\d+)\s.*?cov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)
_EXECUTED = re.compile(r"number_of_executed_units: (\d+)")
_DIGEST = re.compile(r"^digest: (\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """How a target fared."""

    name: str
    seeds: int
    executions: int
    coverage: int
    """Branches of the code under it that were reached."""
    corpus: int
    """Inputs kept, each of which reached something that no other did."""
    digest: str
    """Of all inputs, in their order; "-" where their number was not given."""
    seconds: float
    """Of the processor's time."""
    failed: bool


def read_log(text: str) -> tuple[int, int, int, str]:
    """Executions, coverage and size of the corpus, of libFuzzer's own account, and the digest of the inputs."""
    progress = _PROGRESS.findall(text)
    executed, digest = _EXECUTED.search(text), _DIGEST.search(text)
    last = progress[-1] if progress else ("0", "0", "0", "0")
    return int(executed[1] if executed else last[0]), int(last[1]), int(last[3]), digest[1] if digest else "-"


def table(results: list[Result]) -> str:
    """For people."""
    numbers = f"{'seeds':>6}{'executions':>12}{'coverage':>10}{'corpus':>8}{'seconds':>9}"
    lines = [f"{'target':<14}{numbers}  {'digest':<16}  findings"]
    lines += [
        f"{r.name:<14}{r.seeds:>6}{r.executions:>12}{r.coverage:>10}{r.corpus:>8}{r.seconds:>9.1f}  {r.digest:<16}  "
        + ("1: see its log" if r.failed else "none")
        for r in results
    ]
    executions, seconds = sum(r.executions for r in results), sum(r.seconds for r in results)
    return "\n".join([*lines, f"{len(results)} targets, {executions} executions, {seconds:.0f} s"])


def dictionary_entry(word: bytes) -> str:
    """A line of libFuzzer's dictionaries."""
    escaped = "".join(f"\\x{byte:02x}" for byte in word)
    return f'"{escaped}"\n'


def fuzz(name: str, options: argparse.Namespace, folder: Path, log: Path) -> None:
    """Fuzz one target in this process, which ends with it. `folder` is for its own files."""
    import atheris

    from tests.fuzz import repeatable
    from tests.fuzz.targets import RUNS, TARGETS

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    target = TARGETS[name]
    repeatable.begin()
    seeds = {folder / f"seed-{seed}": data for seed, data in target.inputs().items()}
    for path, data in seeds.items():
        path.write_bytes(data)
    listing = folder / "seeds"  # in a listing they have an order, in a folder they have none
    listing.write_text(",".join(map(str, seeds)))
    runs = RUNS[name] if options.ci else options.runs
    flags = [
        f"-runs={runs}" if runs else f"-max_total_time={options.seconds}", f"-seed={options.seed}",
        f"-seed_inputs=@{listing}", f"-max_len={target.max_bytes}", "-print_final_stats=1",
        f"-artifact_prefix={options.findings}/{name}-", f"-timeout={SLOW_SECONDS}", f"-rss_limit_mb={LARGE_MIB}",
    ]  # fmt: skip
    if target.dictionary:
        dictionary = folder / "dictionary"
        dictionary.write_text("".join(map(dictionary_entry, target.dictionary)))
        flags.append(f"-dict={dictionary}")
    more = {}
    if target.mutate is not None:
        mutate = target.mutate
        more["custom_mutator"] = lambda data, most, seed: mutate(data, most, seed, atheris.Mutate)
    learned = CORPUS / name
    if not (options.ci or options.fresh):
        learned.mkdir(parents=True, exist_ok=True)
        flags.append(str(learned))
    atheris.Setup(["fuzz", *flags], repeatable.Digest(target, runs), **more)
    atheris.Fuzz()


@dataclass(frozen=True)
class Turn:
    """A target that is being fuzzed."""

    name: str
    log: Path

    def result(self, seeds: int, status: int, used: resource.struct_rusage) -> Result:
        """How it fared, now that its process has ended: what `os.wait3` says."""
        text = self.log.read_text(errors="replace")
        if status:
            print(text[-6000:], flush=True)
        return Result(self.name, seeds, *read_log(text), used.ru_utime + used.ru_stime, bool(status))


def take_turns(names: list[str], options: argparse.Namespace, temporary: Path) -> list[Result]:
    """`options.jobs` targets at a time; the results are in the targets' order."""
    from tests.fuzz.targets import TARGETS

    waiting = names[::-1]
    turns: dict[int, Turn] = {}
    results: dict[str, Result] = {}
    while waiting or turns:
        if waiting and len(turns) < options.jobs:
            name = waiting.pop()
            print(f"== {name}", flush=True)
            folder = temporary / name
            folder.mkdir()
            turn = Turn(name, options.findings / f"{name}.log")
            process = os.fork()
            if not process:
                fuzz(name, options, folder, turn.log)  # does not return
            turns[process] = turn
        else:
            process, status, used = os.wait3(0)
            turn = turns.pop(process)
            results[turn.name] = turn.result(len(TARGETS[turn.name].inputs()), status, used)
    return [results[name] for name in names]


def main() -> int:
    import atheris

    from tests.fuzz import repeatable

    repeatable.fix_surroundings()
    repeatable.number_branches_in_order()
    if MEMORY.is_dir():
        tempfile.tempdir = str(MEMORY)
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--runs", type=int, default=0, help="inputs for each target, whatever time they take")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time (default 1)")
    parser.add_argument("--ci", action="store_true", help="the same inputs each time: as many as RUNS says, --fresh")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (default 1)")
    parser.add_argument("--fresh", action="store_true", help="begin with the seeds alone, and keep no corpus")
    parser.add_argument("--findings", type=Path, default=FINDINGS, help="where failing inputs and logs are kept")
    parser.add_argument("--input", type=Path, help="try this input of one target, without fuzzing")
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    if options.input is not None:
        if len(options.targets) != 1:
            parser.error("--input goes with one target")
        TARGETS[options.targets[0]](options.input.read_bytes())
        print("nothing is wrong with it")
        return 0
    if options.ci and not repeatable.hashes_are_fixed():
        parser.error("--ci is the same each time with PYTHONHASHSEED=0 in the environment, and not without")
    options.findings.mkdir(parents=True, exist_ok=True)
    temporary, parent = Path(tempfile.mkdtemp(prefix="convoy-fuzz-")), os.getpid()
    try:
        results = take_turns(options.targets or list(TARGETS), options, temporary)
    finally:
        if os.getpid() == parent:  # a target leaves its process through here, too
            shutil.rmtree(temporary, ignore_errors=True)
    print(table(results))
    return int(any(result.failed for result in results))


if __name__ == "__main__":
    sys.exit(main())
