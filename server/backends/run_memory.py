"""`--run-memory-limit`: what the runs of all models on the CPU may hold together.

ONNX Runtime has no limit for a session. It has one for an arena, and sessions of one process may share an arena:
tensors between operators and outputs that are not sent yet lie there; weights and a request's tensors do not.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

_KEEPS_WHAT_IS_ASKED = 1
"""An arena grows by what a run asks for, and not by powers of two: it comes as near to its limit as it can."""

SHRINK = "memory.enable_memory_arena_shrinkage"
IDENTITY = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
"""An ONNX file: y = x, of one FP32. ONNX Runtime shrinks an arena at the end of a run, of whichever model."""


class RunMemory:
    """The arena that all sessions of the process share. There can be one; it stays until the process ends."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        growth = {"max_mem": limit_bytes, "arena_extend_strategy": _KEEPS_WHAT_IS_ASKED}
        ort.create_and_register_allocator(place, ort.OrtArenaCfg(growth))
        settings = ort.SessionOptions()
        self.share(settings)
        self._session = ort.InferenceSession(IDENTITY, settings, providers=["CPUExecutionProvider"])
        self._shrinking = ort.RunOptions()
        self._shrinking.add_run_config_entry(SHRINK, "cpu:0")

    def share(self, settings: ort.SessionOptions) -> None:
        """Have a session with these settings use the arena, whatever they say of an arena of its own."""
        settings.add_session_config_entry("session.use_env_allocators", "1")

    def give_back(self) -> None:
        """Free what the arena keeps for runs to come: it may lie in pieces too small for the one that asks."""
        self._session.run([], {"x": np.zeros(1, np.float32)}, self._shrinking)
