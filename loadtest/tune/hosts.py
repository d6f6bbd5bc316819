"""A candidate → a model that is served. The seam between what is searched and what serves it.

`OwnServers` starts a fresh server for each candidate, on a copy of the model's folder. `RemoteServer` is a server that
runs already: as it is, or told over the wire to load the model anew.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from google.protobuf import json_format, text_format

from loadtest.errors import LoadTestError
from loadtest.payload import Shape, Workload
from loadtest.processes import Running, our_server, running
from loadtest.target import Target
from loadtest.tune.candidates import Candidate, apply, read_candidate, require_tunable
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
    """What can serve candidates, one at a time."""

    present: Candidate
    """How the model is configured now."""

    can_change: bool
    """Whether it serves anything but `present`."""

    workload: Workload
    """A request that `present` takes."""

    def serve(self, candidate: Candidate) -> AbstractContextManager[Served]:
        """Until the block ends. A LoadTestError says why it cannot be served."""


class OwnServers:
    """Servers of our own. The user's repository is read and never written."""

    can_change = True

    def __init__(self, model_repository: Path, model: str, shapes: dict[str, Shape], out: Path) -> None:
        """`shapes`: whole shapes of inputs, see `make_workload`; `out`: where the log goes, and the copy of the model
        for as long as the block lasts. Raises LoadTestError.
        """
        folder = model_repository / model
        if not folder.is_dir():
            raise LoadTestError(f"{folder} is not a folder: no model '{model}' in {model_repository}")
        self.text, self.config = read_config(folder)
        require_tunable(model, self.config)
        self._model, self._out = model, out
        # Beside the reports and not in /tmp: there the copy can share the contents of large files.
        self._temporary = tempfile.TemporaryDirectory(prefix="repository-", dir=out)
        self._repository = Path(self._temporary.name)
        try:
            _copy(folder, self._repository / model)
            with self._running() as served:
                self.present = read_candidate(served.target.config(model))
                self.workload = served.target.workload(model, shapes, count=1)
        except BaseException:
            self._temporary.cleanup()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

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


class RemoteServer:
    """The server at an address.

    With `can_change`, RepositoryModelLoad gives it each candidate as the parameter `config`, and at the end of the
    block it serves what it served before.
    """

    def __init__(self, address: str, model: str, shapes: dict[str, Shape], *, can_change: bool) -> None:
        """Raises LoadTestError where `address` does not serve `model`, or does not load it when it is told to."""
        self.can_change = can_change
        self._address, self._model = address, model
        with Target(address) as target:
            self._config = target.config(model)
            require_tunable(model, self._config)
            self.present = read_candidate(self._config)
            self.workload = target.workload(model, shapes, count=1)
            if can_change:
                target.load(model, _json(self._config))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.can_change:
            return
        with Target(self._address) as target:
            target.load(self._model, None)
            if target.config(self._model) != self._config:
                # It was served with another configuration than its folder's.
                target.load(self._model, _json(self._config))

    @contextmanager
    def serve(self, candidate: Candidate) -> Iterator[Served]:
        """`candidate`, loaded anew; `present` as it is where nothing can be changed."""
        with Target(self._address) as target:
            if self.can_change:
                target.load(self._model, _json(apply(self._config, self.present, candidate)))
            elif candidate != self.present:
                raise LoadTestError(f"{self._address} serves {self.present}, and is not to load {candidate}")
            yield Served(self._address, target, None)


def _json(config: pb.ModelConfig) -> str:
    return json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None)


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
