"""A candidate → a model that is served. The seam between what is searched and what serves it.

`OwnServers` starts a fresh server for each candidate, on a copy of the model's folder. `RunningServer` measures what
is served at an address as it is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from google.protobuf import text_format

from loadtest.errors import LoadTestError
from loadtest.processes import Running, our_server, running
from loadtest.target import Target
from loadtest.tune.candidates import Candidate, apply, read_candidate
from loadtest.tune.config_file import FILENAME, read_config
from proto import model_config_pb2 as pb


@dataclass(frozen=True)
class Served:
    """A model that answers."""

    address: str
    target: Target
    process: Running | None
    """None where the server is not ours."""


class Host(Protocol):
    """What can serve candidates."""

    present: Candidate
    """How the model is configured now."""

    can_change: bool
    """Whether it serves anything but `present`."""

    def serve(self, candidate: Candidate) -> AbstractContextManager[Served]:
        """Until the block ends. A LoadTestError says why it cannot be served."""


class OwnServers:
    """Servers of our own, one at a time. The user's repository is read and never written."""

    can_change = True

    def __init__(self, model_repository: Path, model: str, workspace: Path, out: Path) -> None:
        """`workspace` is an empty folder for the copy, `out` one for the log. Raises LoadTestError."""
        folder = model_repository / model
        if not folder.is_dir():
            raise LoadTestError(f"{folder} is not a folder: no model '{model}' in {model_repository}")
        self.text, self.config = read_config(folder)
        self._repository, self._model, self._out = workspace, model, out
        _copy(folder, workspace / model)
        with self._running() as served:
            self.present = read_candidate(served.target.config(model))

    @contextmanager
    def serve(self, candidate: Candidate) -> Iterator[Served]:
        """A fresh server that serves nothing but `candidate`."""
        wanted = apply(self.config, self.present, candidate)
        (self._repository / self._model / FILENAME).write_text(text_format.MessageToString(wanted))
        with self._running() as served:
            yield served

    @contextmanager
    def _running(self) -> Iterator[Served]:
        with (
            running(our_server(self._repository), self._out, "server") as server,
            Target(server.address) as target,
        ):
            target.require_ready(self._model)
            yield Served(server.address, target, server)


class RunningServer:
    """The server at an address, which is left as it is."""

    can_change = False

    def __init__(self, address: str, model: str) -> None:
        """Raises LoadTestError where `address` does not serve `model`."""
        self._address = address
        with Target(address) as target:
            self.config: pb.ModelConfig = target.config(model)
        self.present = read_candidate(self.config)

    @contextmanager
    def serve(self, candidate: Candidate) -> Iterator[Served]:
        """`present`, which is all that there is."""
        if candidate != self.present:
            raise LoadTestError(f"{self._address} serves {self.present}, and cannot be told to serve {candidate}")
        with Target(self._address) as target:
            yield Served(self._address, target, None)


def _copy(source: Path, target: Path) -> None:
    """The folder under another name. Files share their contents where the file system lets them: models are large."""

    def link(one: str, other: str) -> None:
        try:
            os.link(os.path.realpath(one), other)
        except OSError:
            shutil.copyfile(one, other)

    try:
        shutil.copytree(source, target, copy_function=link)
        (target / FILENAME).unlink(missing_ok=True)
        if (source / FILENAME).exists():
            shutil.copyfile(source / FILENAME, target / FILENAME)
    except OSError as error:
        raise LoadTestError(f"{source} cannot be copied to {target}: {error}") from error
