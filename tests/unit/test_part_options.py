"""What flags decide reaches the part that it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.frontends.statuses import AS_TRITON
from server.memory_budget import MemoryBudget
from server.pages import Populator
from server.part_options import gates, grpc_options, http_options, memory_budget, metrics_options
from server.settings import parse
from tests.unit.access_policies import principal


@pytest.mark.parametrize("shared", [False, True])
def test_each_port_is_shared_as_its_flag_says(shared: bool) -> None:
    flags = [f"--reuse-http-port={shared}", f"--reuse-grpc-port={not shared}"]
    settings = parse(["--model-repository=models", *flags])
    common = (MemoryBudget(), AS_TRITON, Populator())
    http, grpc = http_options(settings, *common), grpc_options(settings, *common)
    assert (http.reuse_port, grpc.reuse_port) == (shared, not shared)


def test_the_memory_budget_is_what_its_flag_says() -> None:
    assert memory_budget(parse(["--model-repository=models", "--memory-budget=3G"])).limit == 3 << 30


def test_without_a_flag_the_memory_budget_has_room_for_some_of_the_largest_requests() -> None:
    flags = ["--grpc-max-message-bytes=1099511627776"]  # more than any machine has
    assert memory_budget(parse(["--model-repository=models", *flags])).limit == 4 << 40


@pytest.mark.parametrize(("word", "level"), [(None, 0), ("none", 0), ("low", 1), ("Medium", 2), ("HIGH", 3)])
def test_answers_are_compressed_as_much_as_their_flag_says(word: str | None, level: int) -> None:
    flags = [] if word is None else [f"--grpc-infer-response-compression-level={word}"]
    settings = parse(["--model-repository=models", *flags])
    assert grpc_options(settings, MemoryBudget(), AS_TRITON, Populator()).compression_level == level


def test_metrics_have_tls_of_their_own(tmp_path: Path) -> None:
    cert, key, root_cert = (tmp_path / name for name in ("c.pem", "k.pem", "r.pem"))
    for path in (cert, key, root_cert):
        path.touch()
    files = [f"--metrics-server-cert={cert}", f"--metrics-server-key={key}", f"--metrics-root-cert={root_cert}"]
    for flag, root in (("--metrics-use-ssl=true", None), ("--metrics-use-ssl-mutual=true", root_cert)):
        settings = parse(["--model-repository=models", flag, *files])
        tls = metrics_options(settings).tls
        assert tls is not None and (tls.certificate, tls.root) == (cert, root)
        assert http_options(settings, MemoryBudget(), AS_TRITON, Populator()).tls is None
    assert metrics_options(parse(["--model-repository=models", *files])).tls is None


LOCAL = ("--grpc-address=127.0.0.1", "--http-address=localhost")
TLS = ("--grpc-use-ssl=true", "--grpc-server-cert=c.pem", "--grpc-server-key=k.pem", "--allow-http=false")
WARNINGS = {
    "a policy without TLS": (("--auth-policy=POLICY",), ["gRPC on 0.0.0.0 has no TLS", "HTTP on 0.0.0.0 has no TLS"]),
    "a policy with TLS": (("--auth-policy=POLICY", *TLS), []),
    "a policy on loopback": (("--auth-policy=POLICY", *LOCAL), []),
    "loading for all": (
        ("--model-control-mode=explicit", "--allow-http=false"),
        ["nobody may load models over gRPC on 0.0.0.0"],
    ),
    "loading on loopback": (("--model-control-mode=explicit", *LOCAL), []),
    "loading that is meant": (("--model-control-mode=explicit", "--allow-admin=true"), []),
    "loading that is closed": (("--model-control-mode=explicit", "--allow-admin=false"), []),
    "nothing of it": ((), []),
}


@pytest.mark.parametrize(("flags", "warnings"), WARNINGS.values(), ids=WARNINGS)
def test_an_operator_hears_of_doors_that_may_not_be_meant_to_be_open(
    flags: tuple[str, ...], warnings: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(principal("a"))
    settings = parse(["--model-repository=models", *(flag.replace("POLICY", str(policy)) for flag in flags)])
    gates(settings, lambda _: None)
    assert [message[: len(start)] for message, start in zip(caplog.messages, warnings, strict=True)] == warnings
