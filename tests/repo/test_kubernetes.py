"""deploy/kubernetes and deploy/kserve: valid by the published schemas, and of one mind with the server."""

from __future__ import annotations

import copy
import re
from types import ModuleType
from typing import Any

import pytest

from server.settings import Settings
from tests.repo.manifests import DEPLOY, ROOT, Manifest, built, flags_of, kserve_problems, read, seconds_to_end

OVERLAYS = ("cpu", "gpu", "object-store")
OLDEST = "1.30"
"""That the manifests promise to work with (docs/kubernetes.md)."""

SPARE_SECONDS = 5
KNATIVE_GRACE_SECONDS = 30


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> dict[str, Manifest]:
    return built(f"kubernetes/overlays/{request.param}")


@pytest.fixture
def pod(manifests: dict[str, Manifest]) -> Manifest:
    return manifests["Deployment/convoy"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod: Manifest) -> Manifest:
    (container,) = pod["containers"]
    return container


@pytest.fixture
def flags(manifests: dict[str, Manifest], container: Manifest) -> Settings:
    source, *_ = container["envFrom"]
    return flags_of(container, manifests[f"ConfigMap/{source['configMapRef']['name']}"]["data"] | {"POD_NAME": "pod"})


def mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * {"Mi": 1, "Gi": 1024}[quantity[-2:]]


def ports_of(container: Manifest) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container["ports"]}


@pytest.fixture(scope="module")
def schemas() -> ModuleType:
    """Of all versions. Their package takes so long to import that the tests are not collected with it."""
    import kubernetes_validate

    return kubernetes_validate


@pytest.mark.parametrize("version", [OLDEST, "newest"])
def test_every_manifest_is_valid_by_kubernetes_schemas(
    schemas: ModuleType, manifests: dict[str, Manifest], version: str
) -> None:
    for manifest in manifests.values():
        schemas.validate(manifest, schemas.latest_version() if version == "newest" else version, strict=True)


def test_a_slip_of_the_pen_would_be_found(schemas: ModuleType) -> None:
    broken = copy.deepcopy(built("kubernetes/overlays/cpu")["Deployment/convoy"])
    broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(schemas.ValidationError, match="readynessProbe"):
        schemas.validate(broken, schemas.latest_version(), strict=True)


