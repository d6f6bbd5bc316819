"""TLS on all three ports: who is known by a certificate, which versions are refused, and certificates that change."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest

from proto import grpc_service_pb2 as pb
from server import healthcheck
from server.access.tokens import digest_of, shown
from tests import onnx_models
from tests.certificates import Authority
from tests.real.clients import SERVICE, WAIT_SECONDS
from tests.real.conftest import ENGINES, ROOT, RunningServer, StartServer, start
from tests.real.waiting import wait_until
from tests.repositories import add_model

POLICY = """
[[principals]]
name = "operator"
certificates = ["URI:spiffe://example.org/operator", "email:client@example.org"]
allow = [{ apis = ["metadata", "model-repository", "metrics"], models = ["*"] }]
"""
PORTS = ("grpc", "http", "metrics")


@dataclass
class Secured:
    """A server whose clients show certificates."""

    server: RunningServer
    authority: Authority

    def channel(self) -> grpc.Channel:
        return grpc.secure_channel(
            f"localhost:{self.server.ports['grpc']}", self.authority.trust(with_certificate=True)
        )

    def get(self, path: str, port: str = "http", body: bytes | None = None) -> str:
        url = f"https://localhost:{self.server.ports[port]}/{path}"
        with urlopen(url, body, context=self.authority.context(with_certificate=True), timeout=30) as answer:
            return str(answer.read().decode())

    def shaken(self, port: str, context: ssl.SSLContext) -> bytes:
        """The certificate that a handshake brings. Raises `ssl.SSLError`."""
        plain = socket.create_connection(("127.0.0.1", self.server.ports[port]), timeout=30)
        with plain, context.wrap_socket(plain, server_hostname="localhost") as secured:
            return secured.getpeercert(binary_form=True) or b""


@pytest.fixture(scope="module")
def secured(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    root = folder / "models"
    root.mkdir()
    add_model(root, "affine", onnx_models.affine())
    (folder / "policy.toml").write_text(POLICY)
    authority = Authority(folder)
    files = authority.mutual
    tls = [
        f"--{port}-{what}"
        for port in PORTS
        for what in (
            "use-ssl-mutual=true",
            f"server-cert={files.certificate}",
            f"server-key={files.key}",
            f"root-cert={files.root}",
        )
    ]
    server = start(
        folder, *ENGINES[engine], *tls, f"--auth-policy={folder / 'policy.toml'}",
        "--model-control-mode=explicit", "--load-model=*", model_repository=root,
    )  # fmt: skip
    yield Secured(server, authority)
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


def test_a_certificate_tells_who_calls(secured: Secured) -> None:
    with secured.channel() as channel:
        load = pb.RepositoryModelLoadRequest(model_name="affine").SerializeToString()
        channel.unary_unary(f"{SERVICE}/RepositoryModelLoad")(load, timeout=30)
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(f"{SERVICE}/ModelStatistics")(b"", timeout=30)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert json.loads(secured.get("v2/models/affine"))["name"] == "affine"
    secured.get("v2/repository/models/affine/load", body=b"{}")
    assert "nv_inference_count" in secured.get("metrics", "metrics")
    noted = [line for line in secured.server.log.read_text().splitlines() if "RepositoryModelLoad OK" in line]
    assert len(noted) == 2
    assert all("principal=operator" in line and "email:client@example.org" in line for line in noted)


@pytest.mark.parametrize("port", PORTS)
def test_old_versions_of_tls_are_refused(secured: Secured, port: str) -> None:
    context = secured.authority.context(with_certificate=True)
    context.set_alpn_protocols(["h2" if port == "grpc" else "http/1.1"])
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # or the client itself would not try
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert secured.shaken(port, context)
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)) as refused:
        secured.shaken(port, context)
    assert "EOF" in str(refused.value) or "ALERT" in str(refused.value) or refused.type is ConnectionResetError


@pytest.mark.parametrize("port", PORTS)
def test_a_certificate_that_was_renewed_is_shown_to_who_comes_next(secured: Secured, port: str) -> None:
    def shown() -> bytes:
        context = secured.authority.context(with_certificate=True)
        context.set_alpn_protocols(["h2" if port == "grpc" else "http/1.1"])
        return secured.shaken(port, context)

    before = shown()
    secured.authority.issue()
    wait_until(lambda: shown() != before, WAIT_SECONDS)


def test_a_containers_health_check_speaks_tls(secured: Secured) -> None:
    url = f"--url=https://localhost:{secured.server.ports['http']}/v2/health/ready"
    root = f"--ca-file={secured.authority.root}"
    certificate = [f"--cert-file={secured.authority.files.certificate}", f"--key-file={secured.authority.files.key}"]
    assert healthcheck.main([url, root, *certificate, "--timeout=30"]) == 0
    assert healthcheck.main([url, root, "--timeout=30"]) == 1
    assert healthcheck.main([url, *certificate, "--timeout=30"]) == 1


def test_the_pages_channel_carries_a_token_over_tls(start_server: StartServer, tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    add_model(root, "affine", onnx_models.affine())
    authority = Authority(tmp_path)
    page = (ROOT / "docs/security.md").read_text()
    token = "t" * 32
    allow = 'allow = [{ apis = ["metadata"], models = ["affine"] }]'
    policy = f'[[principals]]\nname = "a"\ntokens = ["{shown(digest_of(token))}"]\n{allow}\n'
    (tmp_path / "policy.toml").write_text(policy)
    files = (f"--grpc-server-cert={authority.files.certificate}", f"--grpc-server-key={authority.files.key}")
    server = start_server(
        "--grpc-use-ssl=true", *files, f"--auth-policy={tmp_path / 'policy.toml'}", model_repository=root
    )
    example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[1]
    (tmp_path / "example.py").write_text(example.replace("8001", str(server.ports["grpc"])))
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env={"TOKEN": token, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == "['1']\n", done.stderr
