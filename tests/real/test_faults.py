"""Faults from outside, injected for real: killed processes, broken files, and a machine that is short of everything."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import grpc
import numpy as np

from proto import grpc_service_pb2 as pb
from server.backends.base import SessionOptions
from server.backends.onnx import OnnxBackend
from tests import onnx_models
from tests.real.clients import (
    SERVICE,
    Client,
    answer_of,
    arrays,
    http_status,
    infer_request,
    metric,
    wait_for_running,
)
from tests.real.conftest import RunningServer, StartServer, connect, start
from tests.real.test_drain import SLOW_ROUNDS, rows, slow
from tests.real.waiting import wait_until
from tests.repositories import add_model

WAIT_SECONDS = 60

RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
"""What a careful client of gRPC is configured with."""


def wait(condition: Callable[[], bool]) -> None:
    wait_until(condition, WAIT_SECONDS)


def lasting_port() -> int:
    """A free port that the system gives nobody meanwhile: not even a client that connects to it, as its own."""
    first_given_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in range(first_given_out - 1, 1024, -7):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


class Asking(threading.Thread):
    """A client that retries, and asks for one number after another until it is told to stop."""

    def __init__(self, address: str, first: int) -> None:
        super().__init__()
        self.answered = 0
        self.wrong: list[int] = []
        self.failures: set[grpc.StatusCode] = set()
        self._address = address
        self._next = first
        self.stopped = threading.Event()

    def run(self) -> None:
        options = [
            ("grpc.service_config", RETRIES),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_reconnect_backoff_ms", 100),
        ]
        with grpc.insecure_channel(self._address, options=options) as channel:
            infer = channel.unary_unary(f"{SERVICE}/ModelInfer")
            while not self.stopped.is_set():
                self._next += 1
                try:
                    answer = infer(infer_request("affine", rows(self._next)).SerializeToString(), timeout=WAIT_SECONDS)
                except grpc.RpcError as error:
                    self.failures.add(error.code())
                    continue
                if arrays(pb.ModelInferResponse.FromString(answer))["y"].item() != 3 * self._next + 1:
                    self.wrong.append(self._next)
                self.answered += 1


def test_a_server_that_is_killed_and_started_again_gives_no_wrong_answer(tmp_path: Path) -> None:
    add_model(tmp_path / "models", "affine", onnx_models.affine(), "max_batch_size: 32 dynamic_batching { }")
    port = lasting_port()

    def start_again() -> RunningServer:
        return start(tmp_path, f"--grpc-port={port}", model_repository=tmp_path / "models")

    server = start_again()
    clients = [Asking(f"127.0.0.1:{port}", first=1_000_000 * lane) for lane in range(4)]
    try:
        for client in clients:
            client.start()
        for _ in range(2):
            goals = [client.answered + 50 for client in clients]
            wait(lambda goals=goals: all(c.answered >= goal for c, goal in zip(clients, goals, strict=True)))
            server.process.kill()
            server.process.wait()
            server = start_again()
        goals = [client.answered + 50 for client in clients]
        wait(lambda: all(c.answered >= goal for c, goal in zip(clients, goals, strict=True)))
    finally:
        for client in clients:
            client.stopped.set()
        for client in clients:
            client.join()
        status = server.terminate()
    assert status == 0
    assert [client.wrong for client in clients] == [[]] * 4
    assert set().union(*(client.failures for client in clients)) <= {grpc.StatusCode.UNAVAILABLE}


def index(client: Client) -> dict[str, tuple[str, str]]:
    """State and reason of every model, of one version each."""
    models = client.call("RepositoryIndex", pb.RepositoryIndexRequest()).models
    return {model.name: (model.state, model.reason) for model in models}


def replaced_by_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def replaced_by_a_link_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


FILE_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncated, "is no ONNX model"),
    "a folder": (replaced_by_a_folder, "is no file, but a folder or a device"),
    "deleted": (Path.unlink, "the version folder is empty"),
    "a link to itself": (replaced_by_a_link_to_itself, "cannot be resolved"),
}


def test_whatever_happens_to_a_file_its_model_serves_on_and_follows_once_it_is_well(
    start_server: StartServer, tmp_path: Path
) -> None:
    files = {
        fault: add_model(tmp_path, fault.replace(" ", "_"), onnx_models.affine()) / "1" / "model.onnx"
        for fault in FILE_FAULTS
    }
    server = start_server("--model-control-mode=poll", "--repository-poll-secs=0.1", model_repository=tmp_path)
    with connect(server) as channel:
        client = Client(channel)
        for fault, (inflict, _) in FILE_FAULTS.items():
            inflict(files[fault])
        for fault, (_, reason) in FILE_FAULTS.items():
            name = fault.replace(" ", "_")
            wait(lambda name=name, reason=reason: reason in index(client)[name][1])
            assert index(client)[name][0] == "READY"
            assert client.infer(name, rows(7))["y"].item() == 22
        assert http_status(f"{server.http_url}/v2/health/ready") == 200

        for file in files.values():
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
            file.write_bytes(onnx_models.affine(offset=2).SerializeToString())
        wait(lambda: all(state == ("READY", "") for state in index(client).values()))
        assert {client.infer(name, rows(7))["y"].item() for name in index(client)} == {23}
    log = server.log.read_text()
    assert log.count("what was loaded before serves on") >= len(FILE_FAULTS)
    assert "Traceback" not in log


@contextmanager
def few_bytes_a_file(most: int) -> Iterator[None]:
    """Whatever this process writes to a file beyond so many bytes fails, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_under_the_cache_of_optimised_graphs_costs_no_model_and_leaves_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_models.mlp(64).SerializeToString())
    options = SessionOptions(intra_op_threads=1, cache_optimized_model=True)
    inputs = {"x": np.ones((1, 64), np.float32)}
    want = OnnxBackend().load(path, SessionOptions(intra_op_threads=1)).run(inputs, ["y"])[0]
    cache = tmp_path / "cache"
    OnnxBackend(tmp_path / "whole").load(path, options)
    weights = max(file.stat().st_size for file in (tmp_path / "whole").rglob("*") if file.is_file())
    for most in (0, 1, weights // 2, weights - 1):
        with few_bytes_a_file(most):
            session = OnnxBackend(cache).load(path, options)
        assert (session.run(inputs, ["y"])[0] == want).all()
        assert list(cache.rglob("*")) == []

    assert (OnnxBackend(cache).load(path, options).run(inputs, ["y"])[0] == want).all()
    assert len([file for file in cache.rglob("*") if file.is_file()]) == 2


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_seconds_within(pid: int, seconds: float) -> float:
    before = cpu_seconds(pid)
    threading.Event().wait(seconds)
    return cpu_seconds(pid) - before


def descriptors(server: RunningServer) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def test_without_descriptors_those_connected_are_served_and_others_once_there_are_some(
    start_engine: StartServer, tmp_path: Path
) -> None:
    add_model(tmp_path, "affine", onnx_models.affine())
    server = start_engine("--model-control-mode=poll", "--repository-poll-secs=0.1", model_repository=tmp_path)
    pid = server.process.pid
    with connect(server) as channel, ExitStack() as crowd:
        client = Client(channel)
        assert client.infer("affine", rows(7))["y"].item() == 22
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(server) + 3, before[1]))
        for _ in range(6):
            for listener in ("grpc", "http", "metrics"):
                crowd.enter_context(closing(socket.create_connection(("127.0.0.1", server.ports[listener]))))
        assert min(cpu_seconds_within(pid, 0.3) for _ in range(5)) < 0.2  # nobody tries to accept in a circle
        add_model(tmp_path, "late", onnx_models.affine())
        wait(lambda: "Too many open files" in server.log.read_text())
        assert [client.infer("affine", rows(n))["y"].item() for n in range(20)] == [3 * n + 1 for n in range(20)]

        crowd.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        wait(lambda: index(client).get("late") == ("READY", ""))
        with connect(server) as newcomer:
            assert Client(newcomer).infer("late", rows(7))["y"].item() == 22
        assert http_status(f"{server.http_url}/v2/health/ready") == 200
        assert metric(server.metrics_url, "nv_inference_count", model="late") == 1
    assert server.terminate() == 0


