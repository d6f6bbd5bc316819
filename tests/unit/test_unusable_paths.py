"""Every flag that takes a path says its own name where that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from server import app, flags, logs, part_options, settings
from server.errors import LoadFailed
from server.files import given_by
from server.frontends.statuses import STATUSES, Failures
from server.memory_budget import MemoryBudget
from server.models import repository
from server.pages import Populator
from server.remote.cache import Cache
from server.settings import Settings
from server.urls import RepositoryUrl

NOWHERE = Path("/dev/null/nowhere")
"""No folder has it, and nobody can make it, root neither."""


def _gates(given: Settings) -> None:
    part_options.gates(given, lambda _: None)


def _grpc(given: Settings) -> None:
    part_options.grpc_options(given, MemoryBudget(), Failures(STATUSES), Populator())


def _http(given: Settings) -> None:
    part_options.http_options(given, MemoryBudget(), Failures(STATUSES), Populator())


def _ports(given: Settings) -> None:
    assert given.ports_file is not None
    app.write_ports(given.ports_file, app.Ports(1, 2, 3))


def _repository(given: Settings) -> None:
    repository.scan(given.model_repositories)


def _cache(given: Settings) -> None:
    Cache(given.model_repository_cache_dir, RepositoryUrl("s3://bucket/models"))


def tls(protocol: str, use: Callable[[Settings], object]) -> dict[str, tuple[Callable[[Settings], object], list[str]]]:
    """The files of a listener: each in turn cannot be used, where the others can be read."""
    names = [f"--{protocol}-{name}" for name in ("server-cert", "server-key", "root-cert")]
    return {
        name: (use, [f"--{protocol}-use-ssl-mutual=true", *(f"{each}=/dev/null" for each in names if each != name)])
        for name in names
    }


USED_BY: dict[str, tuple[Callable[[Settings], object], list[str]]] = {
    "--auth-policy": (_gates, []),
    "--audit-log": (logs.configure, []),
    "--log-file": (logs.configure, []),
    "--ports-file": (_ports, []),
    "--model-repository": (_repository, []),
    "--model-repository-cache-dir": (_cache, ["--model-repository=s3://bucket/models"]),
    **tls("grpc", _grpc),
    **tls("http", _http),
    **tls("metrics", part_options.metrics_options),
}

USED_LATER = {"--model-cache-dir"}
"""When a model asks for it, which says so then."""


@pytest.mark.parametrize("flag", USED_BY)
def test_a_path_that_cannot_be_used_is_told_with_its_flag(flag: str) -> None:
    use, more = USED_BY[flag]
    given = settings.parse(["--model-repository=/nowhere", *more, f"{flag}={NOWHERE}"])
    if flag == "--model-repository":
        given = settings.parse([f"{flag}={NOWHERE}"])
    with pytest.raises((OSError, LoadFailed)) as caught:
        use(given)
    assert str(caught.value).startswith(f"{flag} {NOWHERE}: ")
    assert "Errno" not in str(caught.value)


def test_no_flag_that_takes_a_path_is_forgotten() -> None:
    paths = {action.option_strings[0] for action in flags.parser()._actions if action.type is Path}
    assert paths == (USED_BY.keys() - {"--model-repository"}) | USED_LATER


def test_what_the_system_does_not_name_is_told_as_it_is() -> None:
    with pytest.raises(OSError, match=r"^--flag /path: why$"), given_by("--flag", Path("/path")):
        raise OSError("why")
