"""Where an ONNX file may hide a path, and what is refused."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import FunctionProto, ModelProto, SparseTensorProto, TensorProto, helper

from server.backends import external_data
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


# --- files that are made to cost time and memory ---


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    low = value & 0x7F
    return bytes([low]) if value < 0x80 else bytes([low | 0x80]) + varint(value >> 7)


def in_graph(content: bytes) -> bytes:
    return field(7, content)


IRRELEVANT = st.one_of(
    st.builds(lambda n, value: varint(n << 3) + varint(value), st.integers(1, 3000), st.integers(0, 2**64 - 1)),
    st.builds(lambda n, value: varint(n << 3 | 5) + value, st.integers(1, 3000), st.binary(min_size=4, max_size=4)),
    st.builds(lambda n, value: varint(n << 3 | 1) + value, st.integers(1, 3000), st.binary(min_size=8, max_size=8)),
    st.builds(field, st.integers(30, 3000), st.binary(max_size=300)),
    st.builds(field, st.sampled_from([2, 3, 4]), st.binary(max_size=300)),
    st.builds(lambda value: b"\x12\x83\x00" + value, st.binary(min_size=3, max_size=3)),  # a length in too many bytes
)


@given(before=st.lists(IRRELEVANT), between=st.lists(IRRELEVANT), after=st.lists(IRRELEVANT))
def test_a_location_is_found_between_any_other_fields(
    before: list[bytes], between: list[bytes], after: list[bytes]
) -> None:
    graph = onnx_models.external_weights("here").graph.SerializeToString()
    inner = b"".join(between) + graph + b"".join(after)
    assert locations(b"".join(before) + in_graph(inner) + b"".join(after)) == {b"here"}


@pytest.mark.parametrize(
    "tiny",
    [in_graph(field(1, b"") * 200_000), in_graph(field(1, field(5, b"\x40\x01" * 200_000)))],
    ids=["empty nodes", "an attribute of many numbers"],
)
def test_what_a_file_has_very_many_of_takes_no_memory(tiny: bytes) -> None:
    tracemalloc.start()
    try:
        assert locations(tiny) == set()
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_file_of_too_many_messages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "MAX_FIELDS", 1000)
    node = field(1, field(5, bytes([9 << 3 | 2, 12]) + bytes(12)))
    assert locations(in_graph(node * 400)) == set()
    with pytest.raises(NotProtobuf, match="it has more than 1000 fields"):
        locations(in_graph(node * 600))


def test_a_file_of_too_many_locations_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "MAX_FILES", 3)
    tensors = [field(5, tensor(str(i)).SerializeToString()) for i in range(4)]
    assert locations(in_graph(b"".join(tensors[:3]))) == {b"0", b"1", b"2"}
    with pytest.raises(NotProtobuf, match="more than 3 files"):
        locations(in_graph(b"".join(tensors)))


def nested(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on."""
    graph = onnx_models.external_weights("here").graph.SerializeToString()
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))
    return in_graph(graph)


def test_graphs_may_nest_as_deeply_as_protobuf_reads_them() -> None:
    assert locations(nested(30)) == {b"here"}
    with pytest.raises(NotProtobuf, match="more than 100 messages deep"):
        locations(nested(50))
    with pytest.raises(NotProtobuf, match="more than 100 messages deep"):
        locations(nested(2000))


def test_a_path_of_any_length_is_refused_in_a_short_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, "w" * 1_000_000)
    with pytest.raises(LoadFailed, match=r"model\.onnx: external data 'www") as refused:
        external_files(path, tmp_path)
    assert len(str(refused.value)) < 2100
