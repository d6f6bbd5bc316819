"""What a failure for lack of memory looks like."""

from __future__ import annotations

import pytest

from server.backends.memory import is_out_of_memory

SHORT = [
    MemoryError(),
    RuntimeError(
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running ConstantOfShape node. Name:'' "
        "Status Message: bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 4503599627370496"
    ),
    RuntimeError("Available memory of 1024 is smaller than requested bytes of 4096"),
    RuntimeError("Exception during initialization: std::bad_alloc"),
    RuntimeError("CUDA failure 2: out of memory ; GPU=0"),
    RuntimeError("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"),
    RuntimeError("cudaErrorMemoryAllocation"),
]

OTHER = [
    RuntimeError("Non-zero status code returned while running Gather node. indices element out of data bounds"),
    RuntimeError("CUDA failure 700: an illegal memory access was encountered"),
    ValueError(""),
]


@pytest.mark.parametrize("error", SHORT, ids=str)
def test_memory_that_was_short_is_seen(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHER, ids=str)
def test_other_failures_are_something_else(error: Exception) -> None:
    assert not is_out_of_memory(error)
