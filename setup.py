"""The one thing that pyproject.toml cannot say: the HTTP/2 extension is optional.

Where gcc, Python's headers and libnghttp2's are there, `_http2` is built. Where they are not, the install succeeds all
the same, and the server takes the grpcio engine and says so.
"""

from setuptools import setup
from setuptools.command.build_ext import build_ext


class OptionalBuildExt(build_ext):
    """Builds what can be built."""

    def finalize_options(self) -> None:
        super().finalize_options()
        for extension in self.extensions:
            extension.optional = True


setup(cffi_modules=["server/frontends/grpc/http2_build.py:ffibuilder"], cmdclass={"build_ext": OptionalBuildExt})
