"""Whether the server counted what the clients did. Pure.

A request whose caller left may have been answered, refused, or never have come: it widens what is right by one. Callers
leave one model only, so that all the others must agree to the request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loadtest.figures import Counts
from loadtest.soak import models
from loadtest.soak.sampling import Page
from loadtest.soak.tally import GRPC, HTTP, STREAM, Tally
from loadtest.verdict import Check

NO_LEDGER = "this server has no ledger (convoy_ledger_received_total): not judged"


@dataclass(frozen=True)
class Within:
    """What a count of the server's may be."""

    low: int
    high: int

    def check(self, what: str, counted: float) -> Check:
        span = f"{self.low}" if self.low == self.high else f"{self.low} to {self.high}"
        return Check(self.low <= counted <= self.high, f"{what}: {counted:.0f} counted, {span} by the clients")


def model_checks(tally: Tally, statistics: Mapping[str, Counts], page: Page) -> Iterator[Check]:
    """Answers by model, from both ends of the server: ModelStatistics and the metrics page."""
    answered, left = _by_model(tally.answered), _by_model(tally.left)
    # What the ensemble asks of its step is on nobody's tally but the ensemble's.
    for counts in (answered, left):
        counts[models.STEP] = models.STEPS_OF_PAIR * counts[models.PAIR]
    for model, counted in sorted(statistics.items()):
        expected = Within(answered[model], answered[model] + left[model])
        yield expected.check(f"answers of {model}, ModelStatistics", counted.successes)
        metric = page.total("nv_inference_request_success", model=model)
        yield expected.check(f"answers of {model}, nv_inference_request_success", metric)


def failure_checks(tally: Tally, page: Page) -> Iterator[Check]:
    """Refusals: of the one model that callers leave, and of all others and of none together."""
    refused, left = _by_model(tally.refused), _by_model(tally.left)
    failed = page.by("model", "convoy_request_failed_total")
    patient = failed.pop(models.PATIENT, 0.0)
    mine, gone = refused.pop(models.PATIENT, 0), left.pop(models.PATIENT, 0)
    yield Within(mine, mine + gone).check(f"refusals of {models.PATIENT}", patient)
    others, lost = refused.total(), left.total()
    yield Within(others, others + lost).check("refusals of all others", sum(failed.values()))


def ledger_checks(tally: Tally, page: Page) -> Iterator[Check]:
    """The server's own ledger by protocol: it balances, and has what the clients have. None where it has none."""
    if not page.has("convoy_ledger_received_total"):
        return
    for protocol in (GRPC, STREAM, HTTP):
        sent, answered, refused, left = (
            sum(count for (of, _), count in counts.items() if of == protocol)
            for counts in (tally.sent, tally.answered, tally.refused, tally.left)
        )
        received = page.total("convoy_ledger_received_total", protocol=protocol)
        ended = page.total("convoy_ledger_ended_total", protocol=protocol)
        progress = page.total("convoy_ledger_in_progress", protocol=protocol)
        twice = page.total("convoy_ledger_answered_twice_total", protocol=protocol)
        text = f"ledger, {protocol}: {received:.0f} received, {ended:.0f} ended, {progress:.0f} in progress"
        yield Check(received == ended + progress and not progress, text)
        yield Check(twice == 0, f"ledger, {protocol}: {twice:.0f} answered twice")
        yield Within(sent - left, sent).check(f"ledger, {protocol}: received", received)
        outcomes = page.by("outcome", "convoy_ledger_ended_total", protocol=protocol)
        answers, abandoned = outcomes.get("answered", 0.0), outcomes.get("abandoned", 0.0)
        yield Within(answered, answered + left).check(f"ledger, {protocol}: answered", answers)
        errors = sum(outcomes.values()) - answers - abandoned
        yield Within(refused, refused + left).check(f"ledger, {protocol}: refused or failed", errors)
        yield Within(0, left).check(f"ledger, {protocol}: abandoned", abandoned)


def client_checks(tally: Tally) -> Iterator[Check]:
    """What the clients alone can tell."""
    yield Check(not tally.wrong, f"wrong answers: {tally.wrong.total()} {_listed(tally.wrong)}".rstrip())
    unexpected: Counter[str] = Counter()
    for (kind, status), count in tally.unexpected.items():
        unexpected[f"{kind} {status}"] += count
    yield Check(not unexpected, f"unexpected ends: {unexpected.total()} {_listed(unexpected)}".rstrip())
    lost = tally.open_requests()
    yield Check(lost == 0, f"requests sent {tally.sent.total()}, of which nobody knows what became: {lost}")


def _by_model(counts: Counter[tuple[str, str]]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for (_, model), count in counts.items():
        totals[model] += count
    return totals


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
