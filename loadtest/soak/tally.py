"""What clients saw, counted. Pure; a process has one, and they add up."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

_EXAMPLES = 20
GRPC, STREAM, HTTP = "grpc", "grpc_stream", "http"
"""Protocols, by the names that the server's ledger has for them."""


class Refused(Exception):
    """The server answered with an error, or the caller's own deadline came."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        """A gRPC status in capitals, or an HTTP status in digits."""
        self.message = message


@dataclass
class Tally:
    """Counters. `left` are requests whose caller did not wait for the answer: the server may have given it or not."""

    sent: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Inference requests, by protocol and model."""
    answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    """Kinds that ended with right answers."""
    refusals: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Expected ones by kind, status and the sentence without its numbers and names."""
    wrong: Counter[str] = field(default_factory=Counter)
    """Answers that cannot be, by kind."""
    unexpected: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Other ends, by kind and status."""
    examples: list[str] = field(default_factory=list)
    """Of wrong and unexpected ends."""

    def say(self, text: str) -> None:
        """Keep an example of what should not have been; the first ones."""
        if len(self.examples) < _EXAMPLES:
            self.examples.append(text)

    def add(self, other: Tally) -> None:
        """Count what another process saw as well."""
        for mine, its in (
            (self.sent, other.sent),
            (self.answered, other.answered),
            (self.refused, other.refused),
            (self.left, other.left),
        ):
            mine.update(its)
        self.ended.update(other.ended)
        self.refusals.update(other.refusals)
        self.wrong.update(other.wrong)
        self.unexpected.update(other.unexpected)
        for example in other.examples:
            self.say(example)

    def open_requests(self) -> int:
        """Requests of which nobody knows what became: bugs of the clients'."""
        ends = self.answered.total() + self.refused.total() + self.left.total()
        return self.sent.total() - ends


def shape_of(message: str) -> str:
    """A sentence without what differs from one request to the next."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|-?\d+", "…", message)[:160]
