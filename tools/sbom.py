"""The software bill of materials of what serves, as CycloneDX 1.6 JSON.

    python tools/sbom.py [--output dist/convoy.cdx.json]

Made by cyclonedx-py from the environment that it runs in, and cut down to what the server needs: what only training,
load tests and development install is left out. The interpreter and the system's libraries that the HTTP/2 extension is
linked with are added, where dpkg knows them, and what is built into the playground's page. What wheels carry inside
(OpenMP in ONNX Runtime, libjpeg in Pillow) is part of the wheel's own version and not listed. The same environment
gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
EXTRAS = ("cpu", "redis", "remote", "tracing")
"""Of the project, those that a server may have."""
SYSTEM_PACKAGES = ("libnghttp2-14", "libc6")
"""Of Debian, those that the HTTP/2 extension is linked with."""
SCHEMA = SchemaVersion.V1_6


def main(arguments: Sequence[str]) -> int:
    """Write the bill. Returns 1, and writes nothing, where it does not keep to CycloneDX's schema."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "convoy.cdx.json", metavar="PATH")
    output = parser.parse_args(arguments).output
    text = bill_of_materials()
    problem = problem_with(text)
    if problem is not None:
        print(f"sbom: the bill is not valid CycloneDX {SCHEMA.to_version()}: {problem}", file=sys.stderr)
        return 1
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
    print(f"sbom: {len(json.loads(text)['components'])} components: {output}")
    return 0


def problem_with(bill: str) -> str | None:
    """Where it does not keep to CycloneDX's schema. None: it does."""
    from cyclonedx.validation.json import JsonStrictValidator  # seconds of importing, which only this needs

    error = JsonStrictValidator(SCHEMA).validate_str(bill)
    return None if error is None else str(error)


def bill_of_materials() -> str:
    """The bill of this environment."""
    bill = _of_environment()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = [*project["dependencies"], *(text for extra in EXTRAS for text in project["optional-dependencies"][extra])]
    wanted = needed(direct)
    bill["components"] = [each for each in bill["components"] if canonicalize_name(each["name"]) in wanted]
    system = [_interpreter(), *_system_components(), *_page_components()]
    root = bill["metadata"]["component"]["bom-ref"]
    kept = {each["bom-ref"] for each in bill["components"]} | {root}
    bill["dependencies"] = [
        each | {"dependsOn": [ref for ref in each.get("dependsOn", ()) if ref in kept]}
        for each in bill["dependencies"]
        if each["ref"] in kept
    ]
    own = next(each for each in bill["dependencies"] if each["ref"] == root)
    own["dependsOn"] = sorted([*own["dependsOn"], *(each["bom-ref"] for each in system)])
    bill["components"] += system
    bill["dependencies"] += [{"ref": each["bom-ref"]} for each in system]
    return json.dumps(bill, indent=2, sort_keys=True) + "\n"


def needed(requirements: Iterable[str]) -> set[str]:
    """The canonical names of the installed packages that these requirements come to, their own included."""
    found: set[str] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            try:
                waiting += [(Requirement(text), wanted) for text in requires(name) or ()]
            except PackageNotFoundError:
                continue
            found.add(name)
    return found


def _of_environment() -> dict[str, Any]:
    """The bill of everything that is installed, by cyclonedx-py."""
    command = [
        sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--no-validate",
        f"--pyproject={ROOT / 'pyproject.toml'}", "--of=JSON", f"--sv={SCHEMA.to_version()}", "-o=-", sys.executable,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"sbom: cyclonedx-py failed:\n{done.stderr}")
    bill: dict[str, Any] = json.loads(done.stdout)
    return bill


def _interpreter() -> dict[str, Any]:
    version = str(Version(platform.python_version()))
    purl = PackageURL("generic", None, "python", version).to_string()
    return {"bom-ref": purl, "name": "python", "purl": purl, "type": "platform", "version": version}


def _system_components() -> list[dict[str, Any]]:
    return [component for name in SYSTEM_PACKAGES if (component := _debian_component(name)) is not None]


def _debian_component(name: str) -> dict[str, Any] | None:
    """None where dpkg does not know the package."""
    try:
        done = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Version} ${Architecture}", name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return None
    if done.returncode:
        return None
    version, architecture = done.stdout.split()
    distribution = platform.freedesktop_os_release()["ID"]
    purl = PackageURL("deb", distribution, name, version, {"arch": architecture}).to_string()
    return {"bom-ref": purl, "name": name, "purl": purl, "type": "library", "version": version}


def _page_components() -> list[dict[str, Any]]:
    """What is built into the playground's page, by its lock file; what only builds it is left out."""
    packages = json.loads((ROOT / "playground" / "package-lock.json").read_text())["packages"]
    components = []
    for path, package in sorted(packages.items()):
        if not path or package.get("dev"):
            continue
        scope, _, name = path.removeprefix("node_modules/").rpartition("/")
        purl = PackageURL("npm", scope or None, name, package["version"]).to_string()
        licenses = [{"license": {"id": package["license"]}}]
        components.append(
            {"bom-ref": purl, "group": scope, "licenses": licenses, "name": name, "purl": purl, "type": "library",
             "version": package["version"]}
        )  # fmt: skip
    return components


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
