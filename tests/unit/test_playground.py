"""The page's files over HTTP: what is said about them, in which coding they come, and when they need not come."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from server.frontends.rest.playground import STATIC, playground_routes
from server.part_options import page_address, serves_ui
from server.settings import parse
from tests.unit.http_peer import Answer, Peer

PAGE = b"<!doctype html><title>page</title>" * 20
SCRIPT = b"console.log('script');" * 50


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_bytes(PAGE)
    (tmp_path / "assets/app.js").write_bytes(SCRIPT)
    (tmp_path / "sources.json").write_text("{}")
    return tmp_path


def ask(folder: Path, path: str, *headers: str, verb: str = "GET") -> Answer:
    peer = Peer(playground_routes(folder))
    lines = "".join(f"{header}\r\n" for header in headers)
    peer.send(f"{verb} {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
    (answer,) = peer.answers(verb)
    return answer


@pytest.mark.parametrize(
    ("path", "body", "media"),
    [("/", PAGE, "text/html; charset=utf-8"), ("/assets/app.js", SCRIPT, "text/javascript; charset=utf-8")],
)
def test_a_file_comes_with_what_browsers_must_know(folder: Path, path: str, body: bytes, media: str) -> None:
    answer = ask(folder, path)

    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["content-type"] == media
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("accepted", "coding"), [("gzip, deflate, br", "gzip"), ("br, *", "gzip"), ("gzip;q=0", ""), ("br", "")]
)
def test_it_is_compressed_for_those_who_take_that(folder: Path, accepted: str, coding: str) -> None:
    answer = ask(folder, "/", f"Accept-Encoding: {accepted}")

    assert answer.headers.get("content-encoding", "") == coding
    assert (gzip.decompress(answer.body) if coding else answer.body) == PAGE
    assert answer.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("known", ["{tag}", "W/{tag}", '"other", W/{tag}', "*"])
def test_who_has_it_is_not_sent_it_again(folder: Path, known: str) -> None:
    tag = ask(folder, "/").headers["etag"].removeprefix("W/")

    answer = ask(folder, "/", f"If-None-Match: {known.format(tag=tag)}", "Accept-Encoding: gzip")

    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == f"W/{tag}"
    assert "content-length" not in answer.headers


def test_who_has_another_one_is_sent_it(folder: Path) -> None:
    tag = ask(folder, "/assets/app.js").headers["etag"]

    assert ask(folder, "/", f"If-None-Match: {tag}").status == 200


def test_a_head_is_that_of_the_file(folder: Path) -> None:
    answer = ask(folder, "/", verb="HEAD")

    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(PAGE))


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/assets/none.js", 404),
        ("GET", "/index.html", 404),
        ("GET", "/sources.json", 404),
        ("GET", "/assets/..%2Findex.html", 404),
        ("GET", "/assets/../assets/app.js", 404),
        ("POST", "/", 405),
    ],
)
def test_nothing_else_is_served(folder: Path, verb: str, path: str, status: int) -> None:
    assert ask(folder, path, verb=verb).status == status


def test_a_page_that_was_not_built_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"index\.html.*make playground.*--ui=false"):
        list(playground_routes(tmp_path))


def test_a_file_that_browsers_would_have_to_guess_is_refused(folder: Path) -> None:
    (folder / "assets/data.bin").write_bytes(b"?")

    with pytest.raises(OSError, match=r"\.bin"):
        list(playground_routes(folder))


@pytest.mark.parametrize(
    ("flags", "served"),
    [
        ("--http-address=127.0.0.1", True),
        ("--http-address=localhost", True),
        ("--http-address=::1", True),
        ("--http-address=0.0.0.0", False),
        ("--http-address=10.1.2.3", False),
        ("", False),
        ("--ui=true --http-address=0.0.0.0", True),
        ("--ui=false --http-address=127.0.0.1", False),
    ],
)
def test_it_is_served_where_only_this_machine_comes_unless_a_flag_says_otherwise(flags: str, served: bool) -> None:
    assert serves_ui(parse(["--model-repository=models", *flags.split()])) is served


@pytest.mark.parametrize(
    ("flags", "address"),
    [
        ("--http-address=127.0.0.1", "http://127.0.0.1:8000/"),
        ("--http-address=::1", "http://[::1]:8000/"),
        ("--http-address=0.0.0.0", "http://localhost:8000/"),
        ("--http-use-ssl=true --http-server-cert=c --http-server-key=k", "https://localhost:8000/"),
    ],
)
def test_its_address_is_one_for_a_browser(flags: str, address: str) -> None:
    assert page_address(parse(["--model-repository=models", *flags.split()]), 8000) == address


def test_the_built_page_has_nothing_inline_and_asks_nobody_else() -> None:
    page = (STATIC / "index.html").read_text()

    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert [address for address in addresses if not address.startswith("/")] == []
    assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=", page) == []
    for address in addresses:
        assert (STATIC / address.removeprefix("/")).is_file()
