"""Where a model's instances run: the configuration's wish, against what the machine has. Pure."""

from __future__ import annotations

from server.backends.base import Devices
from server.models.config_accelerators import CUDA, TENSORRT
from server.models.config_fields import FieldInvalid
from server.models.config_runtime import OLDER_CUDA_PARAMETERS, SHRINKAGE
from server.models.config_types import DeviceKind, LoadSettings


def place(settings: LoadSettings, devices: Devices) -> tuple[int | None, ...]:
    """The GPU of each instance, in order; None is the CPU.

    KIND_GPU takes the GPUs that are listed, or all, with `count` instances on each. KIND_AUTO does so where there is
    a GPU and else takes the CPU; GPUs that it lists must be there. Raises FieldInvalid with what is missing.
    """
    if settings.device_kind is DeviceKind.CPU:
        _refuse_gpu_options(settings)
        return (None,) * settings.instance_count
    optional = settings.device_kind is DeviceKind.AUTO and not settings.gpus
    problem = _problem(settings, devices)
    if problem and not optional:
        raise FieldInvalid(
            "instance_group", f"asks for a GPU, and {problem}; or use KIND_CPU, or KIND_AUTO without gpus"
        )
    if problem:
        return (None,) * settings.instance_count
    gpus = settings.gpus or tuple(range(devices.gpu_count))
    if "tensorrt" in settings.accelerator_names and TENSORRT not in devices.providers:
        raise FieldInvalid(
            "optimization.execution_accelerators.gpu_execution_accelerator",
            "asks for tensorrt, and this ONNX Runtime has no TensorRT provider; install onnxruntime-gpu, or remove it",
        )
    _check_shrinkage(settings, gpus)
    return tuple(gpu for gpu in gpus for _ in range(settings.instance_count))


def arena_shrinkage(settings: LoadSettings, device: int | None) -> str:
    """The arenas to shrink, of those that a session on `device` has: ONNX Runtime fails a run for any other."""
    wanted = settings.parameters.get(SHRINKAGE, "").split(";")
    return ";".join(arena for arena in wanted if arena in ("cpu:0", f"gpu:{device}"))


def _problem(settings: LoadSettings, devices: Devices) -> str:
    """What keeps this model off the GPU; empty: nothing."""
    if CUDA not in devices.providers:
        return "this ONNX Runtime has no CUDA provider; install the extra 'gpu' instead of 'cpu'"
    if devices.gpu_count == 0:
        return f"{devices.gpu_problem or 'this machine has none'}; check the driver with nvidia-smi"
    missing = [gpu for gpu in settings.gpus if gpu >= devices.gpu_count]
    if missing:
        return f"GPU {missing[0]} is not there: this machine has {devices.gpu_count}, counted from 0; correct gpus"
    return ""


def _refuse_gpu_options(settings: LoadSettings) -> None:
    """On the CPU they would do nothing."""
    asked = [f"parameters['{key}']" for key in OLDER_CUDA_PARAMETERS if key in settings.parameters]
    if settings.accelerators:
        asked.append("optimization.execution_accelerators.gpu_execution_accelerator")
    if settings.cuda_graphs:
        asked.append("optimization.cuda.graphs")
    if asked:
        raise FieldInvalid(asked[0], "needs a GPU, and instance_group says KIND_CPU; remove one of them")
    _check_shrinkage(settings, ())


def _check_shrinkage(settings: LoadSettings, gpus: tuple[int, ...]) -> None:
    for arena in settings.parameters.get(SHRINKAGE, "").split(";"):
        device, _, number = arena.partition(":")
        if device == "gpu" and int(number) not in gpus:
            raise FieldInvalid(f"parameters['{SHRINKAGE}']", f"names {arena}, where no instance runs; remove it")
