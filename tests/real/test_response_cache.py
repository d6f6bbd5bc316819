"""The response cache in real servers: tritonclient on both gRPC engines, reloads, and a real Redis that goes away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as tritongrpc

from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.ensembles import add_ensemble, ensemble, step
from tests.real.clients import Client, metric, read_url, wait_for_running
from tests.real.conftest import RunningServer, StartServer, connect
from tests.real.redis_server import RedisServer
from tests.real.waiting import wait_until
from tests.repositories import add_model

CACHED = "max_batch_size: 8 response_cache { enable: true }"
LOCAL = "--cache-config=local,size=1048576"
WAIT_SECONDS = 30
SLOW_ROUNDS = 40_000
"""Of the slow model: some half a second."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Models 'm' (three times the input plus one), 'plain' (the same, not cached), 'texts', and 'slow'; ensembles with
    a cache: 'whole' of 'm', 'around' of that, and 'half' of 'plain'."""
    root = tmp_path / "models"
    add_model(root, "m", onnx_models.affine(), CACHED)
    for name, model in (("whole", "m"), ("around", "whole"), ("half", "plain")):
        add_ensemble(root, name, ensemble(step(model, {"x": "x"}, {"y": "y"}), more="response_cache { enable: true }"))
    add_model(root, "plain", onnx_models.affine(), "max_batch_size: 8")
    add_model(root, "texts", onnx_models.identity("BYTES"), CACHED)
    add_model(root, "slow", onnx_models.slow(), CACHED)
    return root


def number(value: int) -> dict[str, np.ndarray]:
    return {"x": np.array([[value]], np.int64)}


def cache_counts(client: Client, model: str = "m") -> tuple[int, int]:
    statistics = client.statistics(model).inference_stats
    return statistics.cache_hit.count, statistics.cache_miss.count


@pytest.fixture
def server(start_engine: StartServer, root: Path) -> RunningServer:
    return start_engine(LOCAL, "--access-log=true", "--log-format=json", model_repository=root)


@pytest.fixture
def cached(server: RunningServer) -> Iterator[Client]:
    with connect(server) as channel:
        yield Client(channel)


def test_hits_answer_as_the_model_does_and_all_is_counted(cached: Client, server: RunningServer) -> None:
    with tritongrpc.InferenceServerClient(server.grpc_address) as triton:
        answers = [triton.infer("m", [_input("x", np.array([[7]], np.int64))], request_id=str(n)) for n in range(5)]
        texts = np.array([[b"\xc3\xa4", b""]], dtype=object)
        echoes = [triton.infer("texts", [_input("x", texts)]).as_numpy("y").tolist() for _ in range(3)]
        statistics = triton.get_inference_statistics("m", as_json=True)["model_stats"][0]
    assert [answer.as_numpy("y").tolist() for answer in answers] == [[[22]]] * 5
    assert [answer.get_response().id for answer in answers] == ["0", "1", "2", "3", "4"]
    assert echoes == [texts.tolist()] * 3
    stats = statistics["inference_stats"]
    assert [stats[name]["count"] for name in ("success", "cache_hit", "cache_miss", "compute_infer")] == list("5411")
    assert (statistics["inference_count"], statistics["execution_count"]) == ("1", "1")
    assert int(stats["cache_hit"]["ns"]) > 0 and int(stats["cache_miss"]["ns"]) > 0

    def counted(name: str, **labels: str) -> float:
        return metric(server.metrics_url, name, **labels)

    assert counted("nv_cache_num_hits_per_model", model="m") == 4
    assert counted("nv_cache_num_misses_per_model", model="m") == 1
    assert counted("nv_cache_num_hits_per_model", model="texts") == 2
    assert counted("nv_inference_request_success", model="m") == 5
    assert counted("nv_inference_count", model="m") == 1
    assert counted("convoy_cache_entries") == 2
    assert 0 < counted("convoy_cache_used_bytes") < counted("convoy_cache_capacity_bytes") == 1 << 20
    assert 'nv_cache_num_hits_per_model{model="plain"' not in read_url(server.metrics_url)
    assert server.terminate() == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    noted = [line["cache"] for line in lines if line.get("model") == "m" and "cache" in line]
    assert noted == ["miss", "hit", "hit", "hit", "hit"]


def _input(name: str, array: np.ndarray) -> Any:
    tensor = tritongrpc.InferInput(name, array.shape, "BYTES" if array.dtype == object else "INT64")
    tensor.set_data_from_numpy(array)
    return tensor


def test_a_model_without_response_cache_is_not_cached(cached: Client) -> None:
    for _ in range(3):
        assert cached.infer("plain", number(1))["y"].tolist() == [[4]]
    assert cache_counts(cached, "plain") == (0, 0)
    assert cached.statistics("plain").execution_count == 3


def test_a_model_of_an_ensemble_keeps_its_answers(start_server: StartServer, root: Path) -> None:
    tensors = (
        'input { name: "a" data_type: TYPE_INT64 dims: [ 1 ] } output { name: "b" data_type: TYPE_INT64 dims: [ 1 ] }'
    )
    steps = [
        f'step {{ model_name: "m" model_version: -1 input_map {{ key: "x" value: "{read}" }} '
        f'output_map {{ key: "y" value: "{written}" }} }}'
        for read, written in (("a", "between"), ("between", "b"))
    ]
    config = f'platform: "ensemble" max_batch_size: 8 {tensors} ensemble_scheduling {{ {" ".join(steps)} }}'
    add_model(root, "twice", config=config, versions={1: None})
    server = start_server(LOCAL, model_repository=root)
    with connect(server) as channel:
        client = Client(channel)
        for _ in range(3):
            assert client.infer("twice", {"a": np.array([[2]], np.int64)})["b"].tolist() == [[22]]
        assert cache_counts(client) == (4, 2)
        assert client.statistics("twice").inference_stats.success.count == 3
    assert server.terminate() == 0
    assert "Traceback" not in server.log.read_text()


def test_an_ensemble_keeps_its_answers_until_a_model_is_loaded_anew(start_engine: StartServer, root: Path) -> None:
    server = start_engine(LOCAL, "--model-control-mode=explicit", "--load-model=around", model_repository=root)
    with connect(server) as channel:
        client = Client(channel)
        for factor in (3, 5):
            (root / "m" / "1" / "model.onnx").write_bytes(onnx_models.affine(factor=factor).SerializeToString())
            client.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="m"))
            before = cache_counts(client, "around")
            ran = client.statistics("whole").inference_stats.success.count
            answers = [client.infer("around", number(1))["y"].tolist() for _ in range(3)]
            assert answers == [[[factor + 1]]] * 3
            assert cache_counts(client, "around") == (before[0] + 2, before[1] + 1)
            assert client.statistics("whole").inference_stats.success.count == ran + 1
    assert server.terminate() == 0
    assert "Traceback" not in server.log.read_text()


def test_where_the_one_who_leads_is_cancelled_the_others_are_answered(cached: Client, server: RunningServer) -> None:
    inputs = {"x": np.ones((1, 1), np.float32), "iterations": np.array([[SLOW_ROUNDS]], np.int64)}
    leader = cached.start_infer("slow", inputs)
    wait_for_running(server.metrics_url, "slow", 1)
    with connect(server) as other:
        followers = [Client(other).start_infer("slow", inputs) for _ in range(3)]
        wait_until(
            lambda: metric(server.metrics_url, "nv_inference_in_flight_request_count", model="slow") == 4, WAIT_SECONDS
        )
        leader.cancel()
        for follower in followers:
            answer = pb.ModelInferResponse.FromString(follower.result())
            assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [1.0]
    assert cache_counts(cached, "slow") == (2, 1)
    wait_until(lambda: cached.statistics("slow").inference_stats.fail.count == 1, WAIT_SECONDS)


def test_a_reloaded_version_answers_nothing_of_the_old_one(start_engine: StartServer, root: Path) -> None:
    server = start_engine(LOCAL, "--model-control-mode=explicit", "--load-model=m", model_repository=root)
    with connect(server) as channel:
        client = Client(channel)
        assert [client.infer("m", number(1))["y"].tolist() for _ in range(2)] == [[[4]]] * 2
        (root / "m" / "1" / "model.onnx").write_bytes(onnx_models.affine(factor=5).SerializeToString())
        client.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="m"))
        assert [client.infer("m", number(1))["y"].tolist() for _ in range(2)] == [[[6]]] * 2
        assert cache_counts(client) == (2, 2)


def test_without_a_cache_of_the_server_the_model_serves_and_a_warning_says_so(
    start_server: StartServer, root: Path
) -> None:
    server = start_server(model_repository=root)
    with connect(server) as channel:
        client = Client(channel)
        assert [client.infer("m", number(1))["y"].tolist() for _ in range(2)] == [[[4]]] * 2
        assert cache_counts(client) == (0, 0)
    assert "model 'm' has response_cache, and the server has no cache" in server.log.read_text()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.kill()


def redis_flag(redis: RedisServer, *more: str) -> str:
    return ",".join(("--cache-config=redis,host=127.0.0.1", f"port={redis.port}", *more))


def wait_for_redis(server: RunningServer, connected: bool = True) -> None:
    wait_until(lambda: metric(server.metrics_url, "convoy_cache_connected") == connected, WAIT_SECONDS)


def test_servers_share_answers_on_redis(start_server: StartServer, root: Path, redis: RedisServer) -> None:
    flag = redis_flag(redis, "wait_timeout=10000")
    first, second = (start_server(flag, model_repository=root) for _ in range(2))
    for server in (first, second):
        wait_for_redis(server)
    with connect(first) as channel, connect(second) as other:
        assert Client(channel).infer("m", number(2))["y"].tolist() == [[7]]
        texts = {"x": np.array([[b"a", b""]], dtype=object)}
        Client(channel).infer("texts", texts)
        assert Client(other).infer("texts", {"x": np.array([[b"b", b""]], dtype=object)})["y"].tolist() == [[b"b", b""]]
        wait_until(lambda: _hit(Client(other), "texts", texts, [[b"a", b""]]), WAIT_SECONDS)
        wait_until(lambda: _hit(Client(other), "m", number(2), [[7]]), WAIT_SECONDS)
        assert Client(other).statistics("m").inference_count <= 1
        assert Client(channel).infer("whole", number(5))["y"].tolist() == [[16]]
        wait_until(lambda: _hit(Client(other), "whole", number(5), [[16]]), WAIT_SECONDS)
        # Nothing tells whether 'plain' there is 'plain' here: the answers of an ensemble with it are not shared.
        wait_until(lambda: _hit(Client(channel), "half", number(5), [[16]]), WAIT_SECONDS)
        assert not _hit(Client(other), "half", number(5), [[16]])


def _hit(client: Client, model: str, inputs: dict[str, np.ndarray], expected: list[Any]) -> bool:
    """Whether a request was answered by the cache; it was answered rightly in any case."""
    before, _ = cache_counts(client, model)
    assert client.infer(model, inputs)["y"].tolist() == expected
    after, _ = cache_counts(client, model)
    return after > before


def test_another_model_file_shares_no_answers_on_redis(
    start_server: StartServer, root: Path, redis: RedisServer, tmp_path: Path
) -> None:
    first = start_server(redis_flag(redis, "wait_timeout=10000"), model_repository=root)
    wait_for_redis(first)
    with connect(first) as channel:
        wait_until(lambda: _hit(Client(channel), "m", number(2), [[7]]), WAIT_SECONDS)
        wait_until(lambda: _hit(Client(channel), "whole", number(2), [[7]]), WAIT_SECONDS)
    add_model(tmp_path / "others", "m", onnx_models.affine(factor=5), CACHED)
    shutil.copytree(root / "whole", tmp_path / "others" / "whole")
    other = start_server(redis_flag(redis, "wait_timeout=10000"), model_repository=tmp_path / "others")
    wait_for_redis(other)
    with connect(other) as channel:
        assert Client(channel).infer("m", number(2))["y"].tolist() == [[11]]
        assert cache_counts(Client(channel)) == (0, 1)
        assert not _hit(Client(channel), "whole", number(2), [[11]])


@pytest.mark.parametrize("ending", ["killed", "silent"])
def test_redis_may_go_under_load_and_come_back(
    start_engine: StartServer, root: Path, redis: RedisServer, ending: str
) -> None:
    """Every request is answered, and answered rightly, whether Redis is there, gone, or does not say a word."""
    server = start_engine(redis_flag(redis), model_repository=root)
    wait_for_redis(server)
    stop = threading.Event()
    answered, wrong = [0] * 4, []

    def load(lane: int) -> None:
        with connect(server) as channel:
            client = Client(channel)
            value = 0
            while not stop.is_set():
                value = (value + 1) % 7
                got = client.infer("m", number(value))["y"].tolist()
                if got != [[3 * value + 1]]:
                    wrong.append((value, got))
                answered[lane] += 1

    def more(count: int) -> None:
        goal = sum(answered) + count
        wait_until(lambda: sum(answered) >= goal, WAIT_SECONDS)

    threads = [threading.Thread(target=load, args=(lane,)) for lane in range(4)]
    for thread in threads:
        thread.start()
    try:
        more(50)
        if ending == "killed":
            redis.kill()
        else:
            os.kill(redis.pid, signal.SIGSTOP)
        wait_for_redis(server, connected=False)
        more(50)
        if ending == "killed":
            redis.start()
        else:
            os.kill(redis.pid, signal.SIGCONT)
        wait_for_redis(server)
        more(50)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    with connect(server) as channel:
        statistics = Client(channel).statistics("m").inference_stats
    assert statistics.fail.count == 0
    assert statistics.cache_hit.count + statistics.cache_miss.count == statistics.success.count == sum(answered)
    assert server.terminate() == 0
    log = server.log.read_text()
    assert log.count("requests are served without a cache until it is there") >= 1
    assert "Traceback" not in log


def test_a_redis_that_is_not_there_holds_up_no_start_and_no_request(
    start_server: StartServer, root: Path, redis: RedisServer
) -> None:
    redis.kill()
    server = start_server(redis_flag(redis), model_repository=root)
    with connect(server) as channel:
        assert Client(channel).infer("m", number(1))["y"].tolist() == [[4]]
    assert metric(server.metrics_url, "convoy_cache_connected") == 0
    assert server.terminate() == 0
    assert server.log.read_text().count("requests are served without a cache") == 1


def test_a_password_is_taken_from_the_environment_and_never_logged(
    start_server: StartServer, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = RedisServer(tmp_path, "--requirepass", "open-sesame")
    try:
        monkeypatch.setenv("TRITONCACHE_REDIS_PASSWORD", "open-sesame")
        server = start_server(redis_flag(redis), "--log-verbose=2", model_repository=root)
        wait_for_redis(server)
        assert server.terminate() == 0
        assert "open-sesame" not in server.log.read_text()
        monkeypatch.setenv("TRITONCACHE_REDIS_PASSWORD", "wrong-word")
        server = start_server(redis_flag(redis), model_repository=root)
        wait_until(lambda: "requests are served without a cache" in server.log.read_text(), WAIT_SECONDS)
        assert "wrong-word" not in server.log.read_text()
    finally:
        redis.kill()
