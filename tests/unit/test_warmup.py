"""What happens to a version between its session and READY."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from server import tensors
from server.errors import ConfigInvalid, LoadFailed
from server.models.config import ModelConfig, TensorConfig
from server.models.config_types import Fill, WarmupInput, WarmupSample
from server.models.warmup import FEW_RUNS_SECONDS, MANY_RUNS, MAX_SECONDS, measure, warm_up
from server.scheduling.costs import CostTable
from server.tensors import Array
from tests.fakes import PuppetSession, fp32, model_config

FILES = {"row.bin": np.array([1, 2], np.float32).tobytes(), "short.bin": bytes(7), "text.bin": b"\2\0\0\0hi\0\0\0\0"}


def read_file(filename: str, most_bytes: int) -> bytes:
    if filename not in FILES:
        raise LoadFailed(f"/models/m/warmup/{filename}: no such file")
    return FILES[filename]


class Model:
    """y = 2x, which remembers what it was given."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.batches: list[dict[str, Array]] = []
        self.session = PuppetSession([fp32("x", -1, 2)], [fp32("y", -1, 2)], self._run)

    def warm_up(self, config: ModelConfig, may_run: int = 1000) -> CostTable:
        """Raises where it runs more often than it may."""

        def may_go_on() -> None:
            if len(self.batches) == may_run:
                raise LoadFailed("given up")

        return warm_up(config, 1, self.session, "m/config.pbtxt", read_file, may_go_on)

    def _run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if self.fails:
            raise RuntimeError(self.fails)
        self.batches.append({name: array.copy() for name, array in inputs.items()})
        return {"y": inputs["x"]}


def config(
    *samples: WarmupSample, x: TensorConfig | None = None, max_batch_size: int = 4, pad_to_bucket: bool | None = None
) -> ModelConfig:
    return model_config(
        [x or TensorConfig("x", tensors.FP32, (2,))],
        [TensorConfig("y", tensors.FP32, (2,))],
        max_batch_size=max_batch_size,
        pad_to_bucket=pad_to_bucket,
        warmup=samples,
    )


def sample(fill: Fill = Fill.ZERO, filename: str = "", **more: Any) -> WarmupSample:
    data = WarmupInput("x", more.pop("datatype", tensors.FP32), more.pop("dims", (2,)), fill, filename)
    return WarmupSample(**({"name": "s", "batch_size": 1, "inputs": (data,)} | more))


def test_every_bucket_is_run_and_measured() -> None:
    model = Model()
    costs = model.warm_up(config())
    assert costs.calibrated
    assert {line.rows for line in costs.lines()} == {1, 2, 4}
    assert all(0 < line.typical_seconds <= line.worst_seconds < 1 for line in costs.lines())
    assert {batch["x"].shape for batch in model.batches} == {(1, 2), (2, 2), (4, 2)}
    assert not any(batch["x"].any() for batch in model.batches)


def test_a_model_that_does_not_batch_is_measured_as_it_is() -> None:
    model = Model()
    costs = model.warm_up(config(max_batch_size=0))
    assert [line.rows for line in costs.lines()] == [1]
    assert {batch["x"].shape for batch in model.batches} == {(2,)}


def test_a_model_of_text_is_measured_on_empty_text() -> None:
    model = Model()
    assert model.warm_up(config(x=TensorConfig("x", tensors.BYTES, (2,)))).calibrated
    assert model.batches[0]["x"].tolist() == [["", ""]]


def test_inputs_of_free_dimensions_cannot_be_made_up() -> None:
    model = Model()
    assert not model.warm_up(config(x=TensorConfig("x", tensors.FP32, (-1,)))).calibrated
    assert model.batches == []


def test_inputs_of_free_dimensions_are_taken_from_the_samples_in_turns() -> None:
    model = Model()
    free = TensorConfig("x", tensors.FP32, (-1,))
    assert model.warm_up(config(sample(dims=(3,)), sample(dims=(5,)), x=free)).calibrated
    assert {batch["x"].shape for batch in model.batches} == {(rows, n) for rows in (1, 2, 4) for n in (3, 5)}


