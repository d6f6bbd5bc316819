"""Who may ask what, of a server with the policy of `docs/security.md`: tokens, JWTs, limits, the audit log, secrets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import grpc
import jwt
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from jwt.algorithms import ECAlgorithm

from proto import grpc_service_pb2 as pb
from server.access.tokens import digest_of, shown
from server.frontends.statuses import CHALLENGE, CHALLENGE_WRONG
from server.part_options import CLOSED
from tests import onnx_models
from tests.real.clients import SERVICE, WAIT_SECONDS, infer_request
from tests.real.conftest import ENGINES, ROOT, RunningServer, StartServer, connect, start
from tests.real.waiting import wait_until
from tests.repositories import add_model

PAGE = (ROOT / "docs/security.md").read_text()
POLICY, ANONYMOUS, *_ = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
CHECKOUT = "cvy_example-checkout-0123456789abcdef0123456"
PROMETHEUS = "cvy_example-prometheus-0123456789abcdef01234"
WRONG = "cvy_example-nobodys-0123456789abcdef01234567"
SECRET_KEY = "s3cret-of-a-restricted-api"
KEY = generate_private_key(SECP256R1())
SLOW, READER = WRONG.replace("nobodys", "slow"), WRONG.replace("nobodys", "reader")
MORE = f"""
[[principals]]
name = "slow"
tokens = ["{shown(digest_of(SLOW))}"]
allow = [{{ apis = ["inference"], models = ["*"] }}]
limits = {{ requests_per_second = 1e-3, requests_burst = 2 }}

