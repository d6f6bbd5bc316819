"""Builds the extension module `_http2` from the shim, with cffi. Run by setuptools; see `setup.py`."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import cffi

HERE = Path(__file__).parent
SOURCES = ("http2_shim.c", "http2_shim.h")


def source_digest(folder: Path = HERE) -> int | None:
    """64 bits that tell the shim's source from any other; None where it does not lie there whole."""
    paths = [folder / name for name in SOURCES]
    if not all(path.is_file() for path in paths):
        return None
    whole = b"\0".join([path.read_bytes() for path in paths])
    return int.from_bytes(hashlib.sha256(whole).digest()[:8])


def check_built_from(built: int | None, source: int | None) -> None:
    """Raise `ImportError` where an extension with the digest `built` (None: it has none) is not that of the source."""
    if source is not None and built != source:
        raise ImportError(
            f"the extension _http2 was built from another {SOURCES[0]} than lies in {HERE}; to build it again, run "
            "`python setup.py build_ext --inplace` or `make install-dev`"
        )


def ffibuilder() -> cffi.FFI:
    """What setuptools asks for."""
    header = (HERE / "http2_shim.h").read_text()
    builder = cffi.FFI()
    builder.cdef(re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL) + "#define H2_SOURCE_DIGEST ...\n")
    builder.set_source(
        "server.frontends.grpc._http2",
        f'#define H2_SOURCE_DIGEST {source_digest()}ULL\n#include "http2_shim.c"',
        libraries=["nghttp2"],
        include_dirs=[str(HERE)],
        depends=[str(HERE / name) for name in SOURCES],
        extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra"],
    )
    return builder


if __name__ == "__main__":
    ffibuilder().compile(verbose=True)
