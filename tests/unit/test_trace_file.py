"""Triton's trace file: its entries, and how they are spread over files, with the real thread that writes them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from server.errors import QueueFull
from server.records import HTTP, Computation, Record
from server.tracing.json_file import JsonFileSink, entries_of

RUN = Computation(150, 160, 180, 190, rows=5, requests=3, size=8)


def record(*runs: Computation, log_frequency: int = 0, request_id: str = "") -> Record:
    record = Record("ModelInfer", "m", 100, lambda *_: None)
    record.admitted("3", 2, 110)
    record.computations += runs
    record.ended_ns, record.log_frequency, record.request_id = 300, log_frequency, request_id
    return record


def moments(entries: list[dict[str, Any]]) -> dict[str, int]:
    return {moment["name"]: moment["ns"] for entry in entries for moment in entry.get("timestamps", ())}


def test_a_request_over_http_has_the_names_of_http() -> None:
    traced = record(RUN)
    traced.protocol = HTTP
    names = list(moments(entries_of(7, traced)))
    assert (names[:2], names[-2:]) == (["HTTP_RECV_START", "HTTP_RECV_END"], ["HTTP_SEND_START", "HTTP_SEND_END"])


def test_a_trace_has_tritons_moments_in_order() -> None:
    head, *rest = entries_of(7, record(RUN, request_id="seven"))
    assert head == {"id": 7, "model_name": "m", "model_version": 3, "request_id": "seven"}
    assert {entry["id"] for entry in rest} == {7}
    assert moments(rest) == {
        "GRPC_WAITREAD_START": 100,
        "GRPC_WAITREAD_END": 100,
        "REQUEST_START": 110,
        "QUEUE_START": 110,
        "COMPUTE_START": 150,
        "COMPUTE_INPUT_END": 160,
        "COMPUTE_OUTPUT_START": 180,
        "COMPUTE_END": 190,
        "INFER_RESPONSE_COMPLETE": 190,
        "REQUEST_END": 190,
        "GRPC_SEND_START": 190,
        "GRPC_SEND_END": 300,
    }


def test_the_steps_of_an_ensemble_are_traces_that_name_their_parent() -> None:
    outer, nested, inner, last = record(), record(), record(RUN), record(RUN)
    nested.steps, outer.steps = (inner,), (nested, last)
    heads = [entry for entry in entries_of(7, outer) if "model_name" in entry]
    assert [(head["id"], head.get("parent_id")) for head in heads] == [(7, None), (8, 7), (9, 8), (10, 7)]
    assert moments([entry for entry in entries_of(7, outer) if entry["id"] == 9]) == {
        "REQUEST_START": 110,
        "QUEUE_START": 110,
        "COMPUTE_START": 150,
        "COMPUTE_INPUT_END": 160,
        "COMPUTE_OUTPUT_START": 180,
        "COMPUTE_END": 190,
        "REQUEST_END": 300,
    }


def test_a_trace_after_an_ensembles_has_an_id_of_its_own(tmp_path: Path) -> None:
    outer = record()
    outer.steps = (record(RUN), record(RUN))
    sink = JsonFileSink(tmp_path / "trace.json")
    sink.take(outer)
    sink.take(record(RUN))
    sink.close(30)
    entries = json.loads((tmp_path / "trace.json").read_text())
    assert [entry["id"] for entry in entries if "model_name" in entry] == [1, 2, 3, 4]


def test_a_refused_request_has_no_more_than_a_beginning_and_an_end() -> None:
    refused = Record("ModelInfer", "m", 100, lambda *_: None)
    refused.ended_ns, refused.error = 300, QueueFull("no room")
    head, *rest = entries_of(1, refused)
    assert head["model_version"] == -1
    assert moments(rest) == {
        "GRPC_WAITREAD_START": 100,
        "GRPC_WAITREAD_END": 100,
        "GRPC_SEND_START": 300,
        "GRPC_SEND_END": 300,
    }


def ids(path: Path) -> list[int]:
    return [entry["id"] for entry in json.loads(path.read_text()) if "model_name" in entry]


def test_all_traces_are_one_file_once_the_server_has_stopped(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    sink = JsonFileSink(path)
    for _ in range(3):
        sink.take(record(RUN))
    sink.close(20)
    assert ids(path) == [1, 2, 3]


def test_with_a_frequency_so_many_traces_are_a_file(tmp_path: Path) -> None:
    sink = JsonFileSink(tmp_path / "trace.json")
    for _ in range(5):
        sink.take(record(RUN, log_frequency=2))
    sink.close(20)
    assert {path.name: ids(path) for path in tmp_path.iterdir()} == {
        "trace.json.0": [1, 2],
        "trace.json.1": [3, 4],
        "trace.json.2": [5],
    }


def test_a_file_that_cannot_be_written_costs_traces_and_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = JsonFileSink(tmp_path / "missing" / "trace.json")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            sink.take(record(RUN))
        sink.close(20)
    assert sink.failed == 3
    assert len(caplog.messages) == 1
    assert "missing/trace.json" in caplog.text


def test_no_file_is_made_where_nothing_is_traced(tmp_path: Path) -> None:
    JsonFileSink(tmp_path / "trace.json").close(20)
    assert list(tmp_path.iterdir()) == []