[[principals]]
name = "reader"
tokens = ["{shown(digest_of(READER))}"]
allow = [{{ apis = ["model-repository:read", "statistics"], models = ["fraud-*"] }}]
"""
X = np.array([[1], [2]], np.int64)


def token(**claims: Any) -> str:
    """A JWT of the issuer of the page."""
    said = {"iss": "https://issuer.example.org", "aud": "convoy", "sub": "ci", "groups": ["staff", "ml-operators"]}
    return jwt.encode(said | {"exp": time.time() + 3600} | claims, KEY, "ES256", {"kid": "one"})


OPERATOR = token()


@dataclass
class Secured:
    """A server behind the page's policy."""

    server: RunningServer
    audit: Path

    def ask(
        self, method: str, message: bytes, credential: str = "", **metadata: str
    ) -> tuple[str, str, dict[str, Any]]:
        """How a gRPC call ends: status, message, trailing metadata."""
        pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        if credential:
            pairs.append(("authorization", f"Bearer {credential}"))
        with connect(self.server) as channel:
            path = method if method.startswith("/") else f"{SERVICE}/{method}"
            call = channel.unary_unary(path).future(message, timeout=30, metadata=pairs)
            failed = call.exception() is not None
            return call.code().name, call.details() if failed else "", dict(call.trailing_metadata())

    def get(
        self, path: str, credential: str = "", body: bytes | None = None, *, port: str = "http", **headers: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        """How a request over HTTP ends: status, headers, body."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if credential:
            given["Authorization"] = f"Bearer {credential}"
        url = f"http://127.0.0.1:{self.server.ports[port]}/{path}"
        try:
            with urlopen(Request(url, body, given), timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def audited(self, count: int) -> list[dict[str, Any]]:
        """The last lines of the audit log, once there are so many."""
        wait_until(lambda: len(self.audit.read_text().splitlines()) >= count, WAIT_SECONDS)
        return [json.loads(line) for line in self.audit.read_text().splitlines()[-count:]]


@pytest.fixture(scope="module")
def secured(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    root = folder / "models"
    root.mkdir()
    for name in ("affine", "fraud-1", "hidden"):
        add_model(root, name, onnx_models.affine())
    (folder / "policy.toml").write_text(POLICY + MORE)
    key = ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True) | {"kid": "one", "use": "sig"}
    (folder / "jwks.json").write_text(json.dumps({"keys": [key]}))
    server = start(
        folder, *ENGINES[engine], f"--auth-policy={folder / 'policy.toml'}", f"--audit-log={folder / 'audit.jsonl'}",
        "--model-control-mode=explicit", "--load-model=*", "--http-metrics=true",
        "--grpc-restricted-protocol=logging:key=" + SECRET_KEY, "--http-restricted-api=logging:key=" + SECRET_KEY,
        "--grpc-header-forward-pattern=.*", "--http-header-forward-pattern=.*",
        "--access-log=true", "--log-format=json", "--log-verbose=2",
        f"--trace-config=triton,file={folder / 'traces.json'}", "--trace-config=level=TIMESTAMPS",
        "--trace-config=rate=1",
        model_repository=root,
    )  # fmt: skip
    yield Secured(server, folder / "audit.jsonl")
    assert server.terminate() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()
    for file in (server.log, folder / "audit.jsonl", *folder.glob("traces*")):
        written = file.read_text()
        assert written, f"{file} was to be looked at"
        if file.suffix != ".jsonl":
            assert "shown-by-its-pattern" in written, f"{file.name} has no headers"
        for secret in (CHECKOUT, PROMETHEUS, WRONG, OPERATOR, OPERATOR.split(".")[2], SECRET_KEY, "dXNlcjpwYXNz"):
            assert secret not in written, f"{file.name} has a secret"


INFER = infer_request("affine", {"x": X}).SerializeToString()


def named(method: str, name: str) -> bytes:
    return bytes(getattr(pb, f"{method}Request")(name=name).SerializeToString())


def test_a_token_opens_what_its_grants_cover_and_nothing_else(secured: Secured) -> None:
    assert secured.ask("ModelInfer", INFER, CHECKOUT)[0] == "OK"
    assert secured.ask("ModelMetadata", named("ModelMetadata", "fraud-1"), CHECKOUT)[0] == "OK"
    status, message, trailing = secured.ask("ModelConfig", named("ModelConfig", "affine"), CHECKOUT)
    assert (status, message) == ("PERMISSION_DENIED", "'checkout' may not use 'model-config'")
    assert trailing["convoy-reason"] == "forbidden"
    body = json.dumps({"inputs": [{"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [1]}]}).encode()
    assert secured.get("v2/models/affine/infer", CHECKOUT, body)[0] == 200
    assert secured.get("v2/models/affine/generate", CHECKOUT, b'{"x": 1}')[0] == 200
    assert secured.get("v2/models/affine/config", CHECKOUT)[0] == 403


@pytest.mark.parametrize("credential", ["", WRONG, token(exp=1), token(aud="others"), "a.b.c"])
def test_without_a_valid_credential_nobody_gets_in(secured: Secured, credential: str) -> None:
    challenge = CHALLENGE_WRONG if credential else CHALLENGE
    for method, message in (("ModelInfer", INFER), ("ServerMetadata", b""), ("RepositoryIndex", b"")):
        status, _, trailing = secured.ask(method, message, credential)
        assert (status, trailing["www-authenticate"]) == ("UNAUTHENTICATED", challenge)
    for path, body in (
        ("v2", None),
        ("v2/models/affine/infer", b"no JSON"),
        ("v2/repository/index", b""),
        ("metrics", None),
    ):
        status, headers, _ = secured.get(path, credential, body)
        assert (status, headers["WWW-Authenticate"]) == (401, challenge)
    assert secured.get("metrics", credential, port="metrics")[0] == 401


def test_whether_the_server_is_ready_may_be_asked_by_all_but_not_whether_a_model_is(secured: Secured) -> None:
    assert [
        secured.ask(method, b"")[0] for method in ("ServerLive", "ServerReady", "/grpc.health.v1.Health/Check")
    ] == ["OK"] * 3
    assert [secured.get(f"v2/health/{word}")[0] for word in ("live", "ready")] == [200, 200]
    assert secured.ask("ModelReady", named("ModelReady", "affine"))[0] == "UNAUTHENTICATED"
    assert secured.get("v2/models/affine/ready")[0] == 401


def test_a_model_that_may_not_be_seen_looks_like_one_that_is_not_there(secured: Secured) -> None:
    for method in ("ModelInfer", "ModelMetadata", "ModelReady"):
        answers = []
        for name in ("hidden", "nothere"):
            message = INFER.replace(b"\x06affine", b"%c%b" % (len(name), name.encode()))
            if method != "ModelInfer":
                message = named(method, name)
            status, text, trailing = secured.ask(method, message, CHECKOUT)
            answers.append((status, text.replace(name, "…"), trailing))
        assert answers[0] == answers[1]
        assert answers[0][0] == "PERMISSION_DENIED"
    hidden, nothere = (secured.get(f"v2/models/{name}", CHECKOUT) for name in ("hidden", "nothere"))
    assert (hidden[0], hidden[2].replace(b"hidden", b"nothere")) == (403, nothere[2])


def test_memory_that_others_registered_needs_a_permission(secured: Secured) -> None:
    place = {"shared_memory_region": "others", "shared_memory_byte_size": 8}
    tensor = {"name": "x", "datatype": "INT64", "shape": [1, 1], "parameters": place}
    body = json.dumps({"inputs": [tensor]}).encode()
    assert secured.get("v2/models/affine/infer", CHECKOUT, body)[0] == 403
    assert secured.get("v2/models/affine/infer", OPERATOR, body)[0] == 501  # the server was told to offer none
    request = pb.ModelInferRequest(model_name="affine", inputs=[pb.ModelInferRequest.InferInputTensor(name="x")])
    request.inputs[0].parameters["shared_memory_region"].string_param = "others"
    request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 8
    answer = secured.ask("ModelInfer", request.SerializeToString(), CHECKOUT)
    assert answer[:2] == ("PERMISSION_DENIED", "'checkout' may not use 'shared-memory'")


def test_a_stream_is_judged_request_by_request(secured: Secured) -> None:
    messages = [INFER, INFER.replace(b"\x06affine", b"\x06hidden")]
    with connect(secured.server) as channel:
        stream = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
        answers = [
            pb.ModelStreamInferResponse.FromString(each).error_message
            for each in stream(iter(messages), timeout=30, metadata=[("authorization", f"Bearer {CHECKOUT}")])
        ]
        assert answers == ["", "'checkout' may not use 'inference' of model 'hidden'"]
        call = stream(iter(messages), timeout=30)
        with pytest.raises(grpc.RpcError):
            next(call)
        assert call.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_jwt_makes_an_operator_and_what_it_does_is_audited(secured: Secured) -> None:
    load = pb.RepositoryModelLoadRequest(model_name="fraud-1").SerializeToString()
    assert secured.ask("RepositoryModelLoad", load, CHECKOUT)[0] == "PERMISSION_DENIED"
    assert secured.ask("RepositoryModelLoad", load, OPERATOR)[0] == "OK"
    assert secured.get("v2/repository/models/hidden/load", WRONG, b"{}")[0] == 401
    assert secured.get("v2/repository/models/nothere/load", OPERATOR, b"{}")[0] == 404
    lines = secured.audited(4)
    assert [(each["principal"], each["protocol"], each["outcome"], each.get("model")) for each in lines] == [
        ("checkout", "gRPC", "PERMISSION_DENIED", "fraud-1"),
        ("operators", "gRPC", "OK", "fraud-1"),
        ("unknown", "HTTP", "UNAUTHENTICATED", "hidden"),
        ("operators", "HTTP", "NOT_FOUND", "nothere"),
    ]
    assert {each["action"] for each in lines} == {"RepositoryModelLoad"}
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", each["peer"]) for each in lines)


def test_tritons_secrets_and_the_policy_are_both_asked(secured: Secured) -> None:
    change = pb.LogSettingsRequest(settings={"log_info": {"bool_param": True}}).SerializeToString()
    assert secured.ask("LogSettings", change, OPERATOR)[0] == "UNAVAILABLE"
    assert secured.ask("LogSettings", change, triton_grpc_protocol_key=SECRET_KEY)[0] == "UNAUTHENTICATED"
    assert secured.ask("LogSettings", change, OPERATOR, triton_grpc_protocol_key=SECRET_KEY)[0] == "OK"
    assert secured.get("v2/logging", OPERATOR, key="wrong")[0] == 403
    assert secured.get("v2/logging", OPERATOR, key=SECRET_KEY)[0] == 200


def test_index_and_statistics_show_what_the_caller_may_see(secured: Secured) -> None:
    for credential, names in ((OPERATOR, {"affine", "fraud-1", "hidden"}), (READER, {"fraud-1"})):
        _, _, body = secured.get("v2/models/stats", credential)
        assert {each["name"] for each in json.loads(body)["model_stats"]} == names
        _, _, body = secured.get("v2/repository/index", credential, b"")
        assert {each["name"] for each in json.loads(body)} == names
    assert secured.get("v2/repository/models/fraud-1/unload", READER, b"{}")[0] == 403


def test_prometheus_reads_the_page_and_no_more(secured: Secured) -> None:
    status, _, page = secured.get("metrics", PROMETHEUS, port="metrics")
    assert status == 200
    assert b'reason="forbidden"' in page and b'reason="unauthenticated"' in page
    assert secured.get("metrics", PROMETHEUS)[0] == 200
    assert secured.get("metrics", CHECKOUT, port="metrics")[0] == 403
    assert secured.get("v2", PROMETHEUS)[0] == 403


def test_who_asks_too_much_is_told_when_to_come_again(secured: Secured) -> None:
    assert secured.ask("ModelInfer", INFER, SLOW)[0] == "OK"
    assert secured.get("v2/models/affine/generate", SLOW, b'{"x": 1}')[0] == 200
    status, message, trailing = secured.ask("ModelInfer", INFER, SLOW)
    assert status == "RESOURCE_EXHAUSTED"
    assert "'slow' asks for more than its limits allow" in message
    assert 0 < int(trailing["grpc-retry-pushback-ms"]) <= 1_000_000
    status, headers, _ = secured.get("v2/models/affine/generate", SLOW, b'{"x": 1}')
    assert status == 429
    assert 0 < int(headers["Retry-After"]) <= 1000
    assert secured.ask("ModelInfer", INFER, CHECKOUT)[0] == "OK"


def test_secrets_in_all_places_are_written_nowhere(secured: Secured) -> None:
    """What the server has written is read when it has stopped."""
    places = {"proxy-authorization": "Basic dXNlcjpwYXNz", "cookie": f"t={CHECKOUT}", "x-any": "shown-by-its-pattern"}
    places["triton-grpc-protocol-key"] = SECRET_KEY
    for credential in (CHECKOUT, OPERATOR, PROMETHEUS, WRONG):
        headers = places | {"authorization": f"Bearer {credential}"}
        given = {name.replace("-", "_"): value for name, value in headers.items()}
        for method, message in (("ModelInfer", INFER), ("ModelInfer", b"\xff"), ("RepositoryModelUnload", b"\xff")):
            _, text, trailing = secured.ask(method, message, **given)
            assert credential not in f"{text}{trailing}"
        for path, body in (("v2/models/affine/infer", b"no JSON"), ("v2/models/affine/load", b"{}"), ("v2", None)):
            _, answered, content = secured.get(path, body=body, key=SECRET_KEY, **given)
            assert credential not in f"{answered}{content!r}"


def test_the_pages_client_gets_in(secured: Secured, tmp_path: Path) -> None:
    example = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    example = example.replace("localhost:8001", secured.server.grpc_address)
    example = example.replace("localhost:8000", secured.server.http_url.removeprefix("http://"))
    program = tmp_path / "example.py"
    program.write_text(example)
    done = subprocess.run(
        [sys.executable, program], env={"TOKEN": CHECKOUT}, capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.stdout == "[[4]\n [7]]\n" * 2, done.stderr


def test_the_pages_curl_gets_in(secured: Secured) -> None:
    (line,) = re.findall(r"^curl (.*)$", PAGE, re.MULTILINE)
    line = line.replace("localhost:8000", secured.server.http_url)
    done = subprocess.run(
        ["sh", "-c", f"curl -sS {line}"],
        env={"TOKEN": CHECKOUT, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["name"] == "affine", done.stderr


def test_without_a_policy_an_operator_closes_what_changes_the_server(start_server: StartServer, tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    add_model(root, "affine", onnx_models.affine())
    flags = ("--model-control-mode=explicit", "--load-model=*", "--allow-admin=false")
    closed = Secured(
        start_server(*flags, f"--audit-log={tmp_path / 'audit.jsonl'}", model_repository=root), tmp_path / "audit.jsonl"
    )
    unload = pb.RepositoryModelUnloadRequest(model_name="affine").SerializeToString()
    status, message, _ = closed.ask("RepositoryModelUnload", unload)
    assert (status, message.partition(";")[0]) == ("PERMISSION_DENIED", "'model-repository' is closed here")
    assert closed.get("v2/repository/models/affine/unload", body=b"{}")[0] == 403
    assert closed.get("v2/logging", body=b'{"log_info": false}')[0] == 403
    assert closed.get("v2/logging")[0] == 200
    assert closed.ask("ModelInfer", INFER)[0] == "OK"
    lines = closed.audited(3)
    assert [(line["protocol"], line["principal"], line["outcome"]) for line in lines] == [
        ("gRPC", "anonymous", "PERMISSION_DENIED"),
        ("HTTP", "anonymous", "PERMISSION_DENIED"),
        ("HTTP", "anonymous", "PERMISSION_DENIED"),
    ]
    assert [line.get("model") for line in lines] == ["affine", "affine", None]


def test_without_a_policy_nobody_loads_models_on_an_address_that_others_reach(
    start_server: StartServer, tmp_path: Path
) -> None:
    add_model(tmp_path / "models", "affine", onnx_models.affine())
    # Another spelling of a loopback address: of a name, nobody knows who reaches it.
    flags = ("--model-control-mode=explicit", "--load-model=*", "--grpc-address=127.1", "--http-address=127.1")
    server = start_server(*flags, model_repository=tmp_path / "models")
    reached = Secured(server, tmp_path / "audit.jsonl")
    load = pb.RepositoryModelLoadRequest(model_name="affine").SerializeToString()
    status, message, _ = reached.ask("RepositoryModelLoad", load)
    assert status == "PERMISSION_DENIED"
    assert message == f"'model-repository' is closed here; {CLOSED}"
    assert reached.get("v2/repository/models/affine/unload", body=b"{}")[0] == 403
    assert reached.ask("RepositoryIndex", b"")[0] == "OK"
    assert reached.ask("ModelInfer", INFER)[0] == "OK"
    assert "nobody may load models over gRPC on 127.1" in server.log.read_text()
