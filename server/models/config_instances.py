"""Instances of a model: how many, and on which devices, as `instance_group` says."""

from __future__ import annotations

from proto import model_config_pb2 as pb
from server.models.config_fields import MAX_THREADS, FieldInvalid
from server.models.config_types import DeviceKind, LoadSettings

_KINDS = {
    pb.ModelInstanceGroup.KIND_AUTO: DeviceKind.AUTO,
    pb.ModelInstanceGroup.KIND_CPU: DeviceKind.CPU,
    pb.ModelInstanceGroup.KIND_GPU: DeviceKind.GPU,
}

MAX_INSTANCES = 1024
"""Of one model on one device: each is a session and a thread, and a slip of the pen must not take the machine."""


def read_instances(message: pb.ModelConfig, auto_kind: DeviceKind) -> tuple[int, DeviceKind, tuple[int, ...]]:
    """Count, kind and GPUs of all groups together; the message's groups come back with their defaults filled in. Raises
    `FieldInvalid`."""
    groups = message.instance_group or [message.instance_group.add()]
    for index, group in enumerate(groups):
        field = f"instance_group[{index}]"
        if group.count < 0:
            raise FieldInvalid(f"{field}.count", f"must be at least 0 (0 is the default, 1), not {group.count}")
        if group.kind not in _KINDS:
            raise FieldInvalid(f"{field}.kind", "KIND_MODEL is not supported; use KIND_AUTO, KIND_CPU or KIND_GPU")
        if group.kind == pb.ModelInstanceGroup.KIND_CPU and group.gpus:
            raise FieldInvalid(f"{field}.gpus", "cannot go with KIND_CPU; remove one of the two")
        if any(gpu < 0 for gpu in group.gpus) or len(set(group.gpus)) < len(group.gpus):
            raise FieldInvalid(f"{field}.gpus", f"must be different numbers of at least 0, not {list(group.gpus)}")
        if (group.kind, tuple(group.gpus)) != (groups[0].kind, tuple(groups[0].gpus)):
            raise FieldInvalid(field, "must have the kind and gpus of the first group; mixed groups are not supported")
        group.name = group.name or f"{message.name}_{index}"
        group.count = group.count or 1
    kind, gpus = _KINDS[groups[0].kind], tuple(groups[0].gpus)
    for group in groups:
        if kind is DeviceKind.AUTO:
            group.kind = next(value for value, known in _KINDS.items() if known is auto_kind)
    count = sum(group.count for group in groups)
    if count > MAX_INSTANCES:
        raise FieldInvalid("instance_group", f"may have {MAX_INSTANCES} instances together, not {count}")
    return count, kind, gpus


def check_threads(settings: LoadSettings) -> None:
    """Raise `FieldInvalid` where the sessions of a model would have more threads than may be."""
    sessions = 1 if settings.share_session else settings.instance_count
    for key in ("intra_op_thread_count", "inter_op_thread_count"):
        threads = sessions * int(settings.parameters.get(key, "0"))
        if threads > MAX_THREADS:
            raise FieldInvalid(
                f"parameters['{key}']",
                f"comes to {threads} threads for {sessions} sessions, and {MAX_THREADS} are allowed; lower it, the "
                "instances or share_session",
            )
