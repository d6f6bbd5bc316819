"""Restricted APIs: RPCs that are answered only where the caller's metadata has a secret, as in Triton.

Methods are wrapped when the server starts; those without a restriction are the same as ever.
"""

from __future__ import annotations

from functools import partial
from hmac import compare_digest

from server.frontends.calls import Call, Method, MethodTable, Receiver, StatusCode, StreamMethod, UnaryMethod
from server.restricted_apis import GRPC_HEADER_PREFIX, ApiCategory, Restrictions, Secret
from server.tensors import Buffer

CATEGORIES: dict[str, ApiCategory] = {
    "ServerLive": ApiCategory.HEALTH,
    "ServerReady": ApiCategory.HEALTH,
    "ModelReady": ApiCategory.HEALTH,
    "Check": ApiCategory.HEALTH,
    "Watch": ApiCategory.HEALTH,
    "ServerMetadata": ApiCategory.METADATA,
    "ModelMetadata": ApiCategory.METADATA,
    "ModelInfer": ApiCategory.INFERENCE,
    "ModelStreamInfer": ApiCategory.INFERENCE,
    "ModelConfig": ApiCategory.MODEL_CONFIG,
    "ModelStatistics": ApiCategory.STATISTICS,
    "RepositoryIndex": ApiCategory.MODEL_REPOSITORY,
    "RepositoryModelLoad": ApiCategory.MODEL_REPOSITORY,
    "RepositoryModelUnload": ApiCategory.MODEL_REPOSITORY,
    "SystemSharedMemoryStatus": ApiCategory.SHARED_MEMORY,
    "SystemSharedMemoryRegister": ApiCategory.SHARED_MEMORY,
    "SystemSharedMemoryUnregister": ApiCategory.SHARED_MEMORY,
    "CudaSharedMemoryStatus": ApiCategory.SHARED_MEMORY,
    "CudaSharedMemoryRegister": ApiCategory.SHARED_MEMORY,
    "CudaSharedMemoryUnregister": ApiCategory.SHARED_MEMORY,
    "TraceSetting": ApiCategory.TRACE,
    "LogSettings": ApiCategory.LOGGING,
}
"""RPCs by name, those of `grpc.health.v1.Health` too. Reflection, which tells nothing about this server, has none."""


class _Ended:
    """The ear of a stream that has ended."""

    def message(self, data: Buffer) -> None:
        """Nobody listens."""

    def half_closed(self) -> None:
        """Nobody listens."""

    def drain(self) -> None:
        """It has ended already."""


ENDED = _Ended()


class Guard:
    """Lets in who knows a secret."""

    def __init__(self, secret: Secret, prefix: str = "") -> None:
        self.header = f"{prefix}{secret.key}"
        self._key = self.header.lower()
        self._value = secret.value.encode()

    def admits(self, call: Call) -> bool:
        """Whether the caller has it. Takes the same time for all values of a length."""
        given = call.metadata.get(self._key)
        return isinstance(given, str) and compare_digest(given.encode(), self._value)


def restrict(methods: MethodTable, restrictions: Restrictions) -> MethodTable:
    """The methods, those of a restricted category behind their guards."""
    guards = {category: Guard(secret, GRPC_HEADER_PREFIX) for category, secret in restrictions.items()}

    def behind(path: str, method: Method) -> Method:
        category = CATEGORIES.get(path.rpartition("/")[2])
        guard = guards.get(category) if category is not None else None
        if guard is None:
            return method
        if isinstance(method, UnaryMethod):
            return UnaryMethod(partial(_handle, guard, method), method.begin)
        return StreamMethod(partial(_open, guard, method))

    return {path: behind(path, method) for path, method in methods.items()}


def _handle(guard: Guard, method: UnaryMethod, call: Call, message: Buffer) -> None:
    if guard.admits(call):
        method.handle(call, message)
    else:
        _refuse(guard, call)


def _open(guard: Guard, method: StreamMethod, call: Call) -> Receiver:
    if guard.admits(call):
        return method.open(call)
    _refuse(guard, call)
    return ENDED


def _refuse(guard: Guard, call: Call) -> None:
    call.fail(StatusCode.UNAVAILABLE, f"This protocol is restricted, expecting header '{guard.header}'")
