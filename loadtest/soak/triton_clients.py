"""tritonclient, over both protocols; it is imported only where it is used."""

from __future__ import annotations

from typing import Any

import numpy as np

from loadtest.errors import LoadTestError
from loadtest.soak.cases import Answer, Case, datatype_of
from loadtest.soak.tally import GRPC, HTTP, Refused

_CONNECTIONS = 8
"""Of HTTP; gRPC has one."""


class TritonClients:
    """Opened inside of an event loop. Raises LoadTestError where tritonclient is missing."""

    def __init__(self, ports: dict[str, int]) -> None:
        try:
            import tritonclient.grpc.aio as over_grpc
            import tritonclient.http.aio as over_http
            from tritonclient.utils import InferenceServerException
        except ImportError as error:
            raise LoadTestError("the package tritonclient[grpc,http] is missing: make install-dev") from error
        self._error: type[Any] = InferenceServerException
        http = over_http.InferenceServerClient(f"127.0.0.1:{ports['http']}", conn_limit=_CONNECTIONS)
        grpc = over_grpc.InferenceServerClient(f"127.0.0.1:{ports['grpc']}")
        self._clients: dict[str, tuple[Any, Any]] = {GRPC: (over_grpc, grpc), HTTP: (over_http, http)}

    async def infer(self, case: Case, protocol: str) -> Answer:
        """Over GRPC or HTTP. Raises Refused."""
        library, client = self._clients[protocol]
        inputs = []
        for name, array in case.inputs.items():
            tensor = library.InferInput(name, list(array.shape), datatype_of(array))
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        try:
            result = await client.infer(case.model, inputs)
        except self._error as error:
            raise Refused((error.status() or "").removeprefix("StatusCode."), error.message()) from error
        return {name: np.asarray(result.as_numpy(name)) for name in case.expected}

    async def close(self) -> None:
        for _, client in self._clients.values():
            await client.close()
