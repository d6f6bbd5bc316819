"""The run of zeros that tells a bad session from bad requests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from server import tensors
from server.errors import LoadFailed
from server.models.config import ModelConfig, TensorConfig
from server.models.execution import empty_costs
from server.models.probe import Probe, working_probe
from server.scheduling.costs import CostTable
from server.tensors import Array
from tests.fakes import PuppetSession, fp32, model_config

Y = TensorConfig("y", tensors.FP32, (2,))
CONFIG = model_config([TensorConfig("x", tensors.FP32, (2,))], [Y])


def session(y: float, seen: list[Mapping[str, Array]] | None = None) -> PuppetSession:
    """Answers every row with two values of `y`; fails where it is negative."""

    def function(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if y < 0:
            raise RuntimeError("boom")
        if seen is not None:
            seen.append({name: array.copy() for name, array in inputs.items()})
        return {"y": np.full((1, 2), y, np.float32)}

    return PuppetSession([fp32("x", -1, 2)], [fp32("y", -1, 2)], function)


def find(
    config: ModelConfig, puppet: PuppetSession, *, must_work: bool = False, costs: CostTable | None = None
) -> Probe | None:
    return working_probe(config, 1, puppet, costs or empty_costs(config, puppet), must_work=must_work)


def test_every_input_is_one_row_of_zeros_in_the_models_own_shape() -> None:
    inputs = [
        TensorConfig("a", tensors.FP16, (6,), reshape=(2, 3)),
        TensorConfig("b", tensors.BF16, (1,)),
        TensorConfig("c", tensors.BYTES, (2,)),
    ]
    seen: list[Mapping[str, Array]] = []
    assert find(model_config(inputs, [Y]), session(1, seen))
    (arrays,) = seen
    assert {name: (array.shape, array.dtype.str) for name, array in arrays.items()} == {
        "a": ((1, 2, 3), "<f2"),
        "b": ((1, 1), "<u2"),
        "c": ((1, 2), "|O"),
    }
    assert arrays["c"].tolist() == [["", ""]]
    assert not arrays["a"].any()


def test_without_a_batch_axis_the_shape_is_the_whole() -> None:
    seen: list[Mapping[str, Array]] = []
    assert find(model_config([TensorConfig("x", tensors.INT8, (3, 2))], [Y], max_batch_size=0), session(1, seen))
    assert [array.shape for arrays in seen for array in arrays.values()] == [(3, 2)]


def test_a_free_dimension_has_no_zeros() -> None:
    config = model_config([TensorConfig("x", tensors.FP32, (2, -1))], [Y])
    assert find(config, session(0), must_work=True) is None


def test_a_probe_is_a_run_that_has_just_succeeded() -> None:
    works = session(1)
    probe = find(CONFIG, works)
    assert probe
    probe()
    assert works.shapes == 2 * [{"x": (1, 2)}]


def test_what_was_just_measured_with_zeros_is_not_run_again() -> None:
    works = session(1)
    costs = empty_costs(CONFIG, works)
    for size in costs.sizes:
        costs.profile(size, 1.0)
    probe = find(CONFIG, works, costs=costs)
    assert probe
    assert works.shapes == []
    probe()
    assert works.shapes == [{"x": (1, 2)}]


FAIL_ON_NAN = model_config([TensorConfig("x", tensors.FP32, (2,))], [Y], parameters={"fail_on_nan": "true"})


@pytest.mark.parametrize(("config", "y", "problem"), [(CONFIG, -1, "boom"), (FAIL_ON_NAN, np.nan, "gave NaN")])
def test_what_fails_for_zeros_has_no_probe_or_cannot_be_loaded_again(
    config: ModelConfig, y: float, problem: str
) -> None:
    assert find(config, session(y)) is None
    with pytest.raises(LoadFailed, match=f"a run with zeros fails as before: .*{problem}"):
        find(config, session(y), must_work=True)


def test_nan_is_an_honest_answer_where_it_does_not_fail() -> None:
    assert find(CONFIG, session(np.nan))
