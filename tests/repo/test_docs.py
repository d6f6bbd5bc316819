"""What the documentation says is so."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from loadtest.soak.command import add_command
from loadtest.swarm.flags import add_flags
from server import __version__
from server.access.policy_text import parse_policy
from server.errors import TRITON_REASONS, Reason
from server.flags import parser
from server.metrics.page import Request
from server.metrics.tables import BEFORE_VERSIONS
from server.models.config_accelerators import CUDA_OPTIONS, TENSORRT_OPTIONS
from server.models.config_fields import KNOWN_PARAMETERS
from tests.unit.metric_pages import GPU, page_of, snapshot, version

ROOT = Path(__file__).parents[2]

PAGES = (
    "serving", "metrics", "architecture", "gpu", "tracing", "repositories", "shared_memory", "http", "cache",
    "security", "playground",
)  # fmt: skip
"""Of `docs`, those that name flags of the server."""


ROW = re.compile(
    r"^\| ((?:nv|convoy|grpc|process|python)_\w+) \| ([a-z]+)(?: \((\w+)\))? \| ([\w, –]+) \|", re.MULTILINE
)
"""Name, type, how it is exposed where that differs, and labels."""


def test_every_family_of_the_metrics_page_is_documented_as_it_is_and_nothing_else() -> None:
    documented = {
        name: (exposed or kind, set() if labels == "–" else set(labels.split(", ")))
        for name, kind, exposed, labels in ROW.findall((ROOT / "docs/metrics.md").read_text())
    }
    body = page_of(cpu=True, gpus=[GPU]).render(snapshot(version()), Request()).body.decode()
    page = {
        f"{family.name}_total" if family.type == "counter" else family.name: (
            "untyped" if family.type == "unknown" else family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in text_string_to_metric_families(body)
    }
    assert documented == page


def test_every_reason_to_fail_is_documented_with_tritons_and_nothing_else() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    documented = dict(re.findall(r"^\| (\w+) \| (REJECTED|CANCELED|BACKEND|OTHER|–) \|", text, re.MULTILINE))
    nowhere = dict.fromkeys((*BEFORE_VERSIONS, Reason.INTERNAL), "–")  # Triton's are for versions
    assert documented == {reason: nowhere.get(reason, triton) for reason, triton in TRITON_REASONS.items()}


def test_every_parameter_of_a_configuration_is_documented() -> None:
    text = (ROOT / "docs/serving.md").read_text()
    assert [name for name in KNOWN_PARAMETERS if name not in text] == []


def test_every_option_of_an_accelerator_is_documented() -> None:
    text = (ROOT / "docs/gpu.md").read_text()
    assert [name for name in (*CUDA_OPTIONS, *TENSORRT_OPTIONS) if name not in text] == []


def test_every_flag_that_locusts_users_are_told_is_documented() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_flags(parser)
    text = (ROOT / "docs/loadtest.md").read_text()
    assert [flag for flag in parser._option_string_actions if f"`{flag}" not in text] == []


def test_every_flag_of_the_soak_is_documented() -> None:
    commands = argparse.ArgumentParser(add_help=False).add_subparsers()
    add_command(commands, argparse.ArgumentParser(add_help=False))
    text = (ROOT / "docs/loadtest.md").read_text()
    flags = commands.choices["soak"]._option_string_actions.keys() - {"-h", "--help"}
    assert [flag for flag in flags if f"`{flag}`" not in text] == []


def test_links_lead_to_files() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_links_lead_to_headings() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for file, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
            target = page.parent / file if file else page
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name} links to {file}#{anchor}"


def test_flags_named_in_the_documentation_exist() -> None:
    flags = set(parser()._option_string_actions)
    for page in (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in PAGES)):
        text = re.sub(
            r"examples/\S+.*|pip install.*|docker compose .*|curl .*|make playground .*", "", page.read_text()
        )
        for flag in re.findall(r"(--[a-z][a-z0-9-]+)", text):
            assert flag in flags, f"{page.name} names {flag}"


def test_the_policies_of_the_security_page_are_policies() -> None:
    examples = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/security.md").read_text(), re.DOTALL)
    assert [len(parse_policy(text, ROOT / "policy.toml").principals) for text in examples] == [3, 0]


def test_the_changelog_and_the_package_agree_on_the_version() -> None:
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()
