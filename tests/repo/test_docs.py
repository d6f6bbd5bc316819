"""What the documentation says is so."""

from __future__ import annotations

import re
from pathlib import Path

from server import __version__
from server.metrics import metrics_registry
from server.models.config_accelerators import CUDA_OPTIONS, TENSORRT_OPTIONS
from server.models.config_fields import DECIMALS, IMAGE_TEXTS, PARAMETERS, SWITCHES
from server.models.config_runtime import RUNTIME_PARAMETERS
from server.settings import _parser

ROOT = Path(__file__).parents[2]


def test_every_metric_of_the_page_is_documented_and_nothing_else() -> None:
    families = metrics_registry(list, cpu=True, gpus=list).collect()
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    page = {name for name in names if name.startswith(("nv_", "convoy_"))}
    documented = set(re.findall(r"^\| ((?:nv|convoy)_\w+) \|", (ROOT / "docs/serving.md").read_text(), re.MULTILINE))
    assert documented == page


def test_every_parameter_of_a_configuration_is_documented() -> None:
    text = (ROOT / "docs/serving.md").read_text()
    assert [
        name for name in SWITCHES.union(IMAGE_TEXTS, PARAMETERS, DECIMALS, RUNTIME_PARAMETERS) if name not in text
    ] == []


def test_every_option_of_an_accelerator_is_documented() -> None:
    text = (ROOT / "docs/gpu.md").read_text()
    assert [name for name in (*CUDA_OPTIONS, *TENSORRT_OPTIONS) if name not in text] == []


def test_links_lead_to_files() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_flags_named_in_the_documentation_exist() -> None:
    flags = set(_parser()._option_string_actions)
    pages = ("serving", "architecture", "gpu", "repositories")
    for page in (ROOT / "README.md", *(ROOT / f"docs/{name}.md" for name in pages)):
        text = re.sub(r"examples/\S+.*|pip install.*", "", page.read_text())
        for flag in re.findall(r"(--[a-z][a-z0-9-]+)", text):
            assert flag in flags, f"{page.name} names {flag}"


def test_the_changelog_and_the_package_agree_on_the_version() -> None:
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()
