"""The HTTP/2 extension knows the source that it was built from: one of an older source is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.frontends.grpc import http2_build


def test_the_extension_here_was_built_from_the_source_here() -> None:
    extension = pytest.importorskip("server.frontends.grpc._http2", reason="it is not built", exc_type=ImportError)
    assert http2_build.source_digest() == extension.lib.H2_SOURCE_DIGEST


def test_any_change_of_the_source_makes_another_digest_and_without_source_there_is_none(tmp_path: Path) -> None:
    digests = set()
    for name in http2_build.SOURCES:
        assert http2_build.source_digest(tmp_path) is None
        (tmp_path / name).write_text("one")
    digests.add(http2_build.source_digest(tmp_path))
    for name in http2_build.SOURCES:
        (tmp_path / name).write_text("another")
        digests.add(http2_build.source_digest(tmp_path))
    assert len(digests - {None}) == 3


def test_an_extension_whose_source_is_elsewhere_is_taken_as_it_is() -> None:
    http2_build.check_built_from(1, None)
    with pytest.raises(ImportError):
        http2_build.check_built_from(1, 2)
