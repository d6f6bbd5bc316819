"""The peers' virtual environments, made on demand from pinned versions with pip as this machine has it set up."""

from __future__ import annotations

import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.peers.base import Peer

ENVIRONMENTS = Path(__file__).parents[2] / ".cache" / "peers"
_STAMP = "installed.txt"
_INSTALL_SECONDS = 900.0
_VERSIONS = """
import sys
from importlib.metadata import version
print(sys.version.split()[0], *[version(name) for name in sys.argv[1:]])
"""


def interpreter(peer: Peer, folder: Path = ENVIRONMENTS) -> Path:
    """The Python that `peer` runs with; its environment is made first if need be.

    LoadTestError where pip cannot install it.
    """
    if peer.requirements is None:
        return Path(sys.executable)
    home = folder / peer.name
    python = home / "bin" / "python"
    wanted = sha256(f"{sys.version}\n{peer.requirements.read_text()}".encode()).hexdigest()
    stamp = home / _STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"bench: installing {peer.title} into {home} (once)", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(home)], f"no environment for {peer.title}")
    pip = [str(python), "-m", "pip", "install", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    _run([*pip, "--requirement", str(peer.requirements)], f"pip cannot install {peer.title}")
    stamp.write_text(wanted)
    return python


def versions(peer: Peer, python: Path) -> dict[str, str]:
    """Of Python and of the packages that the report names."""
    done = subprocess.run(
        [str(python), "-c", _VERSIONS, *peer.packages], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise LoadTestError(f"{peer.title}: {last_error(done.stderr)}")
    return dict(zip(("Python", *peer.packages), done.stdout.split(), strict=True))


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LoadTestError(f"{what}: not done after {_INSTALL_SECONDS:.0f} s") from error
    if done.returncode != 0:
        raise LoadTestError(f"{what}: {last_error(done.stderr or done.stdout)}")


def last_error(text: str) -> str:
    """The last line of a program's output that says what is wrong."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it said nothing"])[-1]
