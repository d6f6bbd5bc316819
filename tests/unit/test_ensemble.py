"""The flow of an ensemble: what is refused and why, which steps some outputs need, and in which order."""

from __future__ import annotations

import itertools
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import tensors
from server.models.config import ModelConfig, TensorConfig
from server.models.config_fields import FieldInvalid
from server.models.config_types import EnsembleStep
from server.models.ensemble import check_flow, check_members, flow_to, load_order
from tests.fakes import model_config
from tests.pictures import preprocessing
from tests.unit.ensembling import Graph, ensemble_config, graphs, row, step

ONE = step("m", {"a": "x"}, {"b": "y"})

FAULTS: dict[str, tuple[list[EnsembleStep], list[str], list[str], str]] = {
    "reads what is not there": (
        [ONE, step("m", {"a": "ghost"}, {"b": "z"})],
        ["x"],
        ["y", "z"],
        (
            "field 'ensemble_scheduling.step[1].input_map['a']' reads ensemble tensor 'ghost', which is no input of "
            "the ensemble and is written by no step"
        ),
    ),
    "an input that is not used": ([ONE], ["x", "w"], ["y"], "field 'input['w']' is not used: no step reads it"),
    "an output that is not written": ([ONE], ["x"], ["y", "z"], "field 'output['z']' is not written by any step"),
    "an output that is an input": ([ONE], ["x"], ["y", "x"], "field 'output['x']' is not written by any step"),
    "a tensor that two steps write": (
        [ONE, ONE],
        ["x"],
        ["y"],
        (
            "field 'ensemble_scheduling.step[1].output_map['b']' writes ensemble tensor 'y', which step[0] writes, "
            "too: a tensor can appear in an output map only once"
        ),
    ),
    "a tensor that one step writes twice": (
        [step("m", {"a": "x"}, {"b": "y", "c": "y"})],
        ["x"],
        ["y"],
        (
            "field 'ensemble_scheduling.step[0].output_map['c']' writes ensemble tensor 'y', which step[0] writes, "
            "too: a tensor can appear in an output map only once"
        ),
    ),
    "an input that a step writes": (
        [step("m", {"a": "x"}, {"b": "y", "c": "x"})],
        ["x"],
        ["y"],
        (
            "field 'ensemble_scheduling.step[0].output_map['c']' writes ensemble tensor 'x', which is an input of the "
            "ensemble"
        ),
    ),
    "a tensor that nobody reads": (
        [step("m", {"a": "x"}, {"b": "y", "c": "z"})],
        ["x"],
        ["y"],
        (
            "field 'ensemble_scheduling.step[0].output_map['c']' writes ensemble tensor 'z', which is unused: no step "
            "reads it, and it is no output; remove the entry"
        ),
    ),
    "a step that waits for itself": (
        [step("m", {"a": "x", "b": "z"}, {"c": "y", "d": "z"})],
        ["x"],
        ["y"],
        "field 'ensemble_scheduling.step' has a cycle, in which no step can be the first: step[0] -> step[0]",
    ),
    "steps that wait for each other": (
        [
            ONE,
            step("m", {"a": "x", "b": "q"}, {"c": "p"}),
            step("m", {"a": "p"}, {"c": "q", "d": "z"}),
            step("m", {"a": "q"}, {"c": "r"}),
        ],
        ["x"],
        ["y", "z", "r"],
        (
            "field 'ensemble_scheduling.step' has a cycle, in which no step can be the first: step[1] -> step[2] -> "
            "step[1]"
        ),
    ),
}


