"""Loads with files on the wire: large contents are viewed, and everything is what protobuf makes of it."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from google.protobuf.message import DecodeError

from proto import grpc_service_pb2 as pb
from server.errors import InvalidRequest
from server.frontends.access_rules import rule_of
from server.frontends.load_codec import LARGE_BYTES, decode_load, file_prefix

LARGE = random.Random(1).randbytes(LARGE_BYTES + 1)
Parameter = pb.ModelRepositoryParameter
CONFIG = {"config": Parameter(string_param="{}")}
FILE = Parameter(bytes_param=LARGE)

CASES: dict[str, Mapping[str, Parameter]] = {
    "nothing": {},
    "small": {**CONFIG, "file:1/model.onnx": Parameter(bytes_param=b"\0\1")},
    "large": {**CONFIG, "file:1/model.onnx": FILE},
    "several": {**CONFIG, "file:a": FILE, "file:b": Parameter(bytes_param=b""), "file:ü": FILE},
    "of another type": {"config": Parameter(string_param="x" * LARGE_BYTES * 2), "file:a": FILE},
    "a file of another type": {"file:a": Parameter(string_param="x" * LARGE_BYTES * 2)},
    "of another name": {"files": FILE},
}


@pytest.mark.parametrize("parameters", CASES.values(), ids=CASES)
def test_a_load_is_what_protobuf_makes_of_it(parameters: Mapping[str, Parameter]) -> None:
    whole = pb.RepositoryModelLoadRequest(repository_name="r", model_name="m", parameters=parameters)
    load = decode_load(whole.SerializeToString())
    for key, content in load.contents.items():
        load.request.parameters[key].bytes_param = bytes(content)
    assert load.request == whole


SEED = pb.RepositoryModelLoadRequest(
    model_name="m", parameters={**CONFIG, "file:a": Parameter(bytes_param=b"contents"), "b": Parameter(int64_param=7)}
).SerializeToString()


def test_whatever_becomes_of_a_message_it_is_read_as_protobuf_reads_it() -> None:
    chance, viewed, refused = random.Random(7), 0, 0
    for _ in range(3000):
        message = bytearray(SEED + SEED[chance.randrange(len(SEED)) :] * chance.randrange(2))
        for _ in range(chance.randrange(3)):
            message[chance.randrange(len(message))] = chance.choice([0, 8, 10, 18, 26, 34, 42, 128, 255])
        whole = bytes(message)
        try:
            expected = pb.RepositoryModelLoadRequest.FromString(whole)
        except DecodeError:
            refused += 1
            with pytest.raises(InvalidRequest):
                decode_load(whole, large_bytes=4)
            continue
        load = decode_load(whole, large_bytes=4)
        viewed += bool(load.contents)
        for key, content in load.contents.items():
            load.request.parameters[key].bytes_param = bytes(content)
        assert load.request == expected
    assert min(viewed, refused) > 100


def test_who_decides_about_a_load_sees_all_its_parameters() -> None:
    message = pb.RepositoryModelLoadRequest(model_name="m", parameters=CASES["several"]).SerializeToString()
    question = rule_of("RepositoryModelLoad").question(message)
    assert (question.scope, question.changes) == ("m", True)
    assert question.details == tuple(sorted(CASES["several"]))


def test_only_large_files_are_viewed_and_none_is_copied() -> None:
    message = pb.RepositoryModelLoadRequest(parameters=CASES["several"] | CASES["of another type"]).SerializeToString()
    load = decode_load(message)
    assert sorted(load.contents) == ["file:a", "file:ü"]
    assert all(content.obj is message for content in load.contents.values())


@pytest.mark.parametrize("content", [b"", b"\0\1", LARGE])
def test_what_is_appended_is_a_parameter(content: bytes) -> None:
    start = pb.RepositoryModelLoadRequest(model_name="m", parameters=CONFIG).SerializeToString()
    message = start + file_prefix("file:ü", len(content)) + content
    expected = {**CONFIG, "file:ü": Parameter(bytes_param=content)}
    assert pb.RepositoryModelLoadRequest.FromString(message) == pb.RepositoryModelLoadRequest(
        model_name="m", parameters=expected
    )


def entry(*parts: bytes) -> bytes:
    """An entry of the parameters, made by hand, which is large."""
    content = b"".join(parts)
    return b"\x1a" + length(content) + content


def length(content: bytes) -> bytes:
    return bytes((len(content) & 0x7F | 0x80, len(content) >> 7 & 0x7F | 0x80, len(content) >> 14))


BYTES_PARAM = b"\x22" + length(LARGE) + LARGE
KEY, VALUE = b"\x0a\x06file:a", b"\x12" + length(BYTES_PARAM) + BYTES_PARAM


@pytest.mark.parametrize("parts", [(VALUE, KEY), (KEY, KEY, VALUE), (KEY, VALUE, VALUE)])
def test_what_no_library_writes_is_read_all_the_same(parts: tuple[bytes, ...]) -> None:
    load = decode_load(entry(*parts))
    found = dict(load.contents) or {key: value.bytes_param for key, value in load.request.parameters.items()}
    assert found == {"file:a": LARGE}


WHOLE = entry(KEY, VALUE)


@pytest.mark.parametrize(
    "message",
    [
        WHOLE[:-1],
        WHOLE + b"\x1a",
        WHOLE + b"\xff" * 11,
        WHOLE + b"\x0b",
        entry(b"\x0a\x01\xff", VALUE),
        entry(KEY + WHOLE[:-1]),
    ],
)
def test_a_broken_message_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidRequest, match="is not a RepositoryModelLoadRequest"):
        decode_load(message)
