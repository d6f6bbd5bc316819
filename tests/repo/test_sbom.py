"""The bill of materials that `make sbom` writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from tests.repo.test_docs import ROOT
from tools import sbom


@pytest.fixture(scope="module")
def text() -> str:
    return sbom.bill_of_materials()


@pytest.fixture(scope="module")
def bill(text: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(text)
    return made


def names(bill: dict[str, Any]) -> set[str]:
    return {canonicalize_name(component["name"]) for component in bill["components"]}


def test_the_bill_keeps_to_the_schema_of_cyclonedx(text: str) -> None:
    assert sbom.problem_with(text) is None


def test_a_bill_that_does_not_keep_to_the_schema_is_seen(bill: dict[str, Any]) -> None:
    assert sbom.problem_with(json.dumps(bill | {"components": [{}]})) is not None


def test_the_same_environment_gives_the_same_bytes(text: str) -> None:
    assert sbom.bill_of_materials() == text


def test_what_serves_is_listed_and_what_only_develops_is_not(bill: dict[str, Any]) -> None:
    assert {"python", "onnxruntime", "grpcio", "numpy", "orjson", "redis", "s3fs", "opentelemetry-sdk"} < names(bill)
    assert names(bill).isdisjoint({"torch", "pytest", "locust", "mypy", "cyclonedx-bom", "convoy"})


def test_what_is_built_into_the_page_is_listed_and_what_builds_it_is_not(bill: dict[str, Any]) -> None:
    packages = [each for each in bill["components"] if each["purl"].startswith("pkg:npm/")]
    assert {each["name"] for each in packages} == {"preact", "signals", "signals-core"}
    assert {each["licenses"][0]["license"]["id"] for each in packages} == {"MIT"}


def test_every_package_has_the_version_that_is_pinned(bill: dict[str, Any]) -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    packages = [each for each in bill["components"] if each["purl"].startswith("pkg:pypi/")]
    assert {each["name"]: each["version"] for each in packages} == {
        each["name"]: pinned[canonicalize_name(each["name"])] for each in packages
    }


def test_everything_that_depends_on_something_finds_it(bill: dict[str, Any]) -> None:
    listed = {each["bom-ref"] for each in (*bill["components"], bill["metadata"]["component"])}
    edges = {each["ref"]: set(each.get("dependsOn", ())) for each in bill["dependencies"]}
    assert set(edges) == listed
    assert set().union(*edges.values()) == listed - {bill["metadata"]["component"]["bom-ref"]}
