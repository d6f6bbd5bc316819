"""The depth experiment: a fair comparison, many networks at once as if each were alone, and what is told of them."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from training.experiments import depth, depth_report
from training.experiments.depth import Design, Result, Shape
from training.nets.deep_sigmoid import CLASSES, UNITS, DeepSigmoid

DESIGN = dataclasses.replace(
    depth.QUICK,
    starts=("plain",),
    depths=(1, 2),
    twins=(2,),
    width=8,
    learning_rates=(0.1, 1.0),
    steps=5,
    validation=10,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def network(shape: Shape) -> DeepSigmoid:
    return DeepSigmoid(nn.Identity(), UNITS, [shape.width] * shape.depth, CLASSES)


def invented_digits(count: int = 40) -> depth.Samples:
    labels = torch.randint(CLASSES, (count,))
    return depth.Samples(torch.rand(count, UNITS), labels, torch.rand(20, UNITS), labels[:20])


def result(start: str, layers: int, seed: int, accuracy: float, twin_of: int | None = None) -> Result:
    return Result(start, layers, 8, twin_of, 2000 + layers, 100, seed, 0.1, 0.5, accuracy)


RESULTS = [
    result("plain", 1, 0, 0.80),
    result("plain", 1, 1, 0.90),
    result("plain", 2, 0, 0.10),
    result("plain", 2, 1, 0.10),
    result("plain", 1, 0, 0.70, twin_of=2),
    result("plain", 1, 1, 0.72, twin_of=2),
]


@pytest.mark.parametrize("shape", [Shape(1, 7), Shape(4, 5)], ids=str)
def test_a_shapes_parameters_are_its_networks(shape: Shape) -> None:
    assert shape.parameters == sum(parameter.numel() for parameter in network(shape).parameters())


@pytest.mark.parametrize("layers", depth.FULL.twins)
def test_a_twin_is_shallow_and_as_large_within_a_part_in_two_hundred(layers: int) -> None:
    deep = Shape(layers, depth.FULL.width)
    shallow = depth.twin(deep)
    assert (shallow.depth, shallow.twin_of) == (1, layers)
    assert abs(shallow.parameters / deep.parameters - 1) < 1 / 200


def test_labelled_digits_are_few_nested_and_never_those_of_the_validation() -> None:
    few, more = (set(depth.choose_batches(depth.FULL, 1437, count)[0].flatten().tolist()) for count in (100, 300))
    assert len(few) == 100 and len(more) == 300 and few < more
    everything = depth.choose_batches(depth.FULL, 1437, 1000)
    assert everything.shape == (3, 600, 32) and everything.max() < 1437 - depth.FULL.validation
    assert not torch.equal(everything[0], everything[1])


def test_scores_side_by_side_are_each_networks_own() -> None:
    networks, x = [network(Shape(3, 6)) for _ in range(2)], torch.rand(5, UNITS)
    scores = depth.forward(*depth.side_by_side(networks, 3, copies=2), x.expand(4, -1, -1))
    for place, one in enumerate((networks[0], networks[0], networks[1], networks[1])):
        assert torch.allclose(scores[place], one(x), atol=1e-6)


def test_training_side_by_side_is_training_alone() -> None:
    """With one rate there is nothing to choose: each seed's accuracy is that of a plain loop with torch's optimiser."""
    digits, shape = invented_digits(), Shape(2, 8)
    design = dataclasses.replace(DESIGN, learning_rates=(1.0,), steps=40)
    networks = [network(shape) for _ in range(design.seeds)]
    together = depth.fine_tune(design, digits, "plain", shape, networks, labelled=20)
    batches = depth.choose_batches(design, 40, 20)
    for seed, alone in enumerate(networks):
        optimizer = torch.optim.SGD(alone.parameters(), lr=1.0, momentum=depth.MOMENTUM)
        for step in range(design.steps):
            optimizer.param_groups[0]["lr"] = min(1.0, 2 * (1 - step / design.steps))
            chosen = batches[seed, step]
            optimizer.zero_grad()
            functional.cross_entropy(alone(digits.units[chosen]), digits.labels[chosen]).backward()
            optimizer.step()
        for mine, units, labels in (
            (together[seed].validation_accuracy, digits.units[-10:], digits.labels[-10:]),
            (together[seed].held_out_accuracy, digits.held_out_units, digits.held_out_labels),
        ):
            assert mine == pytest.approx((alone(units).argmax(dim=1) == labels).float().mean().item())


def test_the_validation_digits_choose_one_learning_rate_for_all_seeds() -> None:
    digits, shape = invented_digits(), Shape(1, 8)
    networks = [network(shape) for _ in range(DESIGN.seeds)]
    each = {
        rate: depth.fine_tune(dataclasses.replace(DESIGN, learning_rates=(rate,)), digits, "plain", shape, networks, 20)
        for rate in DESIGN.learning_rates
    }
    means = {rate: sum(one.validation_accuracy for one in results) for rate, results in each.items()}
    chosen = depth.fine_tune(DESIGN, digits, "plain", shape, networks, 20)
    assert chosen == each[max(means, key=lambda rate: means[rate])]


def test_starts_differ_in_the_hidden_layers_only_and_the_seed_decides_them() -> None:
    digits, shape = invented_digits(), Shape(2, 8)
    starts = {start: depth.begin(start, shape, 1, digits, 1) for start in depth.FULL.starts}
    outputs = [one.output.weight for one in starts.values()]
    assert all(torch.equal(weight, outputs[0]) for weight in outputs)
    hidden = [one.hidden[0].weight for one in starts.values()]
    assert len({weight.detach().numpy().tobytes() for weight in hidden}) == len(starts)
    again = depth.begin("dbn", shape, 1, digits, 1)
    assert torch.equal(again.hidden[1].weight, starts["dbn"].hidden[1].weight)


def test_every_network_is_a_line_of_the_csv() -> None:
    lines = list(csv.DictReader(io.StringIO(depth_report.to_csv(RESULTS))))
    assert [line["held_out_accuracy"] for line in lines] == ["0.8", "0.9", "0.1", "0.1", "0.7", "0.72"]
    assert lines[0]["twin_of"] == "" and lines[-1]["twin_of"] == "2"


def test_the_tables_have_means_and_deviations_deep_beside_shallow() -> None:
    text = depth_report.to_markdown(DESIGN, RESULTS, seconds=1.0)
    by_depth, twins = text.split("## Deep against shallow")
    assert "| 100 | 1 | 2,001 | 85.0 ± 7.1 |" in by_depth and "| 100 | 2 | 2,002 | 10.0 ± 0.0 |" in by_depth
    assert twins.splitlines()[-2:] == [
        "| 100 | 2 × 8 | 2,002 | 10.0 ± 0.0 |",
        "| 100 | 1 × 8 | 2,001 | 71.0 ± 1.4 |",
    ]


def test_the_whole_experiment_runs_and_leaves_three_files(tmp_path: Path) -> None:
    said: list[str] = []
    results = depth.run(DESIGN, said.append)
    assert len(results) == 3 * DESIGN.seeds and len(said) == 3
    assert results == depth.run(DESIGN, said.append)
    depth_report.write(tmp_path, DESIGN, results, seconds=1.0)
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accuracy.png", "report.md", "results.csv"]


def test_the_real_one_asks_what_the_lecture_asks() -> None:
    assert Design() == depth.FULL
    assert depth.FULL.depths == (1, 2, 3, 4, 5, 6, 7) and depth.FULL.seeds >= 3
