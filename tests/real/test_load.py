"""`python -m loadtest` as its users run it: real Locust, real h2load, a real server; and its pure parts by table."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tritonclient.utils import deserialize_bytes_tensor

from loadtest.bench import loading, objectives
from loadtest.bench.comparison import take_turns
from loadtest.bench.servers import Plan
from loadtest.bench.workloads import bench
from loadtest.errors import LoadTestError, WrongAnswerError
from loadtest.figures import Counts, percentile, slope
from loadtest.h2load import read_log
from loadtest.payload import Workload, make_workload, parse_shape
from loadtest.verdict import Limits, ModelOutcome, Outcome, count_checks, limit_checks
from proto import grpc_service_pb2 as pb

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(300)


def loadtest(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtest", *map(str, arguments)],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )


def test_a_load_test_of_a_fresh_server_passes_and_leaves_its_reports(tmp_path: Path) -> None:
    flags = ("--seconds", "4", "--users", "8", "--load-shape", "steps", "--steps", "2")
    done = loadtest("run", *flags, "--p99-ms", "30000", "--out", tmp_path)

    assert done.returncode == 0, done.stdout
    assert "verdict        PASSED" in done.stdout
    assert "<html" in (tmp_path / "report.html").read_text()
    assert "ModelInfer lenet5" in (tmp_path / "locust_stats.csv").read_text()
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert [level["users"] for level in verdict["levels"]] == [4, 8]
    assert all(level["kept"] and level["requests"] > 0 for level in verdict["levels"])
    outcome = verdict["outcome"]
    assert outcome["failures"] == 0
    (model,) = outcome["models"]
    assert model["counted"]["inferences"] == model["metric"] == outcome["recorded"] == outcome["requests"]
    assert 0 < outcome["percentiles"]["p50_ms"] <= outcome["percentiles"]["p99_ms"]


def test_a_broken_promise_is_exit_code_1(shared_server: RunningServer, tmp_path: Path) -> None:
    flags = ("--load-shape", "ramp-to-failure", "--ramp-users", "4", "--ramp-seconds", "1", "--p99-ms", "0.001")
    done = loadtest("run", "--url", shared_server.grpc_address, *flags, "--out", tmp_path)

    assert done.returncode == 1, done.stdout
    assert "BROKEN         no level kept the limits; 4 users (" in done.stdout
    assert "verdict        FAILED" in done.stdout


def test_a_model_that_is_not_there_is_exit_code_2_and_a_sentence(shared_server: RunningServer, tmp_path: Path) -> None:
    done = loadtest("run", "--url", shared_server.grpc_address, "--model", "no_such_model", "--out", tmp_path)

    assert done.returncode == 2, done.stdout
    assert "no_such_model" in done.stdout
    assert "Traceback" not in done.stdout


def skip_without_h2load() -> None:
    if not (shutil.which("h2load") or (REPOSITORY / ".cache/debian/usr/bin/h2load").exists()):
        pytest.skip("h2load is missing; as root: apt-get install nghttp2-client")


def plan(out: Path, requests: int) -> Plan:
    """One round of so many requests."""
    return Plan(
        model="lenet5", model_repository=REPOSITORY / "model_repository", out=out, rounds=1, requests=requests,
        connections=None, streams=None, idle_connections=0,
    )  # fmt: skip


def benchmark(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The report of a benchmark with those arguments."""
    skip_without_h2load()
    done = loadtest("bench", *arguments, "--out", tmp_path)
    assert done.returncode == 0, done.stdout
    return json.loads((tmp_path / "bench.json").read_text())


