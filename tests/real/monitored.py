"""A server under mixed load, watched by a real Prometheus that scrapes every second and has the committed rules."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import yaml

from deploy.grafana.prometheus import Prometheus
from proto import grpc_service_pb2 as pb
from tests import onnx_models
from tests.programs import find_program
from tests.real.clients import CALL_SECONDS, Client, http_status
from tests.real.conftest import ROOT, RunningServer, connect
from tests.real.waiting import wait_until
from tests.repositories import add_model

RULES = ROOT / "deploy/prometheus"
JOB = "convoy"
START_SECONDS = 30
STOP_SECONDS = 30
PAUSE_SECONDS = 0.25
"""Between two turns of one caller: none of them keeps a processor busy."""
LISTENING = re.compile(r'msg="Listening on" address=(\S+)')


PROGRAM = find_program("prometheus")
MISSING = "prometheus is missing; make system-packages gets it"
"""The reason to skip without `PROGRAM`."""


@contextmanager
def prometheus(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes these addresses as the job that the committed configuration finds by DNS."""
    config: dict[str, Any] = yaml.safe_load((RULES / "prometheus.yml").read_text())
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES / name) for name in config["rule_files"]]
    (scrape,) = (scrape for scrape in config["scrape_configs"] if scrape["job_name"] == JOB)
    del scrape["dns_sd_configs"]
    scrape["static_configs"] = [{"targets": list(targets)}]
    config["scrape_configs"] = [scrape]
    (folder / "prometheus.yml").write_text(json.dumps(config))
    log = folder / "prometheus.log"
    assert PROGRAM is not None, MISSING
    command = [
        PROGRAM,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    try:
        wait_until(lambda: bool(LISTENING.search(log.read_text())) or process.poll() is not None, START_SECONDS)
        assert process.poll() is None, f"Prometheus did not start:\n{log.read_text()}"
        match = LISTENING.search(log.read_text())
        assert match is not None
        url = f"http://{match[1]}"
        wait_until(lambda: http_status(f"{url}/-/ready") == HTTPStatus.OK, START_SECONDS)
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def write_repository(root: Path) -> Path:
    """Models for every kind of outcome, and return its root."""
    objective = 'parameters { key: "slo_ms" value { string_value: "2000" } }'
    instances = "instance_group { count: 2 kind: KIND_CPU }"
    add_model(root, "digits", onnx_models.affine(), f"max_batch_size: 8 dynamic_batching {{ }} {objective} {instances}")
    add_model(root, "slow", onnx_models.slow(), f"max_batch_size: 4 {objective}")
    queue = "max_batch_size: 1 dynamic_batching { default_queue_policy { max_queue_size: 1 } }"
    add_model(root, "narrow", onnx_models.slow(), queue)
    add_model(root, "hasty", onnx_models.slow(), "max_batch_size: 1 dynamic_batching { }")
    add_model(root, "lookup", onnx_models.lookup(), "max_batch_size: 8 dynamic_batching { }")
    add_model(root, "broken", b"this is no model")
    return root


Act = Callable[[Client], object]


def ones(rows: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.ones((rows, 1), np.int64)}


def slow_rows(iterations: int) -> dict[str, np.ndarray]:
    return {"x": np.ones((1, 1), np.float32), "iterations": np.full((1, 1), iterations, np.int64)}


def together(client: Client, model: str, inputs: Mapping[str, np.ndarray], count: int, **fields: Any) -> None:
    """So many requests at once, whatever becomes of them."""
    for call in [client.start_infer(model, inputs, **fields) for _ in range(count)]:
        call.exception()


def leave(client: Client) -> None:
    """A caller who goes before the answer comes."""
    call = client.start_infer("slow", slow_rows(2_000))
    call.cancel()
    with suppress(grpc.FutureCancelledError):
        call.exception(CALL_SECONDS)


A_MILLISECOND = {"timeout": pb.InferParameter(int64_param=1000)}
"""How long a request may wait."""

ACTS: tuple[Act, ...] = (
    lambda client: together(client, "digits", ones(), 12),
    lambda client: together(client, "digits", ones(3), 4),
    lambda client: together(client, "slow", slow_rows(300), 6),
    lambda client: together(client, "narrow", slow_rows(300), 6),  # most find the queue full
    lambda client: together(client, "lookup", ones(), 3),
    lambda client: together(client, "lookup", {"x": np.full((1, 1), 99, np.int64)}, 1),  # not in the table
    lambda client: together(client, "digits", {"x": np.ones((1, 1), np.float32)}, 1),
    lambda client: together(client, "digits", {"x": np.ones((1, 2), np.int64)}, 1),
    lambda client: together(client, "digits", ones(9), 1),  # more rows than a batch holds
    lambda client: together(client, "nobody", ones(), 1),
    lambda client: together(client, "slow", slow_rows(2_000), 3, timeout=0.005),
    lambda client: together(client, "hasty", slow_rows(2_000), 3, parameters=A_MILLISECOND),  # one runs, two wait
    leave,
)
"""What callers do, again and again, side by side."""


@contextmanager
def traffic(server: RunningServer, acts: Sequence[Act] = ACTS) -> Iterator[None]:
    """Each of the acts, and a call over HTTP, repeated on a thread and connection of its own, until the block ends."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def repeat(act: Act) -> None:
        try:
            with connect(server) as channel:
                client = Client(channel)
                while not stop.wait(PAUSE_SECONDS):
                    act(client)
        except BaseException as error:
            failures.append(error)
            raise

    every: list[Act] = [*acts, lambda _: http_status(f"{server.http_url}/v2/models/digits")]
    threads = [threading.Thread(target=repeat, args=(act,), name=f"traffic-{i}") for i, act in enumerate(every)]
    with ExitStack() as stack:
        stack.callback(lambda: [thread.join(STOP_SECONDS) for thread in threads])
        stack.callback(stop.set)
        for thread in threads:
            thread.start()
        yield
    assert not failures, failures
