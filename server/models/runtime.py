"""What a configuration decides about one session: `LoadSettings` to `SessionOptions`. Pure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from server.backends.base import SessionOptions
from server.models.config_accelerators import execution_providers
from server.models.config_types import LoadSettings
from server.models.placement import arena_shrinkage

SESSION_PREFIX = "session."


def session_options(
    settings: LoadSettings,
    *,
    device: int | None,
    instances: int,
    cores: int,
    folder: Path,
    op_library: Callable[[str], Path],
) -> SessionOptions:
    """The options of a session on a GPU, or on the CPU where `device` is None.

    Threads share the cores evenly among all of the model's instances, unless the configuration says otherwise.
    `op_library` finds a file of the model's folder, and raises LoadFailed where it cannot be had.
    """
    parameters = settings.parameters
    providers = execution_providers(settings, device)
    return SessionOptions(
        intra_op_threads=int(parameters.get("intra_op_thread_count", "0")) or max(1, cores // instances),
        inter_op_threads=int(parameters.get("inter_op_thread_count", "0")) or 1,
        parallel_operators=parameters.get("execution_mode", "0") == "1",
        memory_arena=parameters.get("enable_mem_arena", "1") == "1",
        memory_pattern=parameters.get("enable_mem_pattern", "1") == "1",
        graph_optimization_level=settings.graph_optimization_level,
        entries=tuple((key, value) for key, value in parameters.items() if key.startswith(SESSION_PREFIX)),
        arena_shrinkage=arena_shrinkage(settings, device),
        op_libraries=tuple(map(op_library, settings.op_libraries)),
        cache_optimized_model=parameters.get("optimized_model_cache", "false") == "true",
        folder=folder,
        device=device,
        providers=tuple((name, tuple(options.items())) for name, options in providers),
        cuda_graphs=device is not None and settings.cuda_graphs,
        pinned_memory=settings.pinned_memory,
    )
