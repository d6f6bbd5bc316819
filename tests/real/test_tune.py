"""`python -m loadtest tune` as its users run it: real servers, real h2load, real arrivals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import json_format, text_format

from loadtest.__main__ import main
from loadtest.errors import LoadTestError
from loadtest.tune.candidates import Candidate, Window
from loadtest.tune.hosts import RemoteServer
from proto import grpc_service_pb2 as pb
from proto.model_config_pb2 import ModelConfig
from tests.real.conftest import MODEL_REPOSITORY, ROOT

if TYPE_CHECKING:
    from tests.real.conftest import RunningServer

pytestmark = pytest.mark.timeout(300)

QUICK = ("--seconds", "0.2", "--rounds", "1", "--json")


def tune(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if not (shutil.which("h2load") or (ROOT / ".cache/debian/usr/bin/h2load").exists()):
        pytest.skip("h2load is missing; as root: apt-get install nghttp2-client")
    return subprocess.run(
        [sys.executable, "-m", "loadtest", "tune", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The object that the last line is."""
    return json.loads(done.stdout.splitlines()[-1])


def test_a_delay_that_only_costs_is_found_and_taken_out_of_the_file(tmp_path: Path) -> None:
    model = tmp_path / "repository" / "lenet5"
    shutil.copytree(MODEL_REPOSITORY / "lenet5", model)
    config = model / "config.pbtxt"
    slow = "# Why so long?\ndynamic_batching { max_queue_delay_microseconds: 50000 }"
    config.write_text(config.read_text().replace("dynamic_batching { }", slow))

    keep = [flag for axis in ("lanes", "max-batch-size", "padding") for flag in ("--keep", axis)]
    # One candidate of the climb, and the final: the first that is tried has no delay.
    budget = ("--in-flight", "4", "--max-measurements", "7", *keep)
    where = ("--model-repository", model.parent, "--out", tmp_path / "out")
    done = tune("lenet5", *where, *budget, *QUICK, "--write")

    assert done.returncode == 0, done.stdout
    found = report(done)
    assert (found["chosen"]["batching"], found["changed"]) == ("no delay", True)
    assert found["finals"][1]["rounds"][0]["cpu_us_per_request"] > 0
    assert found["finals"][1]["rounds"][0]["peak_rss_mib"] > 10
    written = text_format.Parse(config.read_text(), ModelConfig())
    assert written.dynamic_batching.max_queue_delay_microseconds == 0
    assert "# Why so long?" in config.read_text()
    assert slow in (model / "config.pbtxt.before-tuning").read_text()
    assert json.loads((tmp_path / "out" / "tune.json").read_text()) == found
    assert "Chosen: 1 × 1, batch 64, no delay" in (tmp_path / "out" / "tune.txt").read_text()
    assert not list((tmp_path / "out").glob("repository-*"))


def test_arrivals_at_a_running_server_are_measured_as_it_is(shared_server: RunningServer, tmp_path: Path) -> None:
    limits = ("--rate", "50", "--objective", "latency", "--p99-ms", "100000")
    done = tune("lenet5", "--url", shared_server.grpc_address, *limits, *QUICK, "--out", tmp_path)

    assert done.returncode == 0, done.stdout
    assert "cannot be tried there without --reload" in done.stdout
    (final,) = report(done)["finals"]
    assert final["candidate"]["text"] == report(done)["present"]["text"]
    assert final["rounds"][0]["p99_ms"] >= final["rounds"][0]["p50_ms"] > 0
    assert final["rounds"][0]["cpu_us_per_request"] is None


def test_limits_that_nothing_keeps_are_exit_code_1(shared_server: RunningServer, tmp_path: Path) -> None:
    done = tune("lenet5", "--url", shared_server.grpc_address, "--p99-ms", "0.001", *QUICK, "--out", tmp_path)

    assert done.returncode == 1, done.stdout
    assert "Nothing that was tried keeps the limits" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no_such_model",), "no model 'no_such_model'"),
        (("lenet5", "--url", "127.0.0.1:1", "--write"), "--write needs --model-repository"),
        (("lenet5", "--url", "127.0.0.1:1", "--objective", "cpu"), "--objective cpu needs a server of our own"),
        (("lenet5", "--reload"), "--reload is about the server at --url"),
        (("lenet5", "--in-flight", "2", "--rate", "5"), "not allowed with"),
        (("lenet5", "--url", "localhost"), "localhost is not HOST:PORT"),
    ],
)
def test_what_cannot_be_done_is_exit_code_2_and_a_sentence(
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["loadtest", "tune", *arguments, "--out", str(tmp_path)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    try:
        code = main()
    except SystemExit as ended:  # argparse's
        code = ended.code

    assert code == 2
    assert said in capsys.readouterr().err


INPUT = pb.ModelMetadataResponse.TensorMetadata(name="x", datatype="FP32", shape=[-1, 2])
METADATA = pb.ModelMetadataResponse(name="m", inputs=[INPUT], outputs=[INPUT])


class Loader:
    """A server that serves `m` with the configuration that it was loaded with last; `own` is its folder's."""

    def __init__(self, own: str, served: str) -> None:
        self.own, self.served = (text_format.Parse(text, ModelConfig(name="m")) for text in (own, served))
        self.refuses = ""
        self.server = grpc.server(ThreadPoolExecutor(1))
        methods = {
            "ModelConfig": (lambda _, __: pb.ModelConfigResponse(config=self.served), pb.ModelConfigRequest),
            "ModelMetadata": (lambda _, __: METADATA, pb.ModelMetadataRequest),
            "RepositoryModelLoad": (self._load, pb.RepositoryModelLoadRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                handle, request.FromString, lambda answer: answer.SerializeToString()
            )
            for name, (handle, request) in methods.items()
        }
        service = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)
        self.server.add_generic_rpc_handlers((service,))
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def _load(
        self, request: pb.RepositoryModelLoadRequest, context: grpc.ServicerContext
    ) -> pb.RepositoryModelLoadResponse:
        if self.refuses:
            context.abort(grpc.StatusCode.UNAVAILABLE, self.refuses)
        self.served = self.own
        if "config" in request.parameters:
            self.served = json_format.Parse(request.parameters["config"].string_param, ModelConfig())
        return pb.RepositoryModelLoadResponse()


OWN = "max_batch_size: 8 dynamic_batching { } instance_group { count: 1 kind: KIND_CPU }"
OTHER = "max_batch_size: 4 instance_group { count: 1 kind: KIND_CPU }"


@pytest.fixture
def loader(request: pytest.FixtureRequest) -> Iterator[Loader]:
    running = Loader(OWN, request.param)
    yield running
    running.server.stop(None).wait()


@pytest.mark.parametrize("loader", [OWN, OTHER], indirect=True)
def test_a_running_server_loads_candidates_and_serves_in_the_end_what_it_served_before(loader: Loader) -> None:
    before = loader.served
    with (
        RemoteServer(loader.address, "m", {}, can_change=True) as host,
        host.serve(Candidate(2, 1, 16, Window(300))),
    ):
        loaded = loader.served
    assert (loaded.name, loaded.max_batch_size, loaded.instance_group[0].count) == ("m", 16, 2)
    assert loaded.dynamic_batching.max_queue_delay_microseconds == 300
    assert loader.served == before


@pytest.mark.parametrize("loader", [OWN], indirect=True)
def test_a_running_server_that_does_not_load_says_so_before_anything_is_measured(loader: Loader) -> None:
    loader.refuses = "explicit model load / unload is not allowed"

    with pytest.raises(LoadTestError, match="not allowed"):
        RemoteServer(loader.address, "m", {}, can_change=True)
