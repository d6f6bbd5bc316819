"""What is kept, under which key, and how it travels to a store at a distance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some_numpy
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.cache import keys, wire
from server.cache.entries import Entry, copy_of, size_of
from server.cache.local import LocalStore
from server.messages import OutputTensor, RequestedOutput, TensorSpec
from server.tensors import BYTES, FP32, INT64

CAPACITY = 6000


def entry(elements: int = 1, value: float = 1.0) -> Entry:
    return Entry(1, (OutputTensor("y", FP32, (1, elements), np.full((1, elements), value, np.float32)),))


def texts(*values: object) -> Entry:
    array = np.empty((1, len(values)), dtype=object)
    array[0] = values
    return Entry(1, (OutputTensor("y", BYTES, array.shape, array),))


class Caching(RuleBasedStateMachine):
    """The store beside a list that is searched and added up anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.store = LocalStore(CAPACITY)
        self.model: list[tuple[bytes, float, int]] = []  # key, value, size; what was used last is last
        self.evictions = self.not_stored = 0

    @rule(key=st.sampled_from(b"abcdefgh"), elements=st.sampled_from([1, 10, 500, 1000, 2000]), value=st.floats(0, 9))
    def put(self, key: int, elements: int, value: float) -> None:
        kept = entry(elements, value)
        size = size_of(kept)
        self.store.put(bytes([key]), kept)
        if size > CAPACITY:
            self.not_stored += 1
            return
        self.model = [line for line in self.model if line[0] != bytes([key])]
        self.model.append((bytes([key]), value, size))
        while sum(size for _, _, size in self.model) > CAPACITY:
            self.model.pop(0)
            self.evictions += 1

    @rule(key=st.sampled_from(b"abcdefgh"))
    def get(self, key: int) -> None:
        found = self.store.get(bytes([key]))
        expected = [line for line in self.model if line[0] == bytes([key])]
        assert (found is not None) == bool(expected)
        if found is not None:
            assert found.outputs[0].data.ravel()[0] == np.float32(expected[0][1])
            self.model.remove(expected[0])
            self.model.append(expected[0])

    @invariant()
    def counts(self) -> None:
        counts = self.store.counts()
        assert counts.bytes == sum(size for _, _, size in self.model) <= CAPACITY
        assert (counts.entries, counts.evictions) == (len(self.model), self.evictions)
        assert counts.not_stored == self.not_stored


TestCaching = Caching.TestCase
TestCaching.settings = settings(max_examples=40, deadline=None)


def test_what_is_kept_shares_no_memory_and_cannot_be_changed() -> None:
    batch = np.arange(8, dtype=np.float32).reshape(4, 2)
    store = LocalStore(CAPACITY)
    store.put(b"k", Entry(1, (OutputTensor("y", FP32, (1, 2), batch[1:2]),)))
    batch[:] = -1
    found = store.get(b"k")
    assert found is not None and found.outputs[0].data.tolist() == [[2.0, 3.0]]
    with pytest.raises(ValueError, match="read-only"):
        found.outputs[0].data[0, 0] = 5


def test_size_counts_contents_and_what_lies_around_them() -> None:
    assert size_of(entry(1000)) - size_of(entry(0)) == 4000
    assert size_of(entry(0)) > 0
    assert size_of(texts(b"x" * 100)) - size_of(texts(b"")) == 100
    assert size_of(texts(*[b""] * 10)) - size_of(texts()) >= 10 * 33  # an empty bytes object has 33 bytes


def test_elements_that_are_no_bytes_are_kept_as_they_are_answered() -> None:
    kept = copy_of(texts("é", b"\xff", 5))
    assert kept.outputs[0].data.tolist() == [["é".encode(), b"\xff", b"5"]]


SPECS = (TensorSpec("a", "FP32", (1, 2)), TensorSpec("b", "BYTES", (1,)))
BASE: dict[str, Any] = {
    "identity": b"m/1#0",
    "specs": SPECS,
    "outputs": (),
    "buffers": (b"12345678", b"\x01\x00\x00\x00x"),
}


