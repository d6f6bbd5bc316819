"""The flow of an ensemble: which step waits for which, and whether its tensors fit together. Pure.

An ensemble is a directed acyclic graph. Its nodes are steps, each a call of one model; its edges are tensors, named in
the ensemble, of which each is written once: by the request, or by one step. Wording and rules follow Triton's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from server.models.config_fields import FieldInvalid
from server.models.config_types import EnsembleStep, ModelConfig, TensorConfig
from server.tensors import BYTES, UINT8, DataType

STEPS = "ensemble_scheduling.step"


@dataclass(frozen=True, slots=True)
class Flow:
    """The steps that some outputs need, and in which order. Steps go by their place in the configuration."""

    first: tuple[int, ...]
    """Those that need nothing but the request."""
    waits: Mapping[int, int]
    """For every step here: for how many others it waits."""
    followers: Mapping[int, tuple[int, ...]]
    """For every step here: which others wait for it."""
    results: Mapping[int, tuple[tuple[str, str], ...]]
    """For every step here: the outputs of its model that somebody reads, each with its tensor."""
    readers: Mapping[str, int]
    """For every tensor here: how often it is read, the answer included."""


def check_flow(steps: Sequence[EnsembleStep], inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Check that these steps lead from the ensemble's inputs to its outputs. Raises `FieldInvalid`."""
    writers = _writers(steps, inputs)
    read = {tensor for step in steps for _, tensor in step.inputs}
    for index, step in enumerate(steps):
        for name, tensor in step.inputs:
            if tensor not in writers and tensor not in inputs:
                raise FieldInvalid(
                    f"{STEPS}[{index}].input_map['{name}']",
                    f"reads ensemble tensor '{tensor}', which is no input of the ensemble and is written by no step",
                )
    for name in inputs:
        if name not in read:
            raise FieldInvalid(f"input['{name}']", "is not used: no step reads it")
    for name in outputs:
        if name not in writers:
            raise FieldInvalid(f"output['{name}']", "is not written by any step")
    cycle = _cycle(steps, writers)
    if cycle:
        path = " -> ".join(f"step[{index}]" for index in cycle)
        raise FieldInvalid(STEPS, f"has a cycle, in which no step can be the first: {path}")
    for index, step in enumerate(steps):
        for name, tensor in step.outputs:
            if tensor not in read and tensor not in outputs:
                raise FieldInvalid(
                    f"{STEPS}[{index}].output_map['{name}']",
                    f"writes ensemble tensor '{tensor}', which is unused: no step reads it, and it is no output; "
                    "remove the entry",
                )


def flow_to(steps: Sequence[EnsembleStep], wanted: Collection[str]) -> Flow:
    """How to get the outputs `wanted`, with those steps alone that lead to them. `check_flow` has passed the steps."""
    writers = {tensor: index for index, step in enumerate(steps) for _, tensor in step.outputs}
    needs: dict[int, set[int]] = {}
    found = [writers[tensor] for tensor in wanted]
    while found:
        index = found.pop()
        if index not in needs:
            needs[index] = {writers[tensor] for _, tensor in steps[index].inputs if tensor in writers}
            found += needs[index]
    order = sorted(needs)
    readers = Counter(tensor for index in order for _, tensor in steps[index].inputs)
    readers.update(set(wanted))
    return Flow(
        first=tuple(index for index in order if not needs[index]),
        waits={index: len(needs[index]) for index in order},
        followers={index: tuple(other for other in order if index in needs[other]) for index in order},
        results={
            index: tuple((name, tensor) for name, tensor in steps[index].outputs if readers[tensor]) for index in order
        },
        readers=dict(readers),
    )


def check_members(config: ModelConfig, steps: Sequence[EnsembleStep], members: Sequence[ModelConfig]) -> None:
    """Check that the models of the steps take and give what flows between them. Raises `FieldInvalid`."""
    batched = config.max_batch_size > 0
    written = {tensor.name: (config.name, _Tensor.of(tensor, batched)) for tensor in config.inputs}
    for index, (step, member) in enumerate(zip(steps, members, strict=True)):
        _check_names(index, step, member)
        # A model that does not batch may serve one that does, as long as the full shapes fit.
        if 0 < member.max_batch_size < config.max_batch_size and not member.split_oversize:
            raise FieldInvalid(
                "max_batch_size",
                f"allows {config.max_batch_size}, but model '{member.name}' of {STEPS}[{index}] only allows "
                f"{member.max_batch_size}",
            )
        given = {tensor.name: tensor for tensor in member.outputs}
        for name, tensor in step.outputs:
            written[tensor] = member.name, _Tensor.of(given[name], member.max_batch_size > 0)
    for index, (step, member) in enumerate(zip(steps, members, strict=True)):
        for name, tensor in step.inputs:
            writer, got = written[tensor]
            _check_fit(
                f"{STEPS}[{index}].input_map['{name}']", tensor, (writer, got), member.name, _takes(member, name)
            )
    for output in config.outputs:
        want = _Tensor.of(output, batched)
        _check_fit(f"output['{output.name}']", output.name, written[output.name], config.name, [want])


