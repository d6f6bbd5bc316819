"""Tensors in memory that callers register: POSIX shared memory, and device memory of CUDA (Triton's two extensions).

The server never maps what a caller can cut off: a mapping whose file is truncated ends the process that touches it
(SIGBUS), and no check comes before every access. It reads and writes by system calls, which come back with an error.
"""
