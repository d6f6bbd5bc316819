"""What a remote repository lists, what is fetched of it, and what the sums beside it ask for. Tables, no disk."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import LoadFailed
from server.remote.checksums import expected_sums, missing
from server.remote.objects import RemoteFile, RemoteModel, sort_out
from server.remote.plan import Piece, plan, unused
from server.urls import RepositoryUrl, redacted

A, B = "a" * 64, "b" * 64


def files(*paths: str) -> list[RemoteFile]:
    return [RemoteFile(path, 10, f"tag of {path}") for path in paths]


def model(*paths: str) -> RemoteModel:
    return sort_out(files(*(f"m/{path}" for path in paths))).models["m"]


def test_files_are_sorted_into_models() -> None:
    listing = sort_out(files("b/1/model.onnx", "a/config.pbtxt", "a/2/weights.bin", "a/2/model.onnx", "a/warmup/x"))
    assert {name: list(found.files) for name, found in listing.models.items()} == {
        "a": ["2/model.onnx", "2/weights.bin", "config.pbtxt", "warmup/x"],
        "b": ["1/model.onnx"],
    }
    assert listing.models["a"].folders == ("2", "warmup")
    assert listing.problems == {}


@pytest.mark.parametrize("path", ["README.md", ".git/config", "m/.hidden", "m/1/.tmp/x", "m/1/", "m/"])
def test_what_is_hidden_or_no_file_of_a_model_is_left_out(path: str) -> None:
    assert sort_out(files(path)).models == {}


@pytest.mark.parametrize(
    ("path", "name", "reason"),
    [
        ("m/../evil/1/model.onnx", "m", "could lead out"),
        ("m/1/../../../etc/passwd", "m", "could lead out"),
        ("m//1/model.onnx", "m", "could lead out"),
        ("m/./model.onnx", "m", "could lead out"),
        ("m/1\\..\\model.onnx", "m", "backslash"),
        ("m/1/a\nb", "m", "control character"),
        ("m/1/" + "x" * 256, "m", "255 bytes"),
    ],
)
def test_a_key_that_could_lead_elsewhere_spoils_its_model_and_no_other(path: str, name: str, reason: str) -> None:
    listing = sort_out(files(path, "m/1/model.onnx", "other/1/model.onnx"))
    assert reason in listing.problems[name] and repr(path) in listing.problems[name]
    assert name not in listing.models
    assert "other" in listing.models


@pytest.mark.parametrize("path", ["../m/1/model.onnx", "/etc/passwd", "./m/1/model.onnx", "m\\n/1/model.onnx"])
def test_a_key_that_could_be_no_models_is_ignored(path: str) -> None:
    listing = sort_out(files(path, "m/1/model.onnx"))
    assert list(listing.models) == ["m"] and listing.problems == {}
    assert repr(path) in listing.ignored[0]


def test_a_name_that_is_a_file_and_a_folder_spoils_its_model() -> None:
    listing = sort_out(files("m/1", "m/1/model.onnx"))
    assert listing.problems == {"m": "'1' is both a file and a folder; remove one of them"}


ODD_TEXT = st.text(st.sampled_from(string.ascii_lowercase + "./\\\0~ é"), max_size=12)


@given(st.lists(ODD_TEXT))
def test_no_key_that_is_taken_leads_out_of_its_model(paths: list[str]) -> None:
    for name, found in sort_out(files(*paths)).models.items():
        assert name not in ("", ".", "..") and "/" not in name
        for path in found.files:
            assert not {"", ".", ".."} & set(path.split("/")) and "\\" not in path and "\0" not in path


def test_only_what_is_not_here_is_fetched() -> None:
    first = plan(model("config.pbtxt", "1/model.onnx", "1/weights.bin"), (), {}, {})
    pool = {piece.pool_name: 10 for piece in first.pieces[:2]}
    again = plan(model("config.pbtxt", "1/model.onnx", "1/weights.bin"), (), {}, pool)
    assert [piece.path for piece in again.fetch] == ["config.pbtxt"]
    assert again.fetch_bytes == 10
    assert again.snapshot == first.snapshot


def test_a_file_of_another_size_than_it_should_have_is_fetched_again() -> None:
    (piece,) = plan(model("1/model.onnx"), (), {}, {}).pieces
    assert plan(model("1/model.onnx"), (), {}, {piece.pool_name: 9}).fetch == (piece,)


def test_folders_that_are_left_out_are_neither_fetched_nor_shown() -> None:
    planned = plan(model("1/model.onnx", "2/model.onnx", "config.pbtxt"), {"1"}, {}, {})
    assert [piece.path for piece in planned.pieces] == ["2/model.onnx", "config.pbtxt"]


def test_a_file_named_like_a_folder_that_is_left_out_stays() -> None:
    assert [piece.path for piece in plan(model("1"), {"1"}, {}, {}).pieces] == ["1"]


@pytest.mark.parametrize(
    "other",
    [
        Piece("p", RemoteFile("m/p", 11, "t"), A),
        Piece("p", RemoteFile("m/p", 10, "u"), A),
        Piece("p", RemoteFile("m/q", 10, "t"), A),
        Piece("p", RemoteFile("m/p", 10, "t"), B),
    ],
)
def test_whatever_differs_has_another_name(other: Piece) -> None:
    assert other.pool_name != Piece("p", RemoteFile("m/p", 10, "t"), A).pool_name


def test_files_that_no_snapshot_and_no_plan_has_may_go() -> None:
    assert unused({"shown": 2, "fetched": 1, "old": 1, "fetched.part": 1}, {"fetched"}) == ["fetched.part", "old"]


def test_sums_are_read_from_both_kinds_of_files() -> None:
    texts = {
        "SHA256SUMS": f"{A}  config.pbtxt\n\n# a comment\n{B} *1/model.onnx\n",
        "2/SHA256SUMS": f"{A.upper()}  ./model.onnx\r\n",
        "3/model.onnx.sha256": f"{B}\n",
        "4/model.onnx.sha256": f"{A}  model.onnx\n",
    }
    assert expected_sums(texts) == {
        "config.pbtxt": A,
        "1/model.onnx": B,
        "2/model.onnx": A,
        "3/model.onnx": B,
        "4/model.onnx": A,
    }


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({"SHA256SUMS": "something else"}, "SHA256SUMS: line 1 is not a line of sha256sum"),
        ({"SHA256SUMS": f"{A[:-1]}  x"}, "line 1 is not a line"),
        ({"1/SHA256SUMS": f"{A}  ../../x"}, "'../../x' is no file of this model"),
        ({"SHA256SUMS": f"{A}  /etc/passwd"}, "'/etc/passwd' is no file of this model"),
        ({"SHA256SUMS": A}, "'' is no file of this model"),
        ({"SHA256SUMS": f"{A}  1/x", "1/SHA256SUMS": f"{B}  x"}, "different sums for 1/x"),
    ],
)
def test_sums_that_make_no_sense_say_so(texts: dict[str, str], reason: str) -> None:
    with pytest.raises(LoadFailed, match=reason):
        expected_sums(texts)


def test_what_has_a_sum_must_be_there_unless_its_folder_is_left_out() -> None:
    sums = ["1/model.onnx", "2/model.onnx", "config.pbtxt"]
    assert missing(sums, ["config.pbtxt"], ["1"]) == ["2/model.onnx"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:secret@bucket/models", "s3://…@bucket/models"),
        ("https://x/y?X-Amz-Signature=secret&a=b", "https://x/y?…"),
        ('no route to "https://x/y?sig=secret", sorry', 'no route to "https://x/y?…", sorry'),
        ("abfs://models@account.dfs.core.windows.net/a", "abfs://models@account.dfs.core.windows.net/a"),
        ("s3://bucket/models", "s3://bucket/models"),
        ("what? an error", "what? an error"),
        ("what/ever? an error", "what/ever?… an error"),
        ('"POST /v1/traces?token=secret HTTP/1.1" 200', '"POST /v1/traces?… HTTP/1.1" 200'),
    ],
)
def test_urls_are_shown_without_secrets(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    ("url", "text", "shown"),
    [
        ("s3://key:secret@bucket/m", "no bucket 'key:secret@bucket'", "no bucket '…@bucket'"),
        ("s3://key:secret@bucket/m", "'secret' is no key", "'…' is no key"),
        ("https://x/m?sig=secret", "sig=secret is too old", "… is too old"),
        ("abfs://models@account/m", "no container models", "no container models"),
        ("s3://bucket/m", "no bucket", "no bucket"),
    ],
)
def test_secrets_of_a_url_are_left_out_of_what_is_told_about_it(url: str, text: str, shown: str) -> None:
    assert RepositoryUrl(url).left_out_of(text) == shown