def test_a_benchmark_measures_both_engines_and_the_floors(tmp_path: Path) -> None:
    report = benchmark(tmp_path, "small", "single", "large", "--requests", "500", "--rounds", "1")

    assert set(report) == {"machine", "small", "single", "large"}
    for name, floor in (("small", "bare grpc.aio"), ("single", "bare grpc.aio"), ("large", "bare socket")):
        section = report[name]
        extra = ["nghttp2, large frames"] if name == "large" else []
        assert list(section["medians"]) == ["nghttp2", "grpcio", *extra, floor]
        assert list(section["ratios"]) == ["nghttp2 / grpcio", f"{(extra or ['nghttp2'])[0]} / {floor}"]
        for server, figures in section["medians"].items():
            assert figures["requests_per_second"] > 0
            assert figures["cpu_us_per_request"] > 0
            if server not in ("bare socket", *extra):
                assert 0 < figures["p50_ms"] <= figures["p99_ms"]
        rates = [section["medians"][server]["requests_per_second"] for server in ("nghttp2", "grpcio")]
        assert section["ratios"]["nghttp2 / grpcio"]["requests_per_second"] == pytest.approx(rates[0] / rates[1])
    assert report["small"]["medians"]["grpcio"]["onnxruntime_cpu_us_per_row"] > 0
    assert report["single"]["medians"]["nghttp2"]["average_batch"] == 1
    assert report["large"]["message_bytes"] > 602_112


def test_idle_connections_are_held_and_weighed_and_a_soak_is_sampled(tmp_path: Path) -> None:
    report = benchmark(
        tmp_path, *("idle", "soak"), *("--requests", "500", "--rounds", "1", "--idle-connections", "300")
    )

    assert set(report) == {"machine", "idle", "soak"}
    idle, soak = report["idle"], report["soak"]
    assert set(idle["medians"]) == {"with the crowd", "without"}
    assert idle["idle_connections"] == 300
    assert idle["rss_with_crowd_bytes"] > idle["rss_before_bytes"] > 0
    assert len(soak["samples_requests_rss_bytes"]) == 21
    assert soak["samples_requests_rss_bytes"][-1][0] == 500
    assert all(rss_bytes > 0 for _, rss_bytes in soak["samples_requests_rss_bytes"])


def test_an_overloaded_server_answers_or_refuses_everything_within_its_memory(tmp_path: Path) -> None:
    done = loadtest("bench", "overload", "--seconds", "2", "--out", tmp_path)
    assert done.returncode in (0, 1), done.stdout  # a goal that is about time may be missed on a busy machine
    report = json.loads((tmp_path / "bench.json").read_text())["overload"]

    missed = {name for name, goal in report["goals"].items() if not goal["reached"]}
    resident = "memory beyond that at rest, of the budget"  # not yet reached: docs/reliability.md
    assert missed <= {name for name in report["goals"] if name.endswith(("(ms)", "(s)"))} | {resident}, done.stdout
    assert report["ledger"]["ended"]["answered"] > 0 < report["ledger"]["ended"]["refused"]
    assert report["memory"]["peak_used_bytes"] > 0


def test_requests_sent_while_models_load_are_told_from_those_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_h2load()
    monkeypatch.setattr(loading, "LAYERS", 6)  # models of 200 MB, which take half as long to open
    assert bench(plan(tmp_path, requests=100), ["loading"])

    report = json.loads((tmp_path / "bench.json").read_text())["loading"]
    assert all(figures["longest_ms"] >= figures["p50_ms"] > 0 for figures in report["medians"].values())
    assert report["ratios"]["while loading / alone"]["p99_ms"] > 0
    assert report["medians"]["while loading"]["peak_rss_mib"] > 500
    assert not list(tmp_path.glob("**/*.onnx"))


def test_an_objective_is_measured_beside_fixed_delays_at_every_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_h2load()
    monkeypatch.setattr(objectives, "LOADS", (0.5, 2.0))  # each point of each kind starts a generator's process
    monkeypatch.setattr(objectives, "DELAYS", (0.0, 0.5))
    assert bench(plan(tmp_path, requests=50), ["slo-lenet5"])

    report = json.loads((tmp_path / "bench.json").read_text())["slo-lenet5"]
    assert len(report["medians"]) == len(report["kinds"]) * 2 == 8
    assert report["yardstick"]["objective_seconds"] in (0.0002, 0.0005, 0.001, 0.002, 0.005)
    for figures in report["medians"].values():
        assert 0 <= figures["goodput_per_second"] <= figures["offered_per_second"]
        assert 0 <= figures["late_share"] <= 1 and 0 <= figures["refused_share"] <= 1


