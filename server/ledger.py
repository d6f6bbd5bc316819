"""The ledger: every inference request that was read in full is answered exactly once, or its caller has gone.

    received = answered + refused and failed, by reason + abandoned + in progress

holds at every moment, since all of it is counted on the event loop's thread. An engine counts a request as received
when its message is there whole, before anything looks at it, and how it ended where the answer is handed to the
connection. The engine's call knows whether it has ended, so that a second answer is seen where it is given, and counts
for nothing else: it makes up for none that is lost. What lies between (guards, codecs, queues, caches, lanes) cannot
lose a request or answer it twice without being seen.
One entry is what one caller sent: the steps of an ensemble, and the parts of a request that was split, have none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.errors import Reason

log = logging.getLogger(__name__)

FAILURES = frozenset({Reason.BACKEND, Reason.OUT_OF_MEMORY, Reason.INTERNAL})
"""Reasons for which a request failed. All others are refusals: it was not tried, or not to the end."""


@dataclass(frozen=True, slots=True)
class AccountSnapshot:
    """The requests of one protocol, copied."""

    protocol: str
    received: int
    answered: int
    by_reason: Mapping[Reason, int]
    """Refused and failed; reasons that came up."""
    abandoned: int
    in_progress: int
    answered_twice: int


class Account:
    """The requests that come over one protocol. Integers alone, since they are counted for each request."""

    __slots__ = ("_by_reason", "_is_cutting_off", "abandoned", "answered", "answered_twice", "cut_off", "protocol",
                 "received")  # fmt: skip

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.received = 0
        """Read in full, or turned away. Whoever reads them counts."""
        self.answered = 0
        """With a result. Whoever gives it counts, once for a request."""
        self._by_reason = dict.fromkeys(Reason, 0)
        self.abandoned = 0
        """Their callers had gone before they were answered."""
        self.answered_twice = 0
        """Answers too many: bugs."""
        self.cut_off = 0
        """Requests that models still had when the time to answer them was over. They are refused, by that reason."""
        self._is_cutting_off = False

    @property
    def in_progress(self) -> int:
        """Received, and not ended in any way."""
        return self.received - self.answered - self.abandoned - sum(self._by_reason.values())

    def fail(self, reason: Reason) -> None:
        """A request was answered with an error."""
        self._by_reason[reason] += 1

    def abandon(self) -> None:
        """A request's caller has gone, or was cut off since the server goes down."""
        if self._is_cutting_off:
            self.cut_off += 1
            self._by_reason[Reason.SHUTDOWN] += 1
        else:
            self.abandoned += 1

    def answer_again(self) -> None:
        """A request was answered that had been answered before: a bug. The caller hears of the first answer alone."""
        self.answered_twice += 1
        log.error("a request of %s was answered twice", self.protocol, stack_info=True)

    def turn_away(self, reason: Reason) -> None:
        """A request was refused before it was read to its end."""
        self.received += 1
        self._by_reason[reason] += 1

    def begin_cut_off(self) -> None:
        """From now on, whoever gets no answer is not the one who left."""
        self._is_cutting_off = True

    def snapshot(self) -> AccountSnapshot:
        """A copy."""
        return AccountSnapshot(
            self.protocol,
            self.received,
            self.answered,
            {reason: count for reason, count in self._by_reason.items() if count},
            self.abandoned,
            self.in_progress,
            self.answered_twice,
        )

    def problems(self) -> Iterable[str]:
        """What is wrong, now that no request may be in progress any more."""
        in_progress = self.in_progress
        if in_progress > 0:
            yield f"{in_progress} still in progress"
        if in_progress < 0:
            yield f"{-in_progress} ended that were not received, or had ended"
        if self.answered_twice:
            yield f"{self.answered_twice} answered twice"


class Ledger:
    """The accounts of a server."""

    def __init__(self) -> None:
        self.grpc = Account("grpc")
        self.grpc_stream = Account("grpc_stream")
        """Message by message."""
        self.http = Account("http")
        self._accounts = [self.grpc, self.grpc_stream, self.http]
        self.lost = 0
        """Requests that nobody had any more, and that had not been answered when the server went down: bugs."""

    @property
    def accounts(self) -> Sequence[Account]:
        return self._accounts

    def open(self, protocol: str) -> Account:
        """One account more, for requests that not every server has."""
        account = Account(protocol)
        self._accounts.append(account)
        return account

    def begin_cut_off(self, held: int) -> None:
        """See `Account.begin_cut_off`. `held`: how many requests models have: whatever else is in progress is lost."""
        self.lost += max(0, sum([account.in_progress for account in self.accounts]) - held)
        for account in self.accounts:
            account.begin_cut_off()

    def snapshot(self) -> list[AccountSnapshot]:
        return [account.snapshot() for account in self.accounts]

    def close(self, given: int) -> bool:
        """Log what the server did in its life. Returns whether every request was answered once, or abandoned.

        `given` is how many answers were given to callers, as models and whoever keeps their answers back have it.
        """
        answered = sum([account.answered for account in self.accounts])
        wrong = self.lost > 0 or answered != given
        if answered != given:
            log.error(
                "the ledger does not balance: %d requests were answered, and models gave %d answers", answered, given
            )
        if self.lost:
            log.error("the ledger does not balance: %d requests were not answered, and no model had them", self.lost)
        for account in self.accounts:
            problems = list(account.problems())
            if problems:
                wrong = True
                log.error("the ledger does not balance: %s: %s", summary(account.snapshot()), ", ".join(problems))
            elif account.received:
                log.info("ledger: %s", summary(account.snapshot()))
            if account.cut_off:
                log.warning("%s: %d requests were not answered in the time to stop", account.protocol, account.cut_off)
        return not wrong


def summary(account: AccountSnapshot) -> str:
    """An account in one line."""
    reasons = "".join(f", {reason} {count}" for reason, count in account.by_reason.items())
    return (
        f"{account.protocol}: {account.received} received = answered {account.answered}{reasons}, "
        f"abandoned {account.abandoned}, in progress {account.in_progress}"
    )