def key_of(**changes: Any) -> bytes | None:
    said = BASE | changes
    return keys.key(keys.beginning(said["identity"], said["specs"], said["outputs"]), said["buffers"])


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": b"m/1#1"},
        {"specs": (SPECS[0]._replace(name="c"), SPECS[1])},
        {"specs": (SPECS[0]._replace(datatype="INT32"), SPECS[1])},
        {"specs": (SPECS[0]._replace(shape=(2, 1)), SPECS[1])},
        {"outputs": (RequestedOutput("y"),)},
        {"outputs": (RequestedOutput("y", 2),)},
        {"buffers": (b"12345679", b"\x01\x00\x00\x00x")},
        {"buffers": (b"123456", b"78\x01\x00\x00\x00x")},
        {"buffers": (None, b"\x01\x00\x00\x00x")},
        {"buffers": (b"", b"\x01\x00\x00\x00x")},
    ],
    ids=str,
)
def test_all_that_decides_an_answer_decides_the_key(changes: dict[str, Any]) -> None:
    assert key_of(**changes) != key_of()
    assert key_of(**changes) == key_of(**changes)


def test_the_same_contents_have_one_key_however_they_came() -> None:
    text = np.array([b"x"], dtype=object)
    assert key_of(buffers=(memoryview(b"12345678"), text)) == key_of()
    numbers = np.frombuffer(b"12345678", np.float32)
    assert key_of(buffers=(numbers.reshape(1, 2), text)) == key_of()


def test_what_is_not_at_hand_has_no_key() -> None:
    assert key_of(buffers=(b"12345678", object())) is None


ENTRIES = st.lists(
    st.one_of(
        some_numpy.arrays(np.float32, some_numpy.array_shapes(min_dims=0, min_side=0, max_side=4)).map(
            lambda array: OutputTensor("f", FP32, array.shape, array)
        ),
        some_numpy.arrays(np.int64, some_numpy.array_shapes(max_side=4)).map(
            lambda array: OutputTensor("ä", INT64, array.shape, array)
        ),
        st.lists(st.binary(max_size=8), max_size=4).map(lambda values: texts(*values).outputs[0]),
    ),
    max_size=3,
).map(lambda outputs: Entry(5, tuple(outputs)))


@given(ENTRIES)
def test_an_entry_comes_back_as_it_was_sent(sent: Entry) -> None:
    got = wire.decode(wire.encode(sent))
    assert got.rows == 5
    for before, after in zip(sent.outputs, got.outputs, strict=True):
        assert (before.name, before.datatype, before.shape) == (after.name, after.datatype, after.shape)
        assert after.data.shape == after.shape and not after.data.flags.writeable
        if before.datatype is BYTES:
            assert before.data.tolist() == after.data.tolist()
        else:
            assert before.data.tobytes() == after.data.tobytes()


@given(ENTRIES, st.data())
def test_what_is_no_entry_is_refused(sent: Entry, data: st.DataObject) -> None:
    good = wire.encode(sent)
    cut = data.draw(st.integers(0, len(good) - 1))
    for bad in (good[:cut], good + b"x", b"xxxx" + good[4:]):
        with pytest.raises(ValueError, match=r"."):
            wire.decode(bad)
    flipped = bytearray(good)
    flipped[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        got = wire.decode(bytes(flipped))
    except ValueError:
        return
    for tensor in got.outputs:
        assert tensor.data.shape == tensor.shape


@pytest.mark.parametrize(
    "header",
    [b"5", b"[1, 5]", b'[1, [["y", "FP32", [-1], 4]]]', b'[true, []]', b'[1, [["y", "FP31", [], 0]]]', b"[" * 5000,
     b'[1, [["y", "BYTES", [1099511627776], 0]]]', b'[1, [["y", "FP32", [4611686018427387904, 4], 0]]]',
     b'[1, [["y", "FP32", ' + str([1] * 40).encode() + b", 4]]]"],
    ids=range(9),
)  # fmt: skip
def test_a_header_that_cannot_be_is_refused(header: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        wire.decode(b"cvy1" + len(header).to_bytes(4, "little") + header + b"\0\0\0\0")


def test_the_store_keeps_what_was_asked_for_last() -> None:
    store = LocalStore(2 * size_of(entry()))
    for key in (b"a", b"b"):
        store.put(key, entry())
    assert store.get(b"a") is not None
    store.put(b"c", entry())
    assert [key for key in (b"a", b"b", b"c") if store.get(key)] == [b"a", b"c"]
