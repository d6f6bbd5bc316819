"""Generate the Python code of the `.proto` files in this folder, or check that it is up to date.

    python -m proto.generate            writes *_pb2.py and *_pb2.pyi beside their sources
    python -m proto.generate --check    writes nothing; exits 1 and names the files that are stale

No gRPC stubs: the server binds its methods by name. The output depends on the versions of grpcio-tools and
mypy-protobuf, which constraints.txt pins.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import sysconfig
import tempfile
from importlib.resources import files
from pathlib import Path

ROOM = Path(__file__).parent
SOURCES = ("model_config.proto", "grpc_service.proto", "grpc_health/v1/health.proto")
PLUGIN = "protoc-gen-mypy"

# protoc writes imports relative to its --proto_path, which must be this folder for the descriptors to bear the names
# that clients register; Python finds the modules under `proto`.
_IMPORT = re.compile(r"^import (\w+_pb2)( as \w+)?$", re.MULTILINE)


class GenerateFailed(RuntimeError):
    """protoc, or its plugin, is missing or refused a source."""


def generated_files() -> list[Path]:
    """Paths of all generated files, relative to this folder."""
    return [Path(source).with_name(f"{Path(source).stem}_pb2{end}") for source in SOURCES for end in (".py", ".pyi")]


def find_plugin() -> Path:
    """The type-stub plugin of the running interpreter's environment. Raises GenerateFailed where it is missing."""
    plugin = Path(sysconfig.get_path("scripts")) / PLUGIN
    if not plugin.exists():
        raise GenerateFailed(f"{plugin} is missing; install mypy-protobuf (it is in the extra `dev`)")
    return plugin


def generate(target: Path) -> None:
    """Write all generated files below `target`. Raises GenerateFailed with protoc's own words."""
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--plugin={PLUGIN}={find_plugin()}",
        f"--proto_path={ROOM}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={target}",
        f"--mypy_out=quiet:{target}",
        *SOURCES,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise GenerateFailed(f"protoc failed:\n{done.stderr or done.stdout}")
    for path in generated_files():
        text = (target / path).read_text(encoding="utf-8")
        (target / path).write_text(_IMPORT.sub(_import_from_room, text), encoding="utf-8")


def _import_from_room(match: re.Match[str]) -> str:
    return f"from proto import {match[1]}{match[2] or ''}"


def stale_files(room: Path = ROOM) -> list[Path]:
    """Generated files in `room` that are missing or differ from what this folder's sources give."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        return [path for path in generated_files() if _content(room / path) != _content(Path(folder) / path)]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m proto.generate", description="Generate code from .proto files.")
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 where generated code is stale")
    try:
        if not parser.parse_args(arguments).check:
            generate(ROOM)
            return 0
        stale = stale_files()
    except GenerateFailed as error:
        print(error, file=sys.stderr)
        return 1
    for path in stale:
        print(f"stale: proto/{path.as_posix()}", file=sys.stderr)
    if stale:
        print("run: make proto", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
