"""Tests of this folder need an NVIDIA GPU and onnxruntime-gpu; elsewhere they are skipped, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.backends.cuda import CUDA
from server.backends.onnx import OnnxBackend


def missing_gpu() -> str:
    """Why these tests cannot run here; empty: they can."""
    devices = OnnxBackend().devices()
    if CUDA not in devices.providers:
        return "needs onnxruntime-gpu: this ONNX Runtime has no CUDAExecutionProvider"
    return f"needs a GPU: {devices.gpu_problem}" if devices.gpu_count == 0 else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    ours = [item for item in items if item.path.parent == folder]
    reason = missing_gpu() if ours else ""
    if reason:
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=reason))