@pytest.mark.parametrize(
    ("dims", "max_batch_size"), [((2**40,), 4), ((2,), 2_000_000_000)], ids=["a giant row", "very many rows"]
)
def test_batches_that_no_machine_holds_are_not_made_to_be_measured(
    dims: tuple[int, ...], max_batch_size: int, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model()
    settings = config(x=TensorConfig("x", tensors.FP32, dims), max_batch_size=max_batch_size)
    assert not model.warm_up(settings).calibrated
    assert model.batches == []
    assert "could not be measured before it serves" in caplog.text


def test_a_model_that_fails_on_zeros_is_served_unmeasured(caplog: pytest.LogCaptureFixture) -> None:
    costs = Model(fails="division by zero").warm_up(config())
    assert not costs.calibrated
    assert list(costs.lines()) == []
    assert "model 'm' version 1 could not be measured" in caplog.text
    assert "division by zero" in caplog.text


def test_a_model_of_too_many_rows_is_served_unmeasured(caplog: pytest.LogCaptureFixture) -> None:
    model = Model()
    model.session.function = lambda inputs: {"y": np.concatenate([inputs["x"], inputs["x"]])}
    assert not model.warm_up(config()).calibrated
    assert "of a batch of 1 rows" in caplog.text


def test_a_sample_runs_as_often_and_in_as_large_a_batch_as_it_says() -> None:
    model = Model()
    model.warm_up(config(sample(batch_size=3, count=5)))
    assert [len(batch["x"]) for batch in model.batches[:6]] == [3] * 5 + [1]


def test_a_sample_is_filled_up_where_batches_are() -> None:
    model = Model()
    model.warm_up(config(sample(batch_size=3), pad_to_bucket=True))
    assert len(model.batches[0]["x"]) == 4


def test_a_sample_that_fails_makes_the_load_fail() -> None:
    with pytest.raises(LoadFailed) as caught:
        Model(fails="boom").warm_up(config(sample(name="first light")))
    assert str(caught.value) == ("failed to run warmup sample 'first light': model 'm' version 1 failed to run: boom")


@pytest.mark.parametrize("runs", [0, 3, 7])
def test_a_warm_up_is_given_up_between_two_runs(runs: int) -> None:
    model = Model()
    with pytest.raises(LoadFailed, match="given up"):
        model.warm_up(config(sample(count=5)), may_run=runs)
    assert len(model.batches) == runs


def test_a_sample_of_a_file_has_its_data_in_every_row() -> None:
    model = Model()
    model.warm_up(config(sample(Fill.FILE, "row.bin", batch_size=2)))
    assert model.batches[0]["x"].tolist() == [[1, 2], [1, 2]]


def test_a_file_of_text_has_lengths_before_the_elements() -> None:
    model = Model()
    text = TensorConfig("x", tensors.BYTES, (2,))
    model.warm_up(config(sample(Fill.FILE, "text.bin", datatype=tensors.BYTES), x=text))
    assert model.batches[0]["x"].tolist() == [["hi", ""]]


@pytest.mark.parametrize("datatype", [t for t in tensors.DATATYPES.values() if t is not tensors.BYTES], ids=str)
def test_random_data_are_small_numbers_of_every_datatype(datatype: tensors.DataType) -> None:
    model = Model()
    many = sample(Fill.RANDOM, datatype=datatype, dims=(64,))
    model.warm_up(config(many, x=TensorConfig("x", datatype, (64,))))
    values = model.batches[0]["x"]
    if datatype is tensors.BF16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    assert values.shape == (1, 64)
    assert 0 <= values.min() < values.max() <= 1


WRONG = {
    "too short a file": (
        sample(Fill.FILE, "short.bin"),
        (
            "m/config.pbtxt: field 'model_warmup[0].inputs['x']': file 'short.bin' has 7 bytes, but FP32 [2] takes 8: "
            "one row, repeated for the whole batch"
        ),
    ),
    "a file that is not there": (
        sample(Fill.FILE, "none.bin"),
        "m/config.pbtxt: field 'model_warmup[0].inputs['x']': /models/m/warmup/none.bin: no such file",
    ),
    "a file that is no text": (
        sample(Fill.FILE, "short.bin", datatype=tensors.BYTES),
        (
            "m/config.pbtxt: field 'model_warmup[0].inputs['x']': file 'short.bin' does not hold 2 BYTES elements: "
            "3 bytes are left over where a 4-byte element length is expected"
        ),
    ),
    "an input that the model does not have": (
        sample(inputs=(WarmupInput("z", tensors.FP32, (2,), Fill.ZERO),)),
        (
            "m/config.pbtxt: field 'model_warmup[0]' is no request that the model takes: "
            "unexpected inference input 'z' for model 'm'"
        ),
    ),
    "more rows than a machine has memory for": (
        sample(dims=(2**62, 2**62)),
        "m/config.pbtxt: field 'model_warmup[0]': 1 rows of 85070591730234615865843651857942052864 bytes are more than",
    ),
    "more texts than a machine has memory for": (
        sample(dims=(2**40,), datatype=tensors.BYTES),
        "1 rows of 70368744177664 bytes are more than the 1073741824 of the largest warm-up",
    ),
    "another shape": (sample(dims=(3,)), "Expected [-1,2], got [1,3]"),
    "another datatype": (sample(datatype=tensors.INT8), "data-type is 'INT8', but model 'm' expects 'FP32'"),
    "no inputs": (sample(inputs=()), "missing required input(s) ['x']"),
}


@pytest.mark.parametrize(("wrong", "reason"), WRONG.values(), ids=WRONG)
def test_a_wrong_sample_is_refused_by_file_and_field(wrong: WarmupSample, reason: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        Model().warm_up(config(wrong))
    assert reason in str(caught.value)
    assert "field 'model_warmup[0]" in str(caught.value)


class Runs:
    """Says how long runs take, and counts them by rows."""

    def __init__(self, seconds_per_row: float, warming: float = 0.0) -> None:
        self.seconds_per_row = seconds_per_row
        self.warming = warming
        self.counts: dict[int, int] = {}

    def __call__(self, rows: int, turn: int) -> float:
        self.counts[rows] = self.counts.get(rows, 0) + 1
        return rows * self.seconds_per_row + (0 if turn else self.warming)


def test_a_quick_model_is_measured_many_times_and_its_first_runs_are_left_out() -> None:
    runs = Runs(1e-4, warming=0.1)
    costs = CostTable((1, 2, 4))
    spent = measure(costs, runs)
    assert runs.counts == {1: MANY_RUNS + 1, 2: MANY_RUNS + 1, 4: MANY_RUNS + 1}
    assert costs.worst(4) == 4e-4
    assert spent == pytest.approx(0.3 + 7e-4 * (MANY_RUNS + 1))


def test_a_slow_model_is_measured_less_often() -> None:
    runs = Runs(0.1)
    spent = measure(CostTable((1, 2, 4)), runs)
    assert runs.counts == {1: 4, 2: 4, 4: 4}
    assert spent <= FEW_RUNS_SECONDS


def test_a_very_slow_model_runs_once_and_that_counts() -> None:
    runs = Runs(1.0)
    costs = CostTable((1, 2, 4))
    spent = measure(costs, runs)
    assert runs.counts == {1: 1, 2: 1, 4: 1}
    assert costs.calibrated
    assert costs.typical(4) == 4
    assert spent <= MAX_SECONDS


def test_a_model_that_cannot_be_measured_in_time_is_not() -> None:
    runs = Runs(4.0)
    costs = CostTable((1, 2, 4, 8, 16))
    spent = measure(costs, runs)
    assert not costs.calibrated
    assert list(costs.lines()) == []
    assert spent <= MAX_SECONDS


def test_a_run_that_was_held_up_is_left_out() -> None:
    def stalls_once(rows: int, turn: int) -> float:
        return 0.05 if turn == 3 else rows * 1e-3

    costs = CostTable((1, 2))
    measure(costs, stalls_once)
    assert [(line.worst_seconds, line.runs) for line in costs.lines()] == [(1e-3, MANY_RUNS - 1), (2e-3, MANY_RUNS - 1)]