def thread_count(server: RunningServer) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/task"))


def test_a_model_for_which_there_are_no_threads_is_not_loaded_and_the_others_serve(
    start_server: StartServer, tmp_path: Path
) -> None:
    add_model(tmp_path, "affine", onnx_models.affine())
    add_model(tmp_path, "many_instances", onnx_models.affine(), "instance_group { count: 60 }")
    server = start_server("--model-control-mode=explicit", "--load-model=affine", model_repository=tmp_path)
    pid = server.process.pid
    with connect(server) as channel:
        client = Client(channel)
        assert client.infer("affine", rows(7))["y"].item() == 22
        before, count = resource.prlimit(pid, resource.RLIMIT_AS), thread_count(server)
        # Every thread has a stack: without addresses for those there are no threads. Root has no limit of threads.
        taken = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (taken + (100 << 20), before[1]))
        load = pb.RepositoryModelLoadRequest(model_name="many_instances")
        assert (
            "the machine is short of something: can't start new thread"
            in client.refusal("RepositoryModelLoad", load).message
        )
        assert client.infer("affine", rows(7))["y"].item() == 22
        wait(lambda: thread_count(server) <= count)

        resource.prlimit(pid, resource.RLIMIT_AS, before)
        client.call("RepositoryModelLoad", load)
        assert client.infer("many_instances", rows(7))["y"].item() == 22
    assert server.terminate() == 0


def test_scrapers_that_read_slowly_or_not_at_all_hold_up_nobody(start_server: StartServer, tmp_path: Path) -> None:
    for number in range(20):
        add_model(tmp_path, f"affine{number}", onnx_models.affine())
    server = start_server(model_repository=tmp_path)
    with connect(server) as channel, ExitStack() as crowd:
        client = Client(channel)
        for number in range(50):
            scraper = crowd.enter_context(closing(socket.socket()))
            scraper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            scraper.connect(("127.0.0.1", server.ports["metrics"]))
            if number % 2:
                scraper.sendall(b"GET /metrics HTTP/1.1\r\nHost: convoy\r\n\r\n")
                assert scraper.recv(1) == b"H"
        assert client.infer("affine0", rows(7))["y"].item() == 22
        assert metric(server.metrics_url, "nv_inference_count", model="affine0") == 1
    assert server.terminate() == 0


def test_signals_that_come_while_the_server_stops_change_nothing(start_server: StartServer, tmp_path: Path) -> None:
    add_model(tmp_path, "slow", onnx_models.slow(), "max_batch_size: 8 dynamic_batching { }")
    server = start_server(model_repository=tmp_path)
    with connect(server) as channel:
        busy = Client(channel).start_infer("slow", slow(1, SLOW_ROUNDS))
        wait_for_running(server.metrics_url, "slow", 1)
        server.process.send_signal(signal.SIGTERM)
        wait(lambda: "stopping: answering what is in progress" in server.log.read_text())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            server.process.send_signal(number)

        assert answer_of(busy)["y"].item() == 1
    assert server.process.wait(WAIT_SECONDS) == 0
    assert "Traceback" not in server.log.read_text()
