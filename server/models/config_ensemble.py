"""The `ensemble_scheduling` of config.pbtxt: a model that is a pipeline of others. A part of `config`."""

from __future__ import annotations

from proto import model_config_pb2 as pb
from server.files import problem_of_name
from server.models.config_fields import FieldInvalid
from server.models.config_types import EnsembleSchedule, EnsembleStep
from server.models.ensemble import STEPS, check_flow

PLATFORM = "ensemble"

LATEST = (-1, 0)
"""A version that is not given is the latest, too."""

NOT_AN_ENSEMBLES = frozenset(
    {
        "backend",
        "default_model_filename",
        "instance_group",
        "model_operations",
        "model_warmup",
        "optimization",
        "parameters",
    }
)
"""Fields about how a model runs: those of an ensemble run by their own configurations."""


def is_ensemble(message: pb.ModelConfig) -> bool:
    """Whether this is the configuration of an ensemble. Raises FieldInvalid where it is only half of one."""
    scheduled = message.HasField("ensemble_scheduling")
    if message.platform == PLATFORM and not scheduled:
        raise FieldInvalid("ensemble_scheduling", f"must be set for a model whose platform is '{PLATFORM}'")
    if scheduled and message.platform != PLATFORM:
        raise FieldInvalid(
            "ensemble_scheduling", f"cannot be set for a model whose platform is not '{PLATFORM}'; set platform"
        )
    return scheduled


def read_schedule(message: pb.ModelConfig) -> EnsembleSchedule:
    """The steps, checked for what can be known without their models. Raises FieldInvalid."""
    for field, _ in message.ListFields():
        if field.name in NOT_AN_ENSEMBLES:
            raise FieldInvalid(field.name, "cannot be set for an ensemble; set it for its models, or remove it")
    for kind in ("input", "output"):
        if not getattr(message, kind):
            raise FieldInvalid(kind, f"is missing; list the {kind}s of the ensemble")
        for tensor in getattr(message, kind):
            if tensor.HasField("reshape"):
                raise FieldInvalid(f"{kind}['{tensor.name}'].reshape", "cannot be set for an ensemble; remove it")
    scheduling = message.ensemble_scheduling
    if not scheduling.step:
        raise FieldInvalid(STEPS, "is missing; an ensemble has at least one step")
    steps = tuple(_step(index, step, message.name) for index, step in enumerate(scheduling.step))
    check_flow(steps, [tensor.name for tensor in message.input], [tensor.name for tensor in message.output])
    return EnsembleSchedule(steps, scheduling.max_inflight_requests)


def _step(index: int, message: pb.ModelEnsembling.Step, ensemble: str) -> EnsembleStep:
    field = f"{STEPS}[{index}]"
    if not message.model_name:
        raise FieldInvalid(f"{field}.model_name", "is missing; name the step's model")
    if problem := problem_of_name(message.model_name):
        raise FieldInvalid(f"{field}.model_name", f"is '{message.model_name}', and {problem}")
    if message.model_name == ensemble:
        raise FieldInvalid(f"{field}.model_name", f"is '{ensemble}', the ensemble itself")
    if message.model_version < min(LATEST):
        raise FieldInvalid(
            f"{field}.model_version", f"must be a version, or -1 for the latest, not {message.model_version}"
        )
    for name in ("input_map", "output_map"):
        entries = getattr(message, name)
        if not entries:
            raise FieldInvalid(f"{field}.{name}", f"is missing; map the {name[:-4]}s of '{message.model_name}'")
        for key, tensor in sorted(entries.items()):
            if not tensor:
                raise FieldInvalid(f"{field}.{name}['{key}']", "has no value; name an ensemble tensor")
    return EnsembleStep(
        message.model_name,
        None if message.model_version in LATEST else message.model_version,
        tuple(sorted(message.input_map.items())),
        tuple(sorted(message.output_map.items())),
    )