def load_order(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """The names that are keys here, each after those that it needs, as far as they are no circle; else by name."""
    order: dict[str, None] = {}
    begun: set[str] = set()
    left = sorted(needs, reverse=True)
    while left:
        name = left[-1]
        first = [] if name in begun else sorted({*needs[name]}.intersection(needs).difference(begun), reverse=True)
        begun.add(name)
        if first:
            left += first
        else:
            order[left.pop()] = None
    return list(order)


@dataclass(frozen=True, slots=True)
class _Tensor:
    """What is known of a tensor before there is one."""

    datatype: DataType
    dims: tuple[int, ...]
    """Of one row, where there are rows."""
    full: tuple[int, ...]
    """With the batch axis, where there is one."""

    @staticmethod
    def of(tensor: TensorConfig, batched: bool) -> _Tensor:
        return _Tensor(tensor.datatype, tensor.dims, (-1, *tensor.dims) if batched else tensor.dims)


def _writers(steps: Sequence[EnsembleStep], inputs: Collection[str]) -> dict[str, int]:
    """Which step writes which tensor."""
    writers: dict[str, int] = {}
    for index, step in enumerate(steps):
        for name, tensor in step.outputs:
            field = f"{STEPS}[{index}].output_map['{name}']"
            if tensor in inputs:
                raise FieldInvalid(field, f"writes ensemble tensor '{tensor}', which is an input of the ensemble")
            if tensor in writers:
                raise FieldInvalid(
                    field,
                    f"writes ensemble tensor '{tensor}', which step[{writers[tensor]}] writes, too: "
                    "a tensor can appear in an output map only once",
                )
            writers[tensor] = index
    return writers


def _cycle(steps: Sequence[EnsembleStep], writers: Mapping[str, int]) -> list[int]:
    """Steps each of which needs the next one, the first of them again at the end; [] where there is no cycle."""
    needs = {
        index: {writers[tensor] for _, tensor in step.inputs if tensor in writers} for index, step in enumerate(steps)
    }
    while free := [index for index, others in needs.items() if not others]:
        for index in free:
            del needs[index]
        for others in needs.values():
            others.difference_update(free)
    if not needs:
        return []
    path = [min(needs)]
    while path[-1] not in path[:-1]:
        path.append(min(needs[path[-1]]))
    return path[path.index(path[-1]) :]


def _check_names(index: int, step: EnsembleStep, member: ModelConfig) -> None:
    """Check that the maps of a step name the model's own tensors, and all of its inputs."""
    takes, gives = {tensor.name for tensor in member.inputs}, {tensor.name for tensor in member.outputs}
    for name, _ in step.inputs:
        if name not in takes:
            raise FieldInvalid(
                f"{STEPS}[{index}].input_map['{name}']",
                f"is no input of model '{member.name}'; it has: {', '.join(sorted(takes))}",
            )
    for name, _ in step.outputs:
        if name not in gives:
            raise FieldInvalid(
                f"{STEPS}[{index}].output_map['{name}']",
                f"is no output of model '{member.name}'; it has: {', '.join(sorted(gives))}",
            )
    for name in sorted(takes.difference(name for name, _ in step.inputs)):
        raise FieldInvalid(
            f"{STEPS}[{index}].input_map", f"lacks input '{name}' of model '{member.name}'; map it to a tensor"
        )


def _takes(member: ModelConfig, name: str) -> list[_Tensor]:
    """What may be given to a model's input: its own kind of tensor, or pictures."""
    batched = member.max_batch_size > 0
    (tensor,) = (tensor for tensor in member.inputs if tensor.name == name)
    kinds = [_Tensor.of(tensor, batched)]
    if member.preprocessing is not None and member.preprocessing.input == name:
        axis = (-1,) if batched else ()
        kinds += [_Tensor(BYTES, dims, axis + dims) for dims in ((1,), ())]
        kinds.append(_Tensor(UINT8, (-1, -1, -1), (*axis, -1, -1, -1)))
    return kinds


def _check_fit(field: str, tensor: str, written: tuple[str, _Tensor], reader: str, takes: Sequence[_Tensor]) -> None:
    writer, got = written
    kinds = [kind for kind in takes if kind.datatype is got.datatype]
    if not kinds:
        raise FieldInvalid(
            field,
            f"gets ensemble tensor '{tensor}' with an inconsistent data type: {got.datatype.name} from '{writer}', "
            f"while '{reader}' has {takes[0].datatype.name}",
        )
    if not any(_compatible(got.full, kind.full) or _compatible(got.dims, kind.dims) for kind in kinds):
        raise FieldInvalid(
            field,
            f"gets ensemble tensor '{tensor}' with an inconsistent shape: {list(got.full)} from '{writer}', "
            f"while '{reader}' has {list(kinds[0].full)}",
        )


def _compatible(some: tuple[int, ...], others: tuple[int, ...]) -> bool:
    return len(some) == len(others) and all(
        one == other or -1 in (one, other) for one, other in zip(some, others, strict=True)
    )
