"""Requests into a batch and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import tensors
from server.errors import ExecutionFailed
from server.scheduling.assembly import KEPT_LAYOUTS, LARGE_PART_BYTES, BatchLayout, InputLayout, Staging, scatter
from server.tensors import Array, DataType, byte_size

FIXED = [datatype for datatype in tensors.DATATYPES.values() if datatype is not tensors.BYTES]


def layout(*inputs: tuple[str, DataType, tuple[int, ...]], batched: bool = True) -> BatchLayout:
    return BatchLayout(
        tuple(InputLayout(name, datatype, shape, byte_size(datatype, shape)) for name, datatype, shape in inputs),
        batched,
    )


def rows_of(datatype: DataType, rows: int, *shape: int, start: int = 0) -> Array:
    """Distinct values that every datatype can hold."""
    size = rows * int(np.prod(shape, dtype=int))
    return (np.arange(start, start + size) % 100).astype(datatype.dtype).reshape(rows, *shape)


def objects(*elements: object) -> Array:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


@pytest.mark.parametrize("datatype", FIXED, ids=lambda datatype: datatype.name)
def test_rows_of_every_datatype_are_joined_in_order(datatype: DataType) -> None:
    first, second = rows_of(datatype, 2, 3), rows_of(datatype, 1, 3, start=6)
    batch = Staging().gather(layout(("x", datatype, (3,))), [2, 1], [[first.tobytes()], [second.tobytes()]])
    assert batch["x"].dtype == datatype.dtype
    np.testing.assert_array_equal(batch["x"], np.concatenate([first, second]))


@pytest.mark.parametrize("datatype", FIXED, ids=lambda datatype: datatype.name)
def test_a_single_request_of_every_datatype_has_its_shape(datatype: DataType) -> None:
    data = rows_of(datatype, 2, 3)
    batch = Staging().gather(layout(("x", datatype, (3,))), [2], [[data.tobytes()]])
    assert batch["x"].dtype == datatype.dtype
    np.testing.assert_array_equal(batch["x"], data)


def test_bytes_elements_are_joined_in_order() -> None:
    text = layout(("t", tensors.BYTES, (2,)))
    batch = Staging().gather(text, [1, 2], [[objects("a", "")], [objects("b", "c", "d", "é")]])
    assert batch["t"].tolist() == [["a", ""], ["b", "c"], ["d", "é"]]


def test_bytes_elements_of_a_single_request_have_its_shape() -> None:
    batch = Staging().gather(layout(("t", tensors.BYTES, (1, 2))), [2], [[objects("a", "b", "c", "d")]])
    assert batch["t"].tolist() == [[["a", "b"]], [["c", "d"]]]


def test_bf16_bits_are_left_as_they_are() -> None:
    bits = np.array([[0x3F80, 0xC000], [0x7FC0, 0x0001]], dtype=np.uint16)  # 1.0, -2.0, NaN, the smallest number
    parts = [[bits[:1].tobytes()], [bits[1:].tobytes()]]
    batch = Staging().gather(layout(("x", tensors.BF16, (2,))), [1, 1], parts)
    np.testing.assert_array_equal(batch["x"], bits)


def test_every_input_of_a_model_is_filled() -> None:
    two = layout(("a", tensors.INT32, (1,)), ("b", tensors.FP64, (2,)))
    a, b = rows_of(tensors.INT32, 3, 1), rows_of(tensors.FP64, 3, 2)
    batch = Staging().gather(two, [1, 2], [[a[:1].tobytes(), b[:1].tobytes()], [a[1:].tobytes(), b[1:].tobytes()]])
    np.testing.assert_array_equal(batch["a"], a)
    np.testing.assert_array_equal(batch["b"], b)


def test_typed_arrays_and_raw_bytes_can_share_a_batch() -> None:
    data = rows_of(tensors.FP32, 3, 2)
    batch = Staging().gather(layout(("x", tensors.FP32, (2,))), [1, 2], [[data[:1].tobytes()], [data[1:]]])
    np.testing.assert_array_equal(batch["x"], data)


def test_an_array_that_is_not_contiguous_is_read_row_by_row() -> None:
    data = np.asfortranarray(rows_of(tensors.FP32, 2, 3))
    batch = Staging().gather(layout(("x", tensors.FP32, (3,))), [2, 2], [[data], [data.tobytes()]])
    np.testing.assert_array_equal(batch["x"], np.concatenate([data, data]))


@pytest.mark.parametrize("requests", [1, 2], ids=["alone", "together"])
@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)], ids=str)
def test_a_dimension_of_size_zero_leaves_empty_rows(requests: int, shape: tuple[int, ...]) -> None:
    batch = Staging().gather(layout(("x", tensors.FP32, shape)), [1] * requests, [[b""]] * requests)
    assert batch["x"].shape == (requests, *shape)


def test_a_dimension_of_size_zero_leaves_empty_rows_of_text() -> None:
    batch = Staging().gather(layout(("t", tensors.BYTES, (0,))), [1, 2], [[objects()], [objects()]])
    assert batch["t"].shape == (3, 0)


@pytest.mark.parametrize("requests", [1, 3], ids=["alone", "together"])
def test_a_scalar_for_each_row_makes_a_vector(requests: int) -> None:
    values = rows_of(tensors.INT64, requests)
    batch = Staging().gather(layout(("n", tensors.INT64, ())), [1] * requests, [[v.tobytes()] for v in values])
    assert batch["n"].shape == (requests,)
    np.testing.assert_array_equal(batch["n"], values)


def test_a_model_without_a_batch_axis_gets_the_shape_as_it_is() -> None:
    data = rows_of(tensors.FP32, 2, 3)
    batch = Staging().gather(layout(("x", tensors.FP32, (2, 3)), batched=False), [1], [[data.tobytes()]])
    np.testing.assert_array_equal(batch["x"], data)


def test_a_model_without_a_batch_axis_can_take_a_scalar() -> None:
    batch = Staging().gather(layout(("x", tensors.FP32, ()), batched=False), [1], [[np.float32(7).tobytes()]])
    assert batch["x"].shape == ()
    assert batch["x"] == 7


def test_a_single_request_is_not_copied() -> None:
    data = memoryview(bytearray(rows_of(tensors.FP32, 2, 3).tobytes()))
    batch = Staging().gather(layout(("x", tensors.FP32, (3,))), [2], [[data]])
    assert np.shares_memory(batch["x"], np.frombuffer(data, dtype=np.uint8))


def test_a_single_request_in_misaligned_memory_is_copied() -> None:
    values = rows_of(tensors.FP64, 1, 4)
    shifted = memoryview(b"\0" + values.tobytes())[1:]
    batch = Staging().gather(layout(("x", tensors.FP64, (4,))), [1], [[shifted]])
    assert batch["x"].flags.aligned
    np.testing.assert_array_equal(batch["x"], values)


def test_misaligned_memory_can_join_a_batch() -> None:
    values = rows_of(tensors.FP64, 1, 4)
    shifted = memoryview(b"\0" + values.tobytes())[1:]
    batch = Staging().gather(layout(("x", tensors.FP64, (4,))), [1, 1], [[shifted], [values.tobytes()]])
    np.testing.assert_array_equal(batch["x"], np.concatenate([values, values]))


class Batches:
    """One lane's staging memory and some batches for it."""

    def __init__(self) -> None:
        self.staging = Staging()

    def gather(self, layout: BatchLayout, requests: int) -> Array:
        one = rows_of(tensors.FP32, 1, *layout.inputs[0].row_shape).tobytes()
        return self.staging.gather(layout, [1] * requests, [[one]] * requests)["x"]


