"""What the user reads of a search: a table, the choice and why, as text and as JSON. Pure."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from textwrap import shorten
from typing import Any

from loadtest.tune.candidates import Candidate
from loadtest.tune.judging import Aim, Choice, Goal, Measurement, Trial, is_equal
from loadtest.tune.search import Result

_HEAD = (
    *("instances × threads, batching", "rows/s", "p50 ms", "p99 ms", "CPU µs/request", "RSS MiB", "batch"),
    *("rounds", "spread", "verdict"),
)
_LONGEST_VERDICT = 120
"""In the table; the JSON has all of it."""
_NAMES = {Goal.THROUGHPUT: "rows/s", Goal.LATENCY: "p99", Goal.CPU: "CPU per request"}


def describe(result: Result, aim: Aim) -> str:
    """Table and sentence."""
    return f"{table(result, aim)}\n\n{sentence(result, aim)}"


def table(result: Result, aim: Aim) -> str:
    """A line for each candidate: finalists with the medians of the final, then the others as the climb saw them."""
    trials = [*result.finals, *_only_climbed(result)]
    lines = [_HEAD, *(_line(trial, aim, verdict(trial, result, aim)) for trial in trials)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 0 < index < len(_HEAD) - 1 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def verdict(trial: Trial, result: Result, aim: Aim) -> str:
    """Of one line. Figures of the climb are not of the same minutes as those of the final."""
    marks = ["chosen"] * (trial is result.choice.trial) + ["present"] * (trial.candidate == result.present)
    broken = aim.broken(trial)
    if broken is not None:
        return ", ".join([*marks, broken])
    best = result.choice.best
    if trial is not best and trial is not result.choice.trial:
        gain = aim.gain(best, trial)
        equal = trial in result.finals and is_equal(trial, best, aim)
        marks.append("as good as the best" if equal else _against_best(gain, aim))
    elif trial is best and trial is not result.choice.trial:
        marks.append("best, by less than the noise")
    return ", ".join(marks)


def sentence(result: Result, aim: Aim) -> str:
    """What was chosen, and why."""
    choice, chosen = result.choice, result.choice.trial
    present = next(trial for trial in result.finals if trial.candidate == result.present)
    cut = "" if result.complete else " The search was cut short by its budget."
    if not choice.keeps_limits:
        return (
            f"Nothing that was tried keeps the limits. The nearest is {chosen.candidate}: {aim.broken(chosen)}. "
            f"Allow more, ask for less, or add cores.{cut}"
        )
    seen = chosen.middle()
    facts = f"{seen.rows_per_second:,.0f} rows/s, p50 {seen.p50_ms:.3g} ms, p99 {seen.p99_ms:.3g} ms"
    if chosen is present:
        return f"Keep the present configuration, {chosen.candidate}: {facts}. {_why_present(choice, aim)}{cut}"
    gain = aim.gain(chosen, present)
    if isfinite(gain):
        why = f"{_NAMES[aim.goal]} {gain:.0%} better than the present {result.present}"
    else:
        why = f"the present {result.present} does not keep the limits ({aim.broken(present)})"
    noise = f"spread of the rounds {max(aim.spread(chosen), aim.spread(present)):.0%}"
    simpler = "" if chosen is choice.best else f", and simpler than {choice.best.candidate}, as good within the noise"
    return f"Chosen: {chosen.candidate}: {facts}; {why} ({noise}){simpler}.{cut}"


def notes(result: Result, rows: int) -> list[str]:
    """What the user should know before taking the choice over. `rows`: of a request of the load."""
    chosen, present = result.choice.trial.candidate, result.present
    said = []
    if 0 < chosen.max_batch_size < present.max_batch_size:
        said.append(
            f"max_batch_size {chosen.max_batch_size}: requests of more rows, which {present.max_batch_size} let in, "
            f"would be refused; the load's have {rows}. --keep max-batch-size leaves it alone."
        )
    seen = result.choice.trial.middle()
    if seen.generator_late_ms > seen.p99_ms / 4:
        said.append(
            f"the load generator itself was {seen.generator_late_ms:.3g} ms late at the 99th percentile: it shares the "
            "cores with the server, and part of the p99 is its own"
        )
    return said


def as_json(result: Result, aim: Aim) -> dict[str, Any]:
    """Limits, the choice, and every round of the final; of the climb, those that did not get into it."""
    return {
        "goal": aim.goal.value,
        "p99_ms": aim.p99_ms,
        "refused_share": aim.refused_share,
        "present": _candidate_json(result.present),
        "chosen": _candidate_json(result.choice.trial.candidate),
        "changed": result.choice.trial.candidate != result.present,
        "keeps_limits": result.choice.keeps_limits,
        "complete": result.complete,
        "sentence": sentence(result, aim),
        "finals": [_trial_json(trial, result, aim) for trial in result.finals],
        "climb": [_trial_json(trial, result, aim) for trial in _only_climbed(result)],
    }


def round_line(candidate: Candidate, seen: Measurement) -> str:
    """Progress: one measurement."""
    cpu = "" if seen.cpu_us_per_request is None else f", CPU {seen.cpu_us_per_request:,.0f} us/request"
    return f"{candidate}: {seen.rows_per_second:,.0f} rows/s, p50 {seen.p50_ms:.3g}, p99 {seen.p99_ms:.3g} ms{cpu}"


def _only_climbed(result: Result) -> list[Trial]:
    """What did not get into the final."""
    finalists = {trial.candidate for trial in result.finals}
    return [trial for trial in result.climbed if trial.candidate not in finalists]


def _why_present(choice: Choice, aim: Aim) -> str:
    if choice.best is choice.trial:
        return "Nothing that was tried is better."
    gain, margin = aim.gain(choice.best, choice.trial), aim.margin(choice.best, choice.trial)
    return f"{choice.best.candidate} is {gain:.1%} better, within the noise of {margin:.1%}."


def _against_best(gain: float, aim: Aim) -> str:
    """`gain`: of the best over this one. Where it is negative, the final has shown that it was luck."""
    return f"{_NAMES[aim.goal]}: the best is {gain:.0%} better" if gain >= 0 else "not in the final"


def _line(trial: Trial, aim: Aim, said: str) -> tuple[str, ...]:
    said = shorten(said, _LONGEST_VERDICT, placeholder=" …")
    if not trial.rounds:
        return (str(trial.candidate), *[""] * (len(_HEAD) - 2), said)
    seen = trial.middle()
    return (
        str(trial.candidate),
        f"{seen.rows_per_second:,.0f}" if seen.rows_per_second >= 100 else f"{seen.rows_per_second:.1f}",
        f"{seen.p50_ms:.3g}",
        f"{seen.p99_ms:.3g}",
        "–" if seen.cpu_us_per_request is None else f"{seen.cpu_us_per_request:,.0f}",
        "–" if seen.peak_rss_mib is None else f"{seen.peak_rss_mib:.0f}",
        f"{seen.average_batch:.1f}",
        str(len(trial.rounds)),
        f"{aim.spread(trial):.0%}" if len(trial.rounds) > 1 else "–",
        said,
    )


def _trial_json(trial: Trial, result: Result, aim: Aim) -> dict[str, Any]:
    return {
        "candidate": _candidate_json(trial.candidate),
        "failure": None if trial.failure is None else trial.failure.reason,
        "medians": _figures(trial.middle()) if trial.rounds else None,
        "spread": aim.spread(trial),
        "rounds": [_figures(one) for one in trial.rounds],
        "verdict": verdict(trial, result, aim),
    }


def _figures(seen: Measurement) -> dict[str, float | None]:
    """JSON has no infinity: what was not answered is null."""
    return {key: value if value is None or isfinite(value) else None for key, value in asdict(seen).items()}


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    return {**asdict(candidate), "batching": str(candidate.batching), "text": str(candidate)}
