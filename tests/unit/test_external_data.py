"""Where an ONNX file may hide a path, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from onnx import FunctionProto, ModelProto, SparseTensorProto, TensorProto, helper

from server.backends.external_data import NotProtobuf, external_files, locations
from server.errors import LoadFailed
from tests import onnx_models


def tensor(location: str) -> TensorProto:
    return onnx_models.external_weights(location).graph.initializer[0]


def node(**attributes: object) -> ModelProto:
    model = onnx_models.identity("FP32")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], **attributes))
    return model


def in_a_subgraph() -> ModelProto:
    return node(body=onnx_models.external_weights("here").graph)


def in_a_function() -> ModelProto:
    model = onnx_models.identity("FP32")
    model.functions.append(FunctionProto(node=[node(value=tensor("here")).graph.node[-1]]))
    model.functions[0].attribute_proto.append(helper.make_attribute("a", tensor("there")))
    return model


def sparse() -> ModelProto:
    model = onnx_models.identity("FP32")
    model.graph.sparse_initializer.append(SparseTensorProto(values=tensor("here"), indices=tensor("there")))
    return model


def in_training() -> ModelProto:
    model = onnx_models.identity("FP32")
    model.training_info.add(initialization=onnx_models.external_weights("here").graph).algorithm.node.append(
        helper.make_node("Constant", [], ["c"], value=tensor("there"))
    )
    return model


def given_twice() -> ModelProto:
    model = onnx_models.external_weights("here")
    model.graph.initializer[0].external_data.add(key="location", value="there")
    return model


PLACES: dict[str, tuple[ModelProto, set[bytes]]] = {
    "none": (onnx_models.mlp(), set()),
    "an initializer": (onnx_models.external_weights("here"), {b"here"}),
    "an attribute": (node(value=tensor("here")), {b"here"}),
    "a list of an attribute": (node(values=[tensor("here"), tensor("there")]), {b"here", b"there"}),
    "a sparse attribute": (node(value=sparse().graph.sparse_initializer[0]), {b"here", b"there"}),
    "a subgraph": (in_a_subgraph(), {b"here"}),
    "a list of subgraphs": (node(bodies=[in_a_subgraph().graph]), {b"here"}),
    "a function": (in_a_function(), {b"here", b"there"}),
    "a sparse initializer": (sparse(), {b"here", b"there"}),
    "training information": (in_training(), {b"here", b"there"}),
    "two entries of one tensor": (given_twice(), {b"here", b"there"}),
}


@pytest.mark.parametrize(("model", "found"), PLACES.values(), ids=PLACES)
def test_locations_are_found_wherever_a_tensor_may_be(model: ModelProto, found: set[bytes]) -> None:
    assert locations(model.SerializeToString()) == found


def test_parts_of_a_message_that_is_given_twice_are_all_read() -> None:
    first, second = onnx_models.external_weights("here"), onnx_models.external_weights("there")
    assert locations(first.SerializeToString() + second.SerializeToString()) == {b"here", b"there"}


def test_every_beginning_of_a_model_is_read_or_refused() -> None:
    data = in_a_function().SerializeToString()
    for length in range(len(data)):
        try:
            locations(data[:length])
        except NotProtobuf as error:
            assert str(error)  # noqa: PT017 -- some beginnings are whole messages


@pytest.mark.parametrize(
    "data",
    [
        b"\x0b\x0c",  # a group
        b"\0\0",  # field 0
        b"\x0f",  # a wire type that there is not
        b"\xff" * 11,  # a number without end
        b"\xba\x80\x80\x80\x10\x00",  # the graph's tag, plus 2 ** 32
        b"\x3a\x7f",  # longer than the file
    ],
)
def test_what_parsers_may_read_in_different_ways_is_refused(data: bytes) -> None:
    with pytest.raises(NotProtobuf):
        locations(data)


def write(folder: Path, location: str) -> Path:
    path = folder / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(onnx_models.external_weights(location).SerializeToString())
    return path


def test_files_inside_of_the_folder_are_returned(tmp_path: Path) -> None:
    path = write(tmp_path / "m", "w.bin")
    path.with_name("w.bin").touch()
    assert external_files(path, tmp_path / "m") == (path.with_name("w.bin"),)


WAYS_OUT = {
    "up": "../../secret",
    "up and down again": "../../m/../secret",
    "absolute": "/etc/passwd",
    "a link": "link",
    "below a linked folder": "linked/secret",
    "a name that another one begins with": "../../m2/secret",
}


@pytest.mark.parametrize("location", WAYS_OUT.values(), ids=WAYS_OUT)
def test_a_location_outside_of_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    path = write(tmp_path / "m", location)
    (tmp_path / "secret").touch()
    (tmp_path / "m2").mkdir()
    (tmp_path / "m2" / "secret").touch()
    (tmp_path / "m" / "1" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "m" / "1" / "linked").symlink_to(tmp_path)
    problem = f"{path}: external data '{location}' lies outside of the model's folder {tmp_path / 'm'}; "
    with pytest.raises(LoadFailed, match=re.escape(problem)):
        external_files(path, tmp_path / "m")


@pytest.mark.parametrize("location", ["nowhere.bin", "", ".", "*/_ORT_MEM_ADDR_/*"])
def test_a_location_without_a_file_is_refused(tmp_path: Path, location: str) -> None:
    path = write(tmp_path, location)
    with pytest.raises(LoadFailed, match=re.escape(f"{path}: external data '{location}' is no file")):
        external_files(path, tmp_path)


@pytest.mark.parametrize("location", ["a\0b", "loop"])
def test_a_location_that_means_nothing_is_refused(tmp_path: Path, location: str) -> None:
    path = write(tmp_path, location)
    (tmp_path / "1" / "loop").symlink_to("loop")
    with pytest.raises(LoadFailed, match=re.escape(f"{path}: external data")):
        external_files(path, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x0b"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(LoadFailed, match=re.escape(f"{path}: is no ONNX model: ")):
        external_files(path, tmp_path)


def test_files_in_onnx_runtimes_own_format_name_no_others(tmp_path: Path) -> None:
    path = tmp_path / "model.ort"
    path.write_bytes(b"\x0b")
    assert external_files(path, tmp_path) == ()