def test_the_next_batch_uses_the_same_memory() -> None:
    batches, x = Batches(), layout(("x", tensors.FP32, (3,)))
    first = batches.gather(x, 4)
    assert np.shares_memory(first, batches.gather(x, 3))


def test_a_smaller_batch_after_a_larger_one_has_its_own_number_of_rows() -> None:
    batches, x = Batches(), layout(("x", tensors.FP32, (3,)))
    assert [len(batches.gather(x, 5)), len(batches.gather(x, 2))] == [5, 2]


def test_memory_grows_to_the_next_power_of_two_and_no_further() -> None:
    batches, x = Batches(), layout(("x", tensors.FP32, (3,)))
    five = batches.gather(x, 5)
    assert np.shares_memory(five, batches.gather(x, 8))
    assert not np.shares_memory(five, batches.gather(x, 9))


def test_another_layout_has_memory_of_its_own() -> None:
    batches = Batches()
    three, four = layout(("x", tensors.FP32, (3,))), layout(("x", tensors.FP32, (4,)))
    first = batches.gather(three, 2)
    assert not np.shares_memory(first, batches.gather(four, 2))
    assert np.shares_memory(first, batches.gather(three, 2))


def test_a_layout_is_forgotten_when_others_have_been_used_since() -> None:
    batches = Batches()
    used, unused = layout(("x", tensors.FP32, (3,))), layout(("x", tensors.FP32, (3,)))
    kept, forgotten = batches.gather(used, 2), batches.gather(unused, 2)
    for size in range(KEPT_LAYOUTS - 1):
        batches.gather(layout(("x", tensors.FP32, (size + 10,))), 2)
        batches.gather(used, 2)
    assert np.shares_memory(kept, batches.gather(used, 2))
    assert not np.shares_memory(forgotten, batches.gather(unused, 2))