def test_the_log_of_h2load_says_when_each_request_was_sent_and_how_long_it_took(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1700000000250000\t200\t1500\n1700000000500000\t200\t250\n")

    assert read_log(log) == [(1_700_000_000.25, 1.5), (1_700_000_000.5, 0.25)]


def test_a_benchmark_that_does_not_exist_is_refused_by_name() -> None:
    done = loadtest("bench", "no_such_workload")

    assert done.returncode == 2
    assert "no_such_workload" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_comparison_shows_medians_spread_and_ratios() -> None:
    turns = {
        "ours": iter([{"cpu_us_per_request": 50.0, "batch": 4.0}, {"cpu_us_per_request": 60.0, "batch": 8.0}]),
        "other": iter([{"cpu_us_per_request": 400.0}, {"cpu_us_per_request": 480.0}]),
    }
    seen = take_turns({name: turn.__next__ for name, turn in turns.items()}, 2, (("ours", "other"),))

    assert seen.medians == {"ours": {"cpu_us_per_request": 55.0, "batch": 6.0}, "other": {"cpu_us_per_request": 440.0}}
    assert seen.ratios == {"ours / other": {"cpu_us_per_request": 0.125}}
    assert [line.split() for line in seen.table().splitlines()] == [
        ["ours", "other", "ours", "/", "other"],
        ["cpu", "us/request", "55.00", "(50.00–60.00)", "440.0", "(400.0–480.0)", "0.125"],
        ["batch", "6.000", "(4.000–8.000)"],
    ]


def test_a_slope_is_that_of_the_line_with_the_least_squares() -> None:
    assert slope([(0, 7), (10, 7), (20, 7)]) == 0
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(0, 0), (1, 2), (2, 1)]) == pytest.approx(0.5)


def metadata(*, inputs: dict[str, tuple[str, list[int]]]) -> pb.ModelMetadataResponse:
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name="m",
        inputs=[tensor(name=name, datatype=datatype, shape=shape) for name, (datatype, shape) in inputs.items()],
        outputs=[tensor(name="out", datatype="FP32", shape=[-1, 2])],
    )


def workload(*, batching: bool = True, shapes: dict[str, tuple[int, ...]], **inputs: tuple[str, list[int]]) -> Workload:
    return make_workload(metadata(inputs=inputs), batching=batching, shapes=shapes, count=2, seed=0)


@pytest.mark.parametrize(
    ("datatype", "size"),
    [("BOOL", 1), ("UINT8", 1), ("INT16", 2), ("INT64", 8), ("FP16", 2), ("BF16", 2), ("FP64", 8), ("BYTES", 12)],
)
def test_a_request_holds_as_many_bytes_as_its_shape_says(datatype: str, size: int) -> None:
    body, other = workload(shapes={"x": (3, 5)}, x=(datatype, [-1, 5])).bodies

    request = pb.ModelInferRequest.FromString(body)
    assert list(request.inputs[0].shape) == [3, 5]
    assert len(request.raw_input_contents[0]) == 15 * size
    assert body != other


def test_elements_of_bytes_are_text_and_numbers() -> None:
    request = pb.ModelInferRequest.FromString(workload(shapes={"x": (2,)}, x=("BYTES", [-1])).bodies[0])
    elements = deserialize_bytes_tensor(request.raw_input_contents[0])

    assert len(elements) == 2
    assert all(element.decode().isdecimal() for element in elements)


def test_variable_dimensions_are_1_and_rows_are_counted_along_the_batch_axis() -> None:
    one = workload(shapes={}, x=("FP32", [-1, 3, -1]))
    assert list(pb.ModelInferRequest.FromString(one.bodies[0]).inputs[0].shape) == [1, 3, 1]
    assert one.rows == 1
    assert workload(shapes={"x": (4, 3)}, x=("FP32", [-1, 3])).rows == 4
    assert workload(batching=False, shapes={"x": (4, 3)}, x=("FP32", [-1, 3])).rows == 1


