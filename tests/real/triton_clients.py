"""tritonclient's four clients behind one way of use, so that one test can be put to all of them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

from tests.real.conftest import RunningServer

T = TypeVar("T")

NAMES = ("grpc", "grpc.aio", "http", "http.aio")


def client_module(name: str) -> ModuleType:
    """The module of one of `NAMES`."""
    return import_module(f"tritonclient.{name}")


def public_methods(name: str) -> list[str]:
    """What users may call on a client of one of `NAMES`."""
    client = client_module(name).InferenceServerClient
    return sorted(name for name, _ in inspect.getmembers(client, callable) if not name.startswith("_"))


class TritonClient:
    """One client of one of `NAMES`. Its operations are attributes; those of the asyncio clients are waited for."""

    def __init__(self, name: str, server: RunningServer) -> None:
        self.name = name
        self.http_url = server.http_url
        self._server = server
        self.module = client_module(name)
        self.called: set[str] = set()
        """The operations that were called."""
        self._runner = asyncio.Runner() if name.endswith(".aio") else None
        address = server.grpc_address if self.over_grpc else server.http_url.removeprefix("http://")
        self._client = self.run(self._make(address)) if self._runner else self._new(address)

    @property
    def over_grpc(self) -> bool:
        return self.name.startswith("grpc")

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.called.add(name)
            answer = operation(*arguments, **options)
            return self.run(answer) if inspect.iscoroutine(answer) else answer

        return call

    def show(self, operation: str, *arguments: Any) -> Any:
        """What an operation answers, in JSON's terms. Over gRPC, 64-bit integers are text."""
        options = {"as_json": True} if self.over_grpc else {}
        return getattr(self, operation)(*arguments, **options)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine of an asyncio client comes to."""
        assert self._runner is not None, "only asyncio clients have coroutines"
        return self._runner.run(work)

    def tensor(self, name: str, values: NDArray[Any], **form: Any) -> Any:
        """An input; `form` may hold `binary_data` over HTTP."""
        tensor = self.module.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values, **form)
        return tensor

    def output(self, name: str, **form: Any) -> Any:
        """An output to ask for; `form` may hold `class_count`, and `binary_data` over HTTP."""
        return self.module.InferRequestedOutput(name, **form)

    def another(self) -> TritonClient:
        """A client of its own of the same kind and server."""
        return TritonClient(self.name, self._server)

    def end(self) -> None:
        """Close the client, and the loop of its own."""
        self.close()
        if self._runner:
            self._runner.close()

    def _new(self, address: str) -> Any:
        return self.module.InferenceServerClient(address)

    async def _make(self, address: str) -> Any:
        return self._new(address)
