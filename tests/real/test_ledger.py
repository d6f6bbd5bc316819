"""Whatever becomes of a request, the ledger, ModelStatistics and the metrics page say the same of it. Both engines."""

from __future__ import annotations

import http.client
import json
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from proto import grpc_service_pb2 as pb
from server.__main__ import UNBALANCED
from tests import onnx_models
from tests.ensembles import add_ensemble, ensemble, step
from tests.real.clients import SERVICE, Client, infer_request, metric, read_url, wait_for_pending
from tests.real.conftest import STOP_SECONDS, RunningServer, StartServer, connect, start
from tests.real.waiting import wait_until
from tests.real.zoo import held
from tests.repositories import add_model

PATIENCE_SECONDS = 30
ROWS = np.array([[1], [2]])
MESSAGE_BYTES = 1_000_000
INNER = "inner"
"""A model that only the ensemble asks: its requests are steps, which the ledger does not know."""


def write_models(root: Path) -> Path:
    add_model(root, "affine", onnx_models.affine(), "max_batch_size: 4")
    add_model(root, "held", onnx_models.affine(), held("max_queue_size: 2 allow_timeout_override: true"))
    add_model(root, "lookup", onnx_models.lookup())
    add_model(root, "cached", onnx_models.affine(), "max_batch_size: 4 response_cache { enable: true }")
    add_model(root, INNER, onnx_models.affine(), "max_batch_size: 8")
    add_ensemble(root, "both", ensemble(step(INNER, {"x": "x"}, {"y": "y"})))
    add_model(root, "sequence", onnx_models.affine(), "max_batch_size: 1 sequence_batching { }")
    return root


def test_the_ledger_agrees_with_statistics_and_metrics_on_every_outcome(
    start_engine: StartServer, tmp_path: Path
) -> None:
    server = start_engine(
        "--cache-config=local,size=1048576", f"--grpc-max-message-bytes={MESSAGE_BYTES}",
        f"--http-max-input-size={MESSAGE_BYTES}", model_repository=write_models(tmp_path / "models"),
    )  # fmt: skip
    with connect(server) as channel:
        client = Client(channel)
        answered_and_refused(client)
        over_http(server)
        expired_full_cancelled_and_gone(client, server)
        wait_until(lambda: in_progress(server) == 0, PATIENCE_SECONDS)

        ledger = ended(server)
        assert ledger["answered", ""] == 13
        assert {reason for _, reason in ledger} >= {
            "invalid", "shape", "oversize", "unknown_model", "backend", "queue_full", "too_late"
        }  # fmt: skip
        assert ledger["abandoned", ""] == 2
        received = metric(server.metrics_url, "convoy_ledger_received_total")
        assert received == sum(ledger.values())

        statistics = client.call("ModelStatistics", pb.ModelStatisticsRequest()).model_stats
        asked = [each.inference_stats for each in statistics if each.name != INNER]
        assert sum(each.success.count for each in asked) == ledger["answered", ""]
        failed = failures(server)
        by_versions = sum(count for (model, _), count in failed.items() if model)
        assert sum(each.fail.count for each in asked) == by_versions
        successes = metric(server.metrics_url, "nv_inference_request_success")
        assert successes - inner_successes(server) == ledger["answered", ""]
        too_large = too_large_for_the_wire(server)
        counted = Counter({reason: 0 for _, reason in failed})
        for (_, reason), count in failed.items():
            counted[reason] += count
        counted["oversize"] += too_large
        counted["cancelled"] -= ledger.pop(("abandoned", ""))
        counted.subtract({reason: count for (outcome, reason), count in ledger.items() if outcome != "answered"})
        assert {reason: count for reason, count in counted.items() if count} == {}
    assert server.terminate() == 0
    assert "ledger: grpc: " in server.log.read_text()


MISCOUNTING_SERVER = (
    sys.executable,
    "-c",
    """
import sys
from server import __main__, statistics
record = statistics.VersionStatistics.record_success
def twice(self, queue_ns, request_ns):
    record(self, queue_ns, request_ns)
    record(self, queue_ns, request_ns)
statistics.VersionStatistics.record_success = twice
sys.exit(__main__.main())
""",
)


def test_a_model_that_counts_otherwise_than_the_ledger_is_found_at_the_end(tmp_path: Path) -> None:
    repository = write_models(tmp_path / "models")
    server = start(tmp_path, model_repository=repository, program=MISCOUNTING_SERVER)
    with connect(server) as channel:
        Client(channel).infer("affine", {"x": ROWS})
    server.process.terminate()
    assert server.process.wait(STOP_SECONDS) == UNBALANCED
    why = "the ledger does not balance: 1 requests were answered, and models gave 2 answers"
    assert why in server.log.read_text()


