"""Triton's trace file: JSON, with the names that Triton's events have, for the tools that read it.

A trace is two kinds of entries, one that says whose it is and one for each moment. With a `log-frequency`, so many
traces are a file with a number; else all are one file, whole once the server has stopped. Writing has its own thread.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from server.records import GRPC, HTTP, Record

log = logging.getLogger(__name__)

MAX_WAITING = 2048


class JsonFileSink:
    """See `tracing.Sink`. What cannot be written is counted, and told once."""

    def __init__(self, path: Path) -> None:
        self.dropped = 0
        """Traces that came faster than they could be written."""
        self.failed = 0
        """Traces that could not be written."""
        self._path = path
        self._waiting: queue.Queue[Record | None] = queue.Queue(MAX_WAITING)
        self._next_id = 1
        self._whole: TextIO | None = None
        self._batch: list[dict[str, Any]] = []
        self._batched = 0
        self._file_number = 0
        self._thread = threading.Thread(target=self._write_all, name="trace file", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        return self.dropped + self.failed

    def take(self, record: Record) -> None:
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            if not self.dropped:
                log.warning("traces are made faster than %s takes them: some are dropped", self._path)
            self.dropped += 1

    def close(self, seconds: float) -> None:
        try:
            self._waiting.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _write_all(self) -> None:
        while (record := self._waiting.get()) is not None:
            self._attempt(record)
        self._attempt(None)

    def _attempt(self, record: Record | None) -> None:
        """Write one trace, or the end."""
        try:
            if record is None:
                self._end()
            else:
                self._write(record)
        except OSError as error:
            if not self.failed:
                log.warning("traces cannot be written: %s", error)
            self.failed += 1

    def _write(self, record: Record) -> None:
        entries = entries_of(self._next_id, record)
        self._next_id = entries[-1]["id"] + 1
        if record.log_frequency:
            self._batch += entries
            self._batched += 1
            if self._batched >= record.log_frequency:
                self._write_batch()
            return
        if self._whole is None:
            self._whole = self._path.open("w")
            self._whole.write("[")
        else:
            self._whole.write(",")
        self._whole.write(json.dumps(entries)[1:-1])

    def _write_batch(self) -> None:
        batch, self._batch, self._batched = self._batch, [], 0
        path = self._path.with_name(f"{self._path.name}.{self._file_number}")
        self._file_number += 1
        path.write_text(json.dumps(batch))

    def _end(self) -> None:
        if self._whole is not None:
            with self._whole as file:
                file.write("]")
        if self._batch:
            self._write_batch()


_TRANSPORT_MOMENTS = {GRPC: ("GRPC_WAITREAD", "GRPC_SEND"), HTTP: ("HTTP_RECV", "HTTP_SEND")}
"""Triton's names, to begin with, of what a protocol does before and after."""


def entries_of(trace_id: int, record: Record) -> list[dict[str, Any]]:
    """One trace as Triton writes it: whose it is, and its moments in order. The last entry has the highest id."""
    head = _head(trace_id, record) | ({"headers": record.headers} if record.headers else {})
    receive, send = _TRANSPORT_MOMENTS[record.protocol]
    moments = [(f"{receive}_START", record.received_ns), (f"{receive}_END", record.received_ns)]
    moments += _inside(record)
    sent_from = record.computations[-1].output_end_ns if record.computations else record.ended_ns
    if record.error is None:
        moments.append(("INFER_RESPONSE_COMPLETE", sent_from))
    if record.arrived_ns:
        moments.append(("REQUEST_END", sent_from))
    moments += [(f"{send}_START", sent_from), (f"{send}_END", record.ended_ns)]
    return [head, *_timestamps(trace_id, moments), *_steps(trace_id, trace_id + 1, record)]


def _steps(parent_id: int, first_id: int, record: Record) -> list[dict[str, Any]]:
    """The steps of an ensemble, and theirs: a trace each, as Triton has it."""
    entries: list[dict[str, Any]] = []
    for step in record.steps:
        trace_id = entries[-1]["id"] + 1 if entries else first_id
        moments = [*_inside(step), ("REQUEST_END", step.ended_ns)]
        entries += [_head(trace_id, step) | {"parent_id": parent_id}, *_timestamps(trace_id, moments)]
        entries += _steps(trace_id, trace_id + 1, step)
    return entries


def _head(trace_id: int, record: Record) -> dict[str, Any]:
    version = int(record.version) if record.version.isdigit() else -1
    head: dict[str, Any] = {"id": trace_id, "model_name": record.model, "model_version": version}
    return head | {"request_id": record.request_id} if record.request_id else head


def _timestamps(trace_id: int, moments: Sequence[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    return ({"id": trace_id, "timestamps": [{"name": name, "ns": ns}]} for name, ns in moments)


def _inside(record: Record) -> list[tuple[str, int]]:
    """What happened to a request after it was admitted."""
    moments: list[tuple[str, int]] = []
    if record.arrived_ns:
        moments += [("REQUEST_START", record.arrived_ns), ("QUEUE_START", record.arrived_ns)]
    for run in record.computations:
        moments += [
            ("COMPUTE_START", run.start_ns),
            ("COMPUTE_INPUT_END", run.input_end_ns),
            ("COMPUTE_OUTPUT_START", run.infer_end_ns),
            ("COMPUTE_END", run.output_end_ns),
        ]
    return moments
