"""Top classes as strings."""

from __future__ import annotations

import numpy as np
import pytest

from server.models.classification import classify

LABELS = ("cat", "dog", "owl")


def test_the_best_class_comes_first() -> None:
    result = classify(np.array([[0.25, 0.5, 0.125]], dtype=np.float32), 2, LABELS, batched=True)
    assert result.tolist() == [[b"0.500000:1:dog", b"0.250000:0:cat"]]


def test_every_row_has_its_own_classes() -> None:
    scores = np.array([[1, 2, 3], [3, 2, 1]], dtype=np.int32)
    assert classify(scores, 1, LABELS, batched=True).tolist() == [[b"3:2:owl"], [b"3:0:cat"]]


def test_without_a_batch_axis_there_is_one_row() -> None:
    result = classify(np.array([1, 3, 2], dtype=np.uint8), 2, LABELS, batched=False)
    assert result.shape == (2,)
    assert result.tolist() == [b"3:1:dog", b"2:2:owl"]


def test_the_rest_of_each_row_is_flattened() -> None:
    scores = np.arange(12, dtype=np.float64).reshape(2, 3, 2)
    assert classify(scores, 1, (), batched=True).tolist() == [[b"5.000000:5"], [b"11.000000:5"]]


def test_there_are_never_more_entries_than_classes() -> None:
    assert classify(np.zeros((2, 3)), 99, (), batched=True).shape == (2, 3)


def test_a_row_without_classes_has_no_entries() -> None:
    assert classify(np.zeros((2, 0)), 1, (), batched=True).shape == (2, 0)


def test_classes_beyond_the_labels_have_none() -> None:
    scores = np.array([[1, 2]], dtype=np.int64)
    assert classify(scores, 2, ("only",), batched=True).tolist() == [[b"2:1", b"1:0:only"]]


def test_an_empty_label_is_none() -> None:
    assert classify(np.array([[5]]), 1, ("",), batched=True).tolist() == [[b"5:0"]]


def test_a_label_may_be_in_any_script() -> None:
    assert classify(np.array([[5]]), 1, ("кот",), batched=True).tolist() == [["5:0:кот".encode()]]


def test_equal_scores_keep_the_order_of_their_classes() -> None:
    scores = np.array([[7, 9, 7, 9]], dtype=np.int16)
    assert classify(scores, 4, (), batched=True).tolist() == [[b"9:1", b"9:3", b"7:0", b"7:2"]]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, b"0.100000"), (-1.5, b"-1.500000"), (1e20, b"100000002004087734272.000000"), (1e-9, b"0.000000")],
)
def test_floating_point_has_six_decimals(value: float, text: bytes) -> None:
    assert classify(np.array([[value]], dtype=np.float32), 1, (), batched=True)[0, 0] == text + b":0"


def test_large_integers_are_ranked_exactly() -> None:
    scores = np.array([[2**63 - 2, 2**63 - 1]], dtype=np.int64)
    assert classify(scores, 1, (), batched=True).tolist() == [[f"{2**63 - 1}:1".encode()]]


def test_unsigned_integers_are_ranked_exactly() -> None:
    scores = np.array([[0, 2**64 - 2, 2**64 - 1]], dtype=np.uint64)
    ranked = classify(scores, 3, (), batched=True)[0]
    assert [entry.rsplit(b":")[1] for entry in ranked] == [b"2", b"1", b"0"]


def test_the_lowest_integer_is_ranked_last() -> None:
    scores = np.array([[-128, 127, 0]], dtype=np.int8)
    assert classify(scores, 3, (), batched=True).tolist() == [[b"127:1", b"0:2", b"-128:0"]]


def test_what_is_not_a_number_is_ranked_last() -> None:
    scores = np.array([[np.nan, -np.inf, 1.0]])
    assert classify(scores, 3, (), batched=True).tolist() == [[b"1.000000:2", b"-inf:1", b"nan:0"]]