def test_the_servers_ports_are_those_of_the_pod_and_its_services(
    manifests: dict[str, Manifest], container: Manifest, flags: Settings
) -> None:
    ports = ports_of(container)
    assert ports == {"grpc": flags.grpc_port, "http": flags.http_port, "metrics": flags.metrics_port}
    for name in ("convoy", "convoy-headless"):
        for port in manifests[f"Service/{name}"]["spec"]["ports"]:
            assert (port["targetPort"], port["port"]) == (port["name"], ports[port["name"]])
    annotations = manifests["Deployment/convoy"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(flags.metrics_port)
    assert f"server server:{flags.grpc_port} resolve" in (DEPLOY / "nginx/nginx.conf").read_text()


def test_the_operator_scrapes_each_pod_once(manifests: dict[str, Manifest]) -> None:
    (endpoint,) = read("kubernetes/components/prometheus-operator/servicemonitor.yaml")["spec"]["endpoints"]
    services = [manifest for name, manifest in manifests.items() if name.startswith("Service/")]
    assert [endpoint["port"] in {port["name"] for port in one["spec"]["ports"]} for one in services].count(True) == 1


def test_alerts_find_what_the_operator_scrapes(manifests: dict[str, Manifest]) -> None:
    label = read("kubernetes/components/prometheus-operator/servicemonitor.yaml")["spec"]["jobLabel"]
    job = manifests["Service/convoy-headless"]["metadata"]["labels"][label]
    assert set(re.findall(r'job="(\w+)"', (DEPLOY / "prometheus/alerts.yml").read_text())) == {job}


def test_probes_ask_what_the_server_answers(container: Manifest, flags: Settings) -> None:
    assert container["readinessProbe"]["grpc"] == {"port": flags.grpc_port}
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/v2/health/live", "port": "http"}


def test_a_pod_is_not_killed_before_it_has_drained(pod: Manifest, container: Manifest, flags: Settings) -> None:
    assert flags.shutdown_delay_secs > 0
    assert pod["terminationGracePeriodSeconds"] >= seconds_to_end(flags, container) + SPARE_SECONDS


def test_every_selector_finds_the_pods_of_the_deployment(manifests: dict[str, Manifest]) -> None:
    labels = manifests["Deployment/convoy"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        manifests["Deployment/convoy"]["spec"]["selector"]["matchLabels"],
        manifests["Service/convoy"]["spec"]["selector"],
        manifests["Service/convoy-headless"]["spec"]["selector"],
        manifests["PodDisruptionBudget/convoy"]["spec"]["selector"]["matchLabels"],
        manifests["NetworkPolicy/convoy"]["spec"]["podSelector"]["matchLabels"],
        read("kubernetes/components/prometheus-operator/servicemonitor.yaml")["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    target = manifests["HorizontalPodAutoscaler/convoy"]["spec"]["scaleTargetRef"]
    assert f"{target['kind']}/{target['name']}" in manifests
    assert "replicas" not in manifests["Deployment/convoy"]["spec"]


def test_the_server_writes_where_it_may_and_nowhere_else(pod: Manifest, container: Manifest, flags: Settings) -> None:
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in mounts.values()} == set(volumes)
    assert "emptyDir" in volumes[mounts[str(flags.model_cache_dir)]["name"]]
    if flags.model_repository_urls:
        mirror = volumes[mounts[str(flags.model_repository_cache_dir)]["name"]]
        assert "emptyDir" in mirror and str(flags.model_repository_cache_dir) != str(flags.model_cache_dir)
    assert all(mount.get("readOnly") or "emptyDir" in volumes[mount["name"]] for mount in mounts.values())
    assert "/tmp" in mounts


def test_the_pods_folders_fit_into_what_it_may_use_of_the_disk(pod: Manifest, container: Manifest) -> None:
    folders = [mebibytes(volume["emptyDir"]["sizeLimit"]) for volume in pod["volumes"] if "emptyDir" in volume]
    assert sum(folders) <= mebibytes(container["resources"]["limits"]["ephemeral-storage"])


def test_a_pod_has_no_privileges(pod: Manifest, container: Manifest) -> None:
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_models_come_from_the_volume_or_from_the_object_store() -> None:
    for overlay, root in (("cpu", "/models"), ("gpu", "/models"), ("object-store", "s3://")):
        manifests = built(f"kubernetes/overlays/{overlay}")
        pod = manifests["Deployment/convoy"]["spec"]["template"]["spec"]
        (settings,) = (manifest["data"] for name, manifest in manifests.items() if name.startswith("ConfigMap/"))
        assert settings["MODEL_REPOSITORY"].startswith(root)
        claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
        assert {f"PersistentVolumeClaim/{claim}" for claim in claims} == {n for n in manifests if "VolumeClaim" in n}
        assert bool(claims) == (root == "/models")
        (container,) = pod["containers"]
        assert ("--model-control-mode=poll" in container["args"]) == (root == "s3://")


def adapter_rules() -> dict[str, str]:
    rules = read("kubernetes/prometheus-adapter/values.yaml")["rules"]["custom"]
    return {rule["name"]["as"]: f"{rule['seriesQuery']} {rule['metricsQuery']}" for rule in rules}


def test_the_autoscaler_asks_for_what_the_adapter_makes(manifests: dict[str, Manifest]) -> None:
    asked = {
        metric["pods"]["metric"]["name"] for metric in manifests["HorizontalPodAutoscaler/convoy"]["spec"]["metrics"]
    }
    assert asked == set(adapter_rules())


def test_the_adapter_reads_what_the_server_exposes() -> None:
    documented = set(re.findall(r"^\| ((?:nv|convoy)_\w+) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    read_by_rules = {name for rule in adapter_rules().values() for name in re.findall(r"\b(?:nv|convoy)_\w+", rule)}
    assert read_by_rules <= documented, "tests/repo/test_docs.py sees to it that what is documented is exposed"


@pytest.fixture
def runtime() -> Manifest:
    return read("kserve/clusterservingruntime.yaml")


SERVICES = ("kserve/service", "kserve/canary")


def service(folder: str) -> Manifest:
    return built(folder)["InferenceService/lenet5"]


def test_the_serving_runtime_is_valid_by_kserves_models(runtime: Manifest) -> None:
    assert kserve_problems(runtime, "V1alpha1ClusterServingRuntime") == []


@pytest.mark.parametrize("folder", SERVICES)
def test_inference_services_are_valid_by_kserves_models(folder: str) -> None:
    assert kserve_problems(service(folder), "V1beta1InferenceService") == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"minReplica": 0}, ".spec.predictor.minReplica is no field of V1beta1PredictorSpec"),
        ({"minReplicas": "0"}, ".spec.predictor.minReplicas must be int, not '0'"),
        ({"model": {"ports": [{"name": "h2c"}]}}, "'containerPort' is a required property"),
        ({"model": {"protocolVersion": "v2"}}, ".spec.predictor.model.modelFormat is missing"),
    ],
)
def test_a_slip_of_the_pen_in_an_inference_service_would_be_found(change: dict[str, Any], problem: str) -> None:
    broken = copy.deepcopy(service("kserve/service"))
    broken["spec"]["predictor"] |= change
    assert any(problem in found for found in kserve_problems(broken, "V1beta1InferenceService"))


def test_the_serving_runtime_serves_onnx_where_the_inference_services_ask(runtime: Manifest) -> None:
    spec = runtime["spec"]
    (container,) = spec["containers"]
    flags = flags_of(container, {})
    assert {served["name"] for served in spec["supportedModelFormats"]} == {"onnx"}
    assert spec["protocolVersions"] == ["v2", "grpc-v2"]
    assert spec["annotations"]["prometheus.kserve.io/port"] == str(flags.metrics_port)
    assert container["livenessProbe"]["httpGet"]["port"] == flags.http_port
    assert seconds_to_end(flags, container) + SPARE_SECONDS <= KNATIVE_GRACE_SECONDS
    for folder in SERVICES:
        model = service(folder)["spec"]["predictor"]["model"]
        assert model["runtime"] == runtime["metadata"]["name"]
        assert model["modelFormat"]["name"] == "onnx"
        assert model["protocolVersion"] in spec["protocolVersions"]
        assert [port["containerPort"] for port in model["ports"]] == [flags.grpc_port]
        assert model["readinessProbe"]["grpc"]["port"] == flags.grpc_port


def test_the_canary_is_the_service_with_other_models_for_a_part_of_the_requests() -> None:
    stable, canary = (copy.deepcopy(service(folder))["spec"]["predictor"] for folder in SERVICES)
    assert stable["minReplicas"] == 0
    assert 0 < canary.pop("canaryTrafficPercent") < 100
    assert canary["model"].pop("storageUri") != stable["model"].pop("storageUri")
    assert canary == stable