def test_a_request_that_cannot_be_made_is_refused_by_name() -> None:
    with pytest.raises(LoadTestError, match=r"no input .*'y'"):
        workload(shapes={"y": (1,)}, x=("FP32", [-1]))
    with pytest.raises(LoadTestError, match="batch size"):
        workload(shapes={"x": (2,), "y": (3,)}, x=("FP32", [-1]), y=("FP32", [-1]))
    with pytest.raises(ValueError, match="not NAME"):
        parse_shape("3,4")
    assert parse_shape("a:b:3,4") == ("a:b", (3, 4))


def test_an_answer_that_cannot_be_right_is_found_out() -> None:
    asked = workload(shapes={"x": (2,)}, x=("FP32", [-1]))
    tensor = pb.ModelInferResponse.InferOutputTensor(name="out", datatype="FP32", shape=[2, 2])
    right = pb.ModelInferResponse(model_name="m", outputs=[tensor], raw_output_contents=[bytes(16)])
    asked.check(right.SerializeToString())

    for wrong in (
        pb.ModelInferResponse(model_name="other", outputs=[tensor], raw_output_contents=[bytes(16)]),
        pb.ModelInferResponse(model_name="m"),
        pb.ModelInferResponse(model_name="m", outputs=[tensor]),
        pb.ModelInferResponse(model_name="m", outputs=[tensor], raw_output_contents=[bytes(12)]),
    ):
        with pytest.raises(WrongAnswerError):
            asked.check(wrong.SerializeToString())
    with pytest.raises(WrongAnswerError, match="2 rows for 3"):
        replace(asked, rows=3).check(right.SerializeToString())


def test_percentiles_are_latencies_that_were_seen() -> None:
    seen = {1.0: 98, 7.0: 1, 90.0: 1}
    assert [percentile(seen, share) for share in (0.5, 0.98, 0.99, 1.0)] == [1.0, 1.0, 7.0, 90.0]
    assert percentile({}, 0.99) == float("inf")


def test_the_verdict_breaks_on_each_limit_alone() -> None:
    model = ModelOutcome("m", 100, 1, 2, Counts(inferences=198, executions=50, successes=99, failures=1), 198.0)
    good = Outcome(
        models=(model,),
        seconds=2.0,
        percentiles={"p50_ms": 1.0, "p99_ms": 3.0},
        recorded=100,
        rounded_p99_ms=3.0,
        busy=False,
        alone=True,
    )

    def broken(outcome: Outcome, p99_ms: float = 3.0, error_rate: float = 0.01) -> list[str]:
        promises = limit_checks(outcome.percentiles["p99_ms"], outcome.error_rate, Limits(p99_ms, error_rate))
        return [check.text for check in promises + count_checks(outcome) if not check.passed]

    def with_model(**changes: Any) -> Outcome:
        return replace(good, models=(model, replace(model, model="n", **changes)), recorded=200)

    assert broken(good) == []
    assert broken(good, p99_ms=2.9) == ["p99 3 ms, allowed 2.9 ms"]
    assert broken(good, error_rate=0.0) == ["error rate 1.00%, allowed 0.00%"]
    assert broken(replace(good, recorded=99)) == ["99 requests were recorded in microseconds, 100 by Locust"]
    assert broken(with_model(metric=200.0)) == ["nv_inference_count of n rose by 200, 198 were answered"]
    shared = with_model(counted=Counts(inferences=500, executions=50, successes=250, failures=0), metric=None)
    assert broken(shared) == ["ModelStatistics counted 500 inferences of n, 198 were answered"]
    assert broken(replace(shared, alone=False)) == []
    nothing = replace(good, models=(), recorded=0, percentiles={"p50_ms": float("inf"), "p99_ms": float("inf")})
    assert len(broken(nothing)) == 2