def answered_and_refused(client: Client) -> None:
    for _ in range(3):
        client.infer("affine", {"x": ROWS})
    for _ in range(2):
        client.infer("cached", {"x": ROWS})
    client.infer("both", {"x": ROWS})
    for number, (starts, ends) in enumerate([(True, False), (False, True)]):
        flags = {"sequence_start": starts, "sequence_end": ends}
        parameters = {name: pb.InferParameter(bool_param=value) for name, value in flags.items()}
        parameters["sequence_id"] = pb.InferParameter(int64_param=7)
        client.infer("sequence", {"x": np.array([[number]])}, parameters=parameters)
    refused = [
        infer_request("affine", {"x": ROWS.astype(np.float32)}),  # invalid
        infer_request("affine", {"x": ROWS.reshape(1, 1, 2)}),  # shape
        infer_request("affine", {"x": np.zeros((5, 1), np.int64)}),  # oversize
        infer_request("both", {"x": np.zeros((9, 1), np.int64)}),  # oversize, for the ensemble
        infer_request("lookup", {"x": ROWS + 99}),  # backend
        infer_request("stranger", {"x": ROWS}),  # unknown
        b"\xff\xff",
        bytes(MESSAGE_BYTES + 1),
    ]
    for request in refused:
        client.refusal("ModelInfer", request)
    messages = [infer_request(model, {"x": ROWS}).SerializeToString() for model in ("affine", "stranger", "affine")]
    stream = client.channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
    assert len(list(stream(iter([*messages, b"\xff"]), timeout=PATIENCE_SECONDS))) == 4


def over_http(server: RunningServer) -> None:
    tensor = {"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [1]}
    good = json.dumps({"inputs": [tensor]}).encode()
    wrong = json.dumps({"inputs": [tensor | {"datatype": "FP32"}]}).encode()
    asked = [("affine", good, 200), ("both", good, 200), ("cached", good, 200), ("affine", wrong, 400),
             ("stranger", good, 404), ("affine", b"{", 400), ("affine", bytes(MESSAGE_BYTES + 1), 413)]  # fmt: skip
    for model, body, status in asked:
        with closing(http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=PATIENCE_SECONDS)) as peer:
            peer.request("POST", f"/v2/models/{model}/infer", body)
            answer = peer.getresponse()
            assert (model, answer.status) == (model, status), answer.read()


def expired_full_cancelled_and_gone(client: Client, server: RunningServer) -> None:
    short = {"timeout": pb.InferParameter(int64_param=1000)}
    late = client.start_infer("held", {"x": ROWS[:1]}, parameters=short)
    assert late.exception(PATIENCE_SECONDS) is not None
    waiting = client.start_infer("held", {"x": ROWS[:1]})
    peer = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=PATIENCE_SECONDS)
    tensor = {"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [1]}
    peer.request("POST", "/v2/models/held/infer", json.dumps({"inputs": [tensor]}))
    wait_for_pending(server.metrics_url, "held", 2)
    client.refusal("ModelInfer", infer_request("held", {"x": ROWS[:1]}))  # the queue is full
    waiting.cancel()
    peer.close()
    wait_for_pending(server.metrics_url, "held", 0)


def in_progress(server: RunningServer) -> float:
    return metric(server.metrics_url, "convoy_ledger_in_progress")


def ended(server: RunningServer) -> Counter[tuple[str, str]]:
    """How many ended in which way, all protocols together."""
    found: Counter[tuple[str, str]] = Counter()
    for labels, value in samples(server, "convoy_ledger_ended_total"):
        found[labels["outcome"], labels["reason"]] += int(value)
    return found


def failures(server: RunningServer) -> dict[tuple[str, str], int]:
    """By model, "" for those that reached none, and reason."""
    return {
        (labels["model"], labels["reason"]): int(value)
        for labels, value in samples(server, "convoy_request_failed_total")
        if value and labels["model"] != INNER
    }


def inner_successes(server: RunningServer) -> float:
    return metric(server.metrics_url, "nv_inference_request_success", model=INNER)


def too_large_for_the_wire(server: RunningServer) -> int:
    """Messages that were refused before they were read to their end. grpcio does not tell of its own."""
    grpc = [value for labels, value in samples(server, "grpc_server_handled_total")
            if labels["grpc_code"] == "ResourceExhausted"]  # fmt: skip
    rest = [value for labels, value in samples(server, "convoy_http_requests_total") if labels["status"] == "413"]
    return int(sum(grpc) + sum(rest))


def samples(server: RunningServer, name: str) -> list[tuple[dict[str, str], float]]:
    families = text_string_to_metric_families(read_url(server.metrics_url))
    return [(sample.labels, sample.value) for family in families for sample in family.samples if sample.name == name]
