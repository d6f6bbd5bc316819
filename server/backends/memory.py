"""What a failure for lack of memory looks like, whatever device it is on."""

from __future__ import annotations

_SIGNS = (
    "failed to allocate memory",  # ONNX Runtime's arenas
    "smaller than requested bytes",  # an arena with a limit
    "bad_alloc",  # C++
    "bad allocation",
    "out of memory",  # CUDA, in words
    "cudaerrormemoryallocation",
    "cuda_error_out_of_memory",
    "alloc_failed",  # CUDNN_STATUS_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a run failed because it found no memory. ONNX Runtime has no exception for it: its text tells."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return any(sign in text for sign in _SIGNS)
