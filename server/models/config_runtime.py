"""The `parameters` of config.pbtxt that go to ONNX Runtime as text.

ONNX Runtime takes any `session.*` entry and ignores those that it does not know, and most values that it does not
understand. Only entries that are known to do something are taken here. Those that name files, write files or change
the file format are left out, for a configuration is no key to the disk; so is `session.set_denormal_as_zero`, which
changes threads of ONNX Runtime's own but none of the lanes', where most of a batch is computed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

SHRINKAGE = "memory.enable_memory_arena_shrinkage"


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
    "cudnn_conv_algo_search": Form("[012]", "0 (exhaustive), 1 (heuristic) or 2 (default)"),
    "gpu_mem_limit": Form("[0-9]{1,18}", "a number of bytes"),
    "arena_extend_strategy": Form("[01]", "0 (next power of two) or 1 (same as requested)"),
    "do_copy_in_default_stream": Form("[01]", "0 or 1"),
}
"""Keys of `parameters` that ONNX Runtime takes as text, with the form of their values."""

OLDER_CUDA_PARAMETERS: dict[str, tuple[str, ...]] = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "gpu_mem_limit": (),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "do_copy_in_default_stream": (),
}
"""Parameters that Triton had before the accelerator `cuda`, with the words that their numbers stand for."""