def test_outputs_are_split_by_rows_without_a_copy() -> None:
    y, z = rows_of(tensors.FP32, 6, 2), rows_of(tensors.INT64, 6)
    parts = scatter(["y", "z"], [y, z], [1, 3, 2])
    assert [of_y.shape for of_y, _ in parts] == [(1, 2), (3, 2), (2, 2)]
    assert all(np.shares_memory(of_y, y) and np.shares_memory(of_z, z) for of_y, of_z in parts)
    np.testing.assert_array_equal(np.concatenate([of_z for _, of_z in parts]), z)


@pytest.mark.parametrize("shape", [(2, 5), (4, 5), (), (0, 5)], ids=str)
def test_another_number_of_rows_than_went_in_fails_the_batch(shape: tuple[int, ...]) -> None:
    right, wrong = np.zeros((3, 1)), np.zeros(shape)
    with pytest.raises(ExecutionFailed) as caught:
        scatter(["right", "wrong"], [right, wrong], [1, 2])
    assert str(caught.value) == (f"the model returned shape {list(shape)} for output 'wrong' of a batch of 3 rows")


@pytest.mark.parametrize("rows", [[3], [1, 2]])
def test_a_batch_is_filled_up_with_its_last_row(rows: list[int]) -> None:
    x, text = rows_of(tensors.FP32, 3, 2), objects("a", "b", "c")
    two = layout(("x", tensors.FP32, (2,)), ("t", tensors.BYTES, ()))
    cuts = [slice(sum(rows[:i]), sum(rows[: i + 1])) for i in range(len(rows))]
    batch = Staging().gather(two, rows, [[x[cut].tobytes(), text[cut]] for cut in cuts], 5)
    np.testing.assert_array_equal(batch["x"], x[[0, 1, 2, 2, 2]])
    assert batch["t"].tolist() == ["a", "b", "c", "c", "c"]


def test_what_came_of_filling_up_is_nobodys() -> None:
    y = rows_of(tensors.FP32, 8, 2)
    for rows in ([3], [1, 4]):
        parts = scatter(["y"], [y], rows, 8)
        np.testing.assert_array_equal(np.concatenate([part for (part,) in parts]), y[: sum(rows)])


def test_a_filled_batch_must_come_back_whole() -> None:
    with pytest.raises(ExecutionFailed, match="of a batch of 8 rows"):
        scatter(["y"], [np.zeros((3, 1))], [3], 8)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=12))