@pytest.mark.parametrize(("steps", "inputs", "outputs", "problem"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_refused_by_field(
    steps: list[EnsembleStep], inputs: list[str], outputs: list[str], problem: str
) -> None:
    with pytest.raises(FieldInvalid) as caught:
        check_flow(steps, inputs, outputs)
    assert str(caught.value) == problem


@given(graphs())
def test_what_can_run_is_not_refused(graph: Graph) -> None:
    check_flow(*graph)


@given(graphs(), st.data())
def test_an_edge_back_is_a_cycle_that_is_told(graph: Graph, data: st.DataObject) -> None:
    steps, inputs, outputs = graph
    writers = {tensor: index for index, each in enumerate(steps) for _, tensor in each.outputs}
    later = data.draw(st.sampled_from(range(len(steps))))
    before, found = {later}, [later]
    while found:  # everything that the step needs, itself included
        needs = {writers[tensor] for _, tensor in steps[found.pop()].inputs if tensor in writers}
        found += needs - before
        before |= needs
    first = data.draw(st.sampled_from(sorted(before)))
    back = steps[later].outputs[0][1]
    steps[first] = replace(steps[first], inputs=(*steps[first].inputs, ("back", back)))
    with pytest.raises(FieldInvalid, match="has a cycle") as caught:
        check_flow(steps, inputs, outputs)
    told = [
        int(part.removeprefix("step[").removesuffix("]")) for part in str(caught.value).split(": ")[1].split(" -> ")
    ]
    assert told[0] == told[-1]
    for index, needed in itertools.pairwise(told):
        assert {tensor for _, tensor in steps[index].inputs} & {tensor for _, tensor in steps[needed].outputs}


@given(graphs(), st.data())
def test_every_step_that_is_needed_runs_once_and_after_what_it_reads(graph: Graph, data: st.DataObject) -> None:
    steps, inputs, outputs = graph
    wanted = data.draw(st.lists(st.sampled_from(outputs), min_size=1, unique=True))
    flow = flow_to(steps, wanted)
    random = Random(data.draw(st.integers(0, 1000)))
    there, ran = set(inputs), []
    waits, ready, unread = dict(flow.waits), list(flow.first), dict(flow.readers)
    while ready:
        index = ready.pop(random.randrange(len(ready)))
        ran.append(index)
        for _, tensor in steps[index].inputs:
            assert tensor in there
            unread[tensor] -= 1
        assert set(flow.results[index]) <= set(steps[index].outputs)
        there.update(tensor for _, tensor in flow.results[index])
        for follower in flow.followers[index]:
            waits[follower] -= 1
            if not waits[follower]:
                ready.append(follower)
    assert sorted(ran) == sorted(set(ran)) == sorted(flow.waits)
    for tensor in wanted:
        assert tensor in there
        unread[tensor] -= 1
    assert not any(unread.values())
    assert all(set(flow_to(steps, [tensor]).waits) <= set(ran) for tensor in wanted)


@given(graphs())
def test_all_outputs_need_all_steps_that_lead_anywhere(graph: Graph) -> None:
    steps, _, outputs = graph
    assert sorted(flow_to(steps, outputs).waits) == list(range(len(steps)))


def test_a_step_that_no_wanted_output_needs_is_left_out() -> None:
    steps = [ONE, step("m", {"a": "y"}, {"b": "z", "c": "w"})]
    assert flow_to(steps, ["y"]).waits == {0: 0}
    flow = flow_to(steps, ["w"])
    assert flow.waits == {0: 0, 1: 1}
    assert flow.results == {0: (("b", "y"),), 1: (("c", "w"),)}
    assert flow.readers == {"x": 1, "y": 1, "w": 1}


def member(*inputs: TensorConfig, outputs: tuple[TensorConfig, ...] = (row("b"),), **more: object) -> ModelConfig:
    return model_config(inputs, outputs, **more)  # type: ignore[arg-type]


FITS = {
    "the same": (row("a", 4), 8, row("x", 4), 8),
    "a free dimension of the model": (row("a", -1), 8, row("x", 4), 8),
    "a free dimension of the ensemble": (row("a", 4), 8, row("x", -1), 8),
    "a model that takes larger batches": (row("a", 4), 16, row("x", 4), 8),
    "a model without batches that sees the batch axis": (row("a", -1, 4), 0, row("x", 4), 8),
    "a model without batches for single rows": (row("a", 4), 0, row("x", 4), 8),
    "an ensemble without batches that has the batch axis": (row("a", 4), 8, row("x", -1, 4), 0),
}


@pytest.mark.parametrize(("takes", "its_batch", "gets", "batch"), FITS.values(), ids=FITS)
def test_tensors_that_may_fit_are_let_through(
    takes: TensorConfig, its_batch: int, gets: TensorConfig, batch: int
) -> None:
    config = ensemble_config([ONE], [gets], [row("y")], max_batch_size=batch)
    outputs = (row("b", *((-1,) if batch and not its_batch else ()), 1),)
    outputs = (row("b", 1),) if its_batch else outputs
    check_members(config, [ONE], [member(takes, outputs=outputs, max_batch_size=its_batch)])


MISFITS = {
    "another datatype": (
        [member(row("a", datatype=tensors.INT64))],
        (
            "field 'ensemble_scheduling.step[0].input_map['a']' gets ensemble tensor 'x' with an inconsistent data "
            "type: FP32 from 'e', while 'm' has INT64"
        ),
    ),
    "another shape": (
        [member(row("a", 2))],
        (
            "field 'ensemble_scheduling.step[0].input_map['a']' gets ensemble tensor 'x' with an inconsistent shape: "
            "[-1, 1] from 'e', while 'm' has [-1, 2]"
        ),
    ),
    "more dimensions": (
        [member(row("a", 1, 1))],
        (
            "field 'ensemble_scheduling.step[0].input_map['a']' gets ensemble tensor 'x' with an inconsistent shape: "
            "[-1, 1] from 'e', while 'm' has [-1, 1, 1]"
        ),
    ),
    "an output of another shape": (
        [member(row("a"), outputs=(row("b", 3),))],
        (
            "field 'output['y']' gets ensemble tensor 'y' with an inconsistent shape: [-1, 3] from 'm', while 'e' has "
            "[-1, 1]"
        ),
    ),
    "an input that the model does not have": (
        [member(row("z"))],
        "field 'ensemble_scheduling.step[0].input_map['a']' is no input of model 'm'; it has: z",
    ),
    "an output that the model does not have": (
        [member(row("a"), outputs=(row("z"),))],
        "field 'ensemble_scheduling.step[0].output_map['b']' is no output of model 'm'; it has: z",
    ),
    "an input that is not mapped": (
        [member(row("a"), row("z"))],
        "field 'ensemble_scheduling.step[0].input_map' lacks input 'z' of model 'm'; map it to a tensor",
    ),
    "a model that takes smaller batches": (
        [member(row("a"), max_batch_size=4)],
        "field 'max_batch_size' allows 8, but model 'm' of ensemble_scheduling.step[0] only allows 4",
    ),
}


@pytest.mark.parametrize(("members", "problem"), MISFITS.values(), ids=MISFITS)
def test_models_that_do_not_fit_are_refused_by_field(members: list[ModelConfig], problem: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        check_members(ensemble_config([ONE]), [ONE], members)
    assert str(caught.value) == problem


def test_a_model_that_splits_requests_takes_larger_batches() -> None:
    check_members(ensemble_config([ONE]), [ONE], [member(row("a"), max_batch_size=4, split_oversize=True)])


PICTURES = {
    "files": (row("x", 1, datatype=tensors.BYTES), True),
    "pixels": (row("x", 28, 28, 3, datatype=tensors.UINT8), True),
    "pixels of any size": (row("x", -1, -1, 1, datatype=tensors.UINT8), True),
    "what the model itself takes": (row("x", 1, 28, 28), True),
    "two files a row": (row("x", 2, datatype=tensors.BYTES), False),
    "bytes of no picture": (row("x", 28, datatype=tensors.UINT8), False),
}


@pytest.mark.parametrize(("gets", "fits"), PICTURES.values(), ids=PICTURES)
def test_a_model_that_takes_pictures_gets_them(gets: TensorConfig, fits: bool) -> None:
    member_config = member(row("a", 1, 28, 28), preprocessing=preprocessing(input="a"))
    config = ensemble_config([ONE], [gets])
    if fits:
        check_members(config, [ONE], [member_config])
    else:
        with pytest.raises(FieldInvalid, match="inconsistent shape"):
            check_members(config, [ONE], [member_config])


def test_models_are_loaded_before_what_needs_them() -> None:
    assert load_order({"b": ["z", "a"], "c": [], "a": ["z", "nowhere"], "z": []}) == ["z", "a", "b", "c"]


def test_models_that_need_each_other_have_some_order() -> None:
    assert sorted(load_order({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["d"]})) == ["a", "b", "c", "d"]


@given(st.lists(st.sets(st.integers(0, 6)), min_size=7, max_size=7))
def test_any_order_without_circles_is_kept(needs: list[set[int]]) -> None:
    named = {str(n): [str(m) for m in sorted(needs[n]) if m < n] for n in range(7)}
    order = load_order(named)
    assert sorted(order) == sorted(named)
    assert all(order.index(other) < order.index(name) for name, others in named.items() for other in others)
