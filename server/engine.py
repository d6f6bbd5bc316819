"""The data plane: find the version, submit, answer once. It knows no wire and no disk."""

from __future__ import annotations

from server.errors import ConvoyError, InvalidRequest, NotFound, NotReady, Reason, ShuttingDown, Unsupported
from server.messages import InferenceRequest
from server.models.registry import Registry
from server.models.work import Pending, Reply
from server.shared_memory.tensors import SharedMemory
from server.statistics import no_failures

SHARED_MEMORY_OFF = "shared memory is not offered to clients: the server was started without --allow-client-shm=true"


class Engine:
    """Takes inference requests for all models."""

    def __init__(self, registry: Registry, shared_memory: SharedMemory | None = None) -> None:
        """`shared_memory` None: callers may not have any."""
        self._registry = registry
        self._shared_memory = shared_memory
        self._started = False
        self._exiting = False
        self.failures: dict[Reason, int] = no_failures()
        """Requests that reached no version: those that name none that serves, and those that cannot be read."""

    @property
    def serving(self) -> bool:
        """Whether the models have been loaded and the server is not going down."""
        return self._started and not self._exiting

    @property
    def exiting(self) -> bool:
        return self._exiting

    def begin_service(self) -> None:
        """All that should be loaded has been, or has failed to."""
        self._started = True
        self._registry.changed()

    def announce_exit(self) -> None:
        """The server is going down soon: it is not ready any more. Requests are served as before."""
        self._exiting = True
        self._registry.changed()

    def begin_exit(self) -> None:
        """The server is going down: it is not ready any more, and nobody waits for company from now on.

        Requests are still served until the listeners close.
        """
        for version in self._registry.loaded():
            version.hurry()
        self.announce_exit()

    def cut_off(self) -> None:
        """The time to answer what was accepted is over: whoever still waits is not the one who leaves."""
        for version in self._registry.active():
            version.cut_off()

    def refuse(self, error: ConvoyError) -> None:
        """Count a request that cannot be read, or whose answer its caller cannot be given."""
        self.failures[error.reason] += 1

    def infer(self, request: InferenceRequest, reply: Reply) -> Pending | None:
        """Start one inference. `reply` is called exactly once, unless what is returned is cancelled first.

        Returns None where the request is settled already: `reply` has been called then.
        """
        if request.shared is not None:
            return self._infer_shared(request, reply)
        try:
            version = self._registry.find(request.model_name, request.model_version)
        except ConvoyError as error:
            refusal = self._explained(error, request.model_name)
            self.failures[refusal.reason] += 1
            reply(refusal)
            return None
        return version.submit(request, reply)

    def _infer_shared(self, request: InferenceRequest, reply: Reply) -> Pending | None:
        """As `infer`, for a request with tensors in shared memory.

        What the model has computed and cannot be handed over counts twice: as its success, and as a failure here.
        """
        places, request.shared = request.shared, None
        assert places is not None, "who has none is not here"
        try:
            if self._shared_memory is None:
                raise Unsupported(SHARED_MEMORY_OFF)
            attached = self._shared_memory.attach(request, places, reply, self.refuse)
        except ConvoyError as error:
            self.failures[error.reason] += 1
            reply(error)
            return None
        return self.infer(request, attached)

    def _explained(self, error: ConvoyError, name: str) -> ConvoyError:
        """Why no version was found: while the server goes down, the versions that it had are gone for that reason; and
        before all are loaded, what is not there may come."""
        if self._exiting and self._registry.has(name) and not isinstance(error, InvalidRequest):
            return ShuttingDown(str(error))
        if not self._started and not self._exiting and isinstance(error, NotFound):
            return NotReady(str(error))
        return error
