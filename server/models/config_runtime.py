"""The `parameters` of config.pbtxt that go to ONNX Runtime as text, and what they become there.

ONNX Runtime takes any `session.*` entry and ignores those that it does not know, and most values that it does not
understand. Only entries that are known to do something are taken here. Those that name files, write files or change
the file format are left out, for a configuration is no key to the disk; so is `session.set_denormal_as_zero`, which
changes threads of ONNX Runtime's own but none of the lanes', where most of a batch is computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from server.backends.base import SessionOptions
from server.models.config_types import LoadSettings

SHRINKAGE = "memory.enable_memory_arena_shrinkage"
SESSION_PREFIX = "session."


class Form(NamedTuple):
    """What a parameter's text must look like."""

    pattern: str
    text: str
    """The same, for people: what follows "must be"."""

    def accepts(self, value: str) -> bool:
        """Whether the whole of `value` has this form."""
        return re.fullmatch(self.pattern, value, re.ASCII) is not None


_SWITCH = Form("[01]", "0 or 1")
_NATURAL = Form("[0-9]{1,9}", "an integer of at least 0")

RUNTIME_PARAMETERS: dict[str, Form] = {
    SHRINKAGE: Form(
        r"(cpu:0|gpu:[0-9]{1,3})(;(cpu:0|gpu:[0-9]{1,3}))*", "cpu:0, gpu:N, or several with a semicolon between them"
    ),
    **dict.fromkeys(
        (
            "session.allow_released_opsets_only",
            "session.disable_aot_function_inlining",
            "session.disable_cpu_ep_fallback",
            "session.disable_double_qdq_remover",
            "session.disable_prepacking",
            "session.disable_quant_qdq",
            "session.enable_quant_qdq_cleanup",
            "session.force_spinning_stop",
            "session.inter_op.allow_spinning",
            "session.intra_op.allow_spinning",
            "session.qdqisint8allowed",
            "session.strict_shape_type_inference",
            "session.use_device_allocator_for_initializers",
            "session.x64quantprecision",
        ),
        _SWITCH,
    ),
    "session.dynamic_block_base": _NATURAL,
    "session.graph_optimizations_loop_level": Form("[012]", "0, 1 or 2"),
    "session.intra_op_thread_affinities": Form(
        r"[0-9]+([,-][0-9]+)*(;[0-9]+([,-][0-9]+)*)*",
        "processors such as 1;2 or 1-4;5-8, counted from 1, for each thread but the first",
    ),
    "session.qdq_matmulnbits_accuracy_level": Form("[0-4]", "0 to 4"),
}
"""Keys of `parameters` that ONNX Runtime takes as text, with the form of their values."""


def session_options(
    settings: LoadSettings, *, cores: int, folder: Path, op_library: Callable[[str], Path]
) -> SessionOptions:
    """What a configuration decides about a session.

    Threads share the cores evenly among a model's instances, unless the configuration says otherwise. `op_library`
    finds a file of the model's folder, and raises LoadFailed where it cannot be had.
    """
    parameters = settings.parameters
    return SessionOptions(
        intra_op_threads=int(parameters.get("intra_op_thread_count", "0")) or max(1, cores // settings.instance_count),
        inter_op_threads=int(parameters.get("inter_op_thread_count", "0")) or 1,
        parallel_operators=parameters.get("execution_mode", "0") == "1",
        memory_arena=parameters.get("enable_mem_arena", "1") == "1",
        memory_pattern=parameters.get("enable_mem_pattern", "1") == "1",
        graph_optimization_level=settings.graph_optimization_level,
        entries=tuple((key, value) for key, value in parameters.items() if key.startswith(SESSION_PREFIX)),
        arena_shrinkage=parameters.get(SHRINKAGE, ""),
        op_libraries=tuple(map(op_library, settings.op_libraries)),
        cache_optimized_model=parameters.get("optimized_model_cache", "false") == "true",
        folder=folder,
    )