def test_rows_in_are_rows_out_for_any_split(rows: list[int]) -> None:
    starts = np.cumsum([0, *rows[:-1]])
    requests = [rows_of(tensors.UINT16, n, 2, start=int(s)) for n, s in zip(rows, starts, strict=True)]
    x = layout(("x", tensors.UINT16, (2,)))
    batch = Staging().gather(x, rows, [[request.tobytes()] for request in requests])
    answers = scatter(["y"], [batch["x"] * 2], rows)
    for request, (answer,) in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(answer, request * 2)


class Counting:
    """Rows that are made where they lie: each holds its own number."""

    def __init__(self, first: int) -> None:
        self.first = first

    def write_into(self, rows: Array) -> None:
        for i, row in enumerate(rows):
            row[...] = self.first + i

    def part(self, start: int, count: int) -> Counting:
        raise AssertionError("nothing is split here")


@pytest.mark.parametrize("row", [3, LARGE_PART_BYTES // 4])
def test_rows_that_write_themselves_stand_between_those_that_are_copied(row: int) -> None:
    ready = rows_of(tensors.FP32, 2, row)
    parts = [[ready[:1].tobytes()], [Counting(500)], [memoryview(ready[1:].tobytes())], [Counting(700)]]

    batch = Staging().gather(layout(("x", tensors.FP32, (row,))), [1, 2, 1, 1], parts)

    expected = [ready[0], [500] * row, [501] * row, ready[1], [700] * row]
    np.testing.assert_array_equal(batch["x"], np.array(expected, np.float32))


@pytest.mark.parametrize("batched", [True, False])
def test_rows_that_write_themselves_may_be_alone_beside_another_input(batched: bool) -> None:
    two = layout(("x", tensors.FP32, (2,)), ("y", tensors.FP32, (1,)), batched=batched)
    data = rows_of(tensors.FP32, 1, 1, start=7)

    batch = Staging().gather(two, [1], [[Counting(500), data.tobytes()]])

    assert batch["x"].tolist() == ([[500, 500]] if batched else [500, 500])
    assert batch["y"].tolist() == ([[7]] if batched else [7])


def test_a_batch_of_a_power_of_two_takes_no_more_memory_than_it_needs() -> None:
    batches, x = Batches(), layout(("x", tensors.FP32, (3,)))
    four = batches.gather(x, 4)
    assert not np.shares_memory(four, batches.gather(x, 5))


def test_as_many_layouts_are_kept_as_may_be() -> None:
    batches = Batches()
    layouts = [layout(("x", tensors.FP32, (size + 1,))) for size in range(KEPT_LAYOUTS)]
    first = batches.gather(layouts[0], 2)
    for other in layouts[1:]:
        batches.gather(other, 2)
    assert np.shares_memory(first, batches.gather(layouts[0], 2))


def test_text_of_three_requests_is_joined_in_order() -> None:
    text = layout(("t", tensors.BYTES, ()))
    batch = Staging().gather(text, [2, 1, 1], [[objects("a", "b")], [objects("c")], [objects("d")]])
    assert batch["t"].tolist() == ["a", "b", "c", "d"]


def test_where_nobody_wants_an_output_each_request_has_none() -> None:
    assert scatter([], [], [1, 2]) == [(), ()]


@pytest.mark.parametrize("datatype", [tensors.FP32, tensors.BYTES], ids=lambda datatype: datatype.name)
def test_requests_and_rows_that_are_not_as_many_are_not_cut_to_the_shorter(datatype: DataType) -> None:
    data = [[objects("a") if datatype is tensors.BYTES else rows_of(datatype, 1)]] * 2
    with pytest.raises(ValueError, match="zip"):
        Staging().gather(layout(("x", datatype, ())), [1, 1, 1], data)


def test_outputs_and_names_that_are_not_as_many_are_not_cut_to_the_shorter() -> None:
    with pytest.raises(ValueError, match="zip"):
        scatter(["y", "z"], [rows_of(tensors.FP32, 3)], [1, 2])
