"""The audit log: who changed the server, or tried to. Never what tensors, files or settings hold, and no credential."""

from __future__ import annotations

import logging

from server.access.decisions import Caller
from server.frontends.access_rules import Question
from server.frontends.calls import Peer, StatusCode
from server.logs import AUDIT_LOGGER

log = logging.getLogger(AUDIT_LOGGER)

MAX_TEXT = 256
"""What is kept of a name that a caller has made up."""
UNKNOWN = "unknown"
"""Who has shown a credential that is not valid."""


class Audit:
    """Notes the calls of one protocol."""

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol

    def record(self, peer: Peer, caller: Caller | None, question: Question, status: StatusCode) -> None:
        """One call, when it has ended; `caller` None where its credential was wrong."""
        fields: dict[str, object] = {
            "principal": caller.name if caller is not None else UNKNOWN,
            "peer": peer.address,
            "protocol": self._protocol,
            "action": question.action,
            "outcome": status.name,
        }
        if question.model is not None:
            fields["model"] = question.model[:MAX_TEXT]
        if question.subject:
            fields["region"] = question.subject[:MAX_TEXT]
        if question.details:
            fields["parameters"] = [name[:MAX_TEXT] for name in question.details]
        if peer.certificate:
            fields["certificate"] = list(peer.certificate)
        log.info("%s %s", question.action, status.name, extra=fields)
