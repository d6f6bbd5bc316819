"""Builds the extension module `_http2` from the shim, with cffi. Run by setuptools; see `setup.py`."""

from __future__ import annotations

import re
from pathlib import Path

import cffi

HERE = Path(__file__).parent
HEADER = (HERE / "http2_shim.h").read_text()

ffibuilder = cffi.FFI()
ffibuilder.cdef(re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL))
ffibuilder.set_source(
    "server.frontends.grpc._http2",
    '#include "http2_shim.c"',
    libraries=["nghttp2"],
    include_dirs=[str(HERE)],
    depends=[str(HERE / "http2_shim.c"), str(HERE / "http2_shim.h")],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
