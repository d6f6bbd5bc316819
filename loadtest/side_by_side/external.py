"""A server of the v2 protocol that somebody else runs: `--peer grpc://host:port`."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import psutil

from loadtest.errors import LoadTestError, WrongAnswerError
from loadtest.peers.base import Tensor
from loadtest.peers.calls import v2_grpc
from loadtest.side_by_side.asking import ask, check_together, checked
from loadtest.side_by_side.processes import ProcessTree
from loadtest.side_by_side.records import Record
from loadtest.side_by_side.subjects import Workload
from loadtest.side_by_side.turn import ServerUnderTest, Tools, measure


@dataclass(frozen=True)
class External:
    """Where it listens, and its process where that is on this machine."""

    address: str
    pid: int | None

    @property
    def name(self) -> str:
        return "external-" + self.address.replace(":", "-").replace(".", "-")

    @property
    def title(self) -> str:
        return f"yours, {self.address}"

    @property
    def without_cpu(self) -> str | None:
        """Why there are no figures of CPU and memory; None where there are."""
        if self.pid is not None:
            return None
        where = (
            "no process of this machine is known to listen there" if _is_local(self.address) else "it runs elsewhere"
        )
        return f"{where}: give its process id with --peer-pid"


def parse_external(url: str, pid: int | None) -> External:
    """From "grpc://host:port"; its process is found by the port if possible. ValueError says what is wrong."""
    parts = urlsplit(url)
    if parts.scheme != "grpc" or parts.port is None or not parts.hostname or parts.path.strip("/"):
        raise ValueError(f"'{url}' is not grpc://HOST:PORT")
    address = f"{parts.hostname}:{parts.port}"
    return External(address, pid or (_listener(parts.port) if _is_local(address) else None))


def take_external_turn(
    external: External,
    workload: Workload,
    rows: Sequence[Tensor],
    answers: Sequence[Tensor],
    number: int,
    tools: Tools,
) -> Record:
    """As `turn.take_turn`, without a start. Its model must have the subject's name and tensors."""
    record = Record(external.name, workload.subject.name, number)
    call = v2_grpc(workload.subject)
    try:
        body = ask(external.address, call, rows[0])
        checked(call, body, answers[0])
        check_together(external.address, call, rows, answers)
        processes = None if external.pid is None else ProcessTree([external.pid])
        measure(
            ServerUnderTest(external.address, call, rows[0], answers[0], len(body), processes), workload, record, tools
        )
    except (LoadTestError, WrongAnswerError, OSError) as error:
        record = replace(record, failure=str(error))
    return record


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0]
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError as error:
        raise ValueError(f"'{host}' is not known: {error}") from error


def _listener(port: int) -> int | None:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            pid: int | None = connection.pid
            return pid
    return None
