"""The composition root: builds the server from the bottom up, runs it, and takes it down in reverse.

Start: listen → load → ready. Stop: not ready → a delay, if asked for → take no new calls, answer those in progress →
drain the models → gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import onnxruntime

from server import __version__, part_options
from server.backends.onnx import OnnxBackend
from server.backends.run_memory import RunMemory
from server.control import ControlPlane
from server.engine import Engine
from server.errors import LoadFailed
from server.files import given_by
from server.flag_values import CompressionLevel, GrpcEngine, ModelControlMode
from server.freed_memory import FreedMemory
from server.frontends import health_service, inference_service
from server.frontends.calls import MethodTable
from server.frontends.compressed_answers import compress_answers
from server.frontends.grpc.grpcio_engine import GrpcioEngine
from server.frontends.health_service import HealthService
from server.frontends.inference_service import InferenceService, accounted
from server.frontends.reflection_service import reflection_methods
from server.frontends.repository_service import RepositoryService
from server.frontends.rest.bodies import Bodies
from server.frontends.rest.listener import HttpListener
from server.frontends.rest.metrics import metrics_route
from server.frontends.restrictions import restrict
from server.frontends.settings_service import SettingsService
from server.frontends.shared_memory_service import SharedMemoryService
from server.frontends.statuses import AS_TRITON, DISTINCT
from server.frontends.watch import Watch
from server.http_routes import behind_gate, http_routes
from server.last_exit import LastExit
from server.ledger import Ledger
from server.load_generator import LoadGenerator
from server.logs import Logs, LogState
from server.loop_watch import LoopWatch
from server.malloc import give_back_freed_memory
from server.metrics.snapshots import BuildSnapshot, MemorySnapshot
from server.models.registry import Registry
from server.observation import Observer
from server.pages import Populator
from server.scheduling.clock import clock_for
from server.scheduling.lanes import join_lanes
from server.settings import Settings
from server.shared_memory.cuda import find_driver
from server.shared_memory.regions import Regions
from server.shared_memory.tensors import SharedMemory
from server.trace_config import TraceMode
from server.tracing.sampling import TraceSettings

if TYPE_CHECKING:
    from server.frontends.grpc.listener import Nghttp2Engine

log = logging.getLogger(__name__)

LAST_SECONDS = 5.0
"""How long the process may last, whatever runs in it, after `--exit-timeout-secs`; or once all else has stopped."""

LAST_TRACES_SECONDS = 5.0
"""How long the server stays, at most, for traces that have not been sent."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the server listens; None where a listener is off."""

    grpc: int | None
    http: int | None
    metrics: int | None


class App:
    """One running server."""

    def __init__(self, settings: Settings, logs: Logs) -> None:
        """Raises `OSError` where what the flags ask for is not installed or cannot be read."""
        self._settings = settings
        failures = DISTINCT if settings.distinct_overload_statuses else AS_TRITON
        self._traces = part_options.trace_sink(settings)
        watch = Watch(
            TraceSettings(settings.trace),
            self._traces,
            failures.statuses,
            joins_traces=settings.trace.mode is TraceMode.OPENTELEMETRY,
            access_log=self._access_logged(logs.state),
        )
        clock = clock_for(asyncio.get_running_loop())
        self._store = part_options.answer_store(settings.cache)
        self._registry = Registry()
        self._regions = Regions(find_driver()) if settings.allow_client_shm else None
        shared = SharedMemory(self._regions, settings.grpc_max_message_bytes) if self._regions is not None else None
        self._engine = Engine(self._registry, shared)
        self._ledger = Ledger()
        self._memory = memory = part_options.memory_budget(settings)
        self._populator = Populator()
        grpc_gate, http_gate = part_options.gates(settings, self._engine.refuse)
        inference = InferenceService(
            self._engine,
            self._registry,
            server_id=settings.server_id,
            strict_readiness=settings.strict_readiness,
            watch=watch,
            failures=failures,
            decoding=part_options.grpc_decoding(settings, grpc_gate),
            ledger=self._ledger,
            memory=memory,
            more_extensions=part_options.more_extensions(settings, self._regions),
        )
        names = (inference_service.SERVICE, health_service.SERVICE)
        health = HealthService(
            inference.is_ready, lambda: self._engine.exiting, self._registry, (inference_service.SERVICE,)
        )
        changes = SettingsService(self._registry, watch, logs, self._access_logged)
        engine = _grpc_engine(settings)
        self._control = ControlPlane(
            part_options.control_settings(settings, engine is GrpcioEngine, memory),
            self._registry,
            OnnxBackend(
                settings.model_cache_dir,
                allow_custom_ops=settings.allow_custom_ops,
                run_memory=RunMemory(settings.run_memory_limit) if settings.run_memory_limit else None,
            ),
            clock,
            answers=self._store,
        )
        repository = RepositoryService(self._control, self._registry)
        methods: MethodTable = (
            inference.methods()
            | repository.methods()
            | changes.methods()
            | SharedMemoryService(self._regions).methods()
            | health.methods()
            | reflection_methods(names)
        )
        guarded = grpc_gate.guard(methods) if grpc_gate else methods
        if settings.grpc_infer_response_compression_level is not CompressionLevel.NONE and engine is not GrpcioEngine:
            guarded = compress_answers(guarded)
        served = accounted(restrict(guarded, settings.grpc_restricted_protocols), self._ledger.grpc)
        self._grpc = engine(served, part_options.grpc_options(settings, memory, failures, self._populator))
        self._load: LoadGenerator | None = None
        if part_options.serves_ui(settings):
            account = self._ledger.open("playground")
            self._load = LoadGenerator(self._engine, self._registry, account, clock, Random())
        self._watch = LoopWatch(clock)
        give_back = partial(self._populator.run, asyncio.get_running_loop(), give_back_freed_memory)
        self._freed = FreedMemory(clock, memory, give_back)
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        metrics = metrics_route(self._observer().take, part_options.metrics_page(settings), self._renderer)
        self._metrics = HttpListener(behind_gate([metrics], http_gate), part_options.metrics_options(settings))
        self._bodies = Bodies(settings.http_max_input_size)
        routes = http_routes(
            settings,
            inference,
            self._registry,
            methods,
            metrics,
            self._bodies,
            http_gate,
            self._ledger.http,
            self._load,
        )
        self._http = HttpListener(routes, part_options.http_options(settings, memory, failures, self._populator))

    async def start(self) -> Ports:
        """Listen, then load. Raises `OSError` for an address that cannot be had, `LoadFailed` for a missing root, and
        where --exit-on-error has it so."""
        settings = self._settings
        _freeze_heap()
        self._populator.start()
        self._freed.start()
        if settings.allow_metrics:
            self._watch.start()
            self._renderer.submit(int)  # its thread starts now, before anyone is served: the event loop would wait
        ports = Ports(
            grpc=await self._grpc.start(settings.grpc_address, settings.grpc_port) if settings.allow_grpc else None,
            http=await self._http.start(settings.http_address, settings.http_port) if settings.allow_http else None,
            metrics=await self._metrics.start(settings.metrics_address, settings.metrics_port)
            if settings.allow_metrics
            else None,
        )
        await self._control.load_all()
        if settings.exit_on_error and not self._registry.all_ready():
            raise LoadFailed(f"failed to load all models\n{self.summary(ports)}")
        _freeze_heap()
        self._engine.begin_service()
        if settings.model_control_mode is ModelControlMode.POLL:
            self._control.follow(settings.repository_poll_secs)
        return ports

    def announce_stop(self) -> None:
        """Not ready any more, for load balancers to see; requests are served as before until `stop`."""
        self._engine.announce_exit()

    async def stop(self) -> bool:
        """Answer everything that was accepted, then close. Returns whether the ledger balances."""
        end = time.monotonic() + self._settings.exit_timeout_secs
        self._http.announce_stop()
        if self._load is not None:
            self._load.stop()
        self._engine.begin_exit()
        self._control.give_up_loads()
        grace = self._settings.exit_timeout_secs
        asyncio.get_running_loop().call_later(grace, self._cut_off)
        await asyncio.gather(self._http.drain(grace), *([self._grpc.stop(grace)] if self._settings.allow_grpc else []))
        await self._control.unload_all()
        if self._store is not None:
            self._store.close()
        if self._regions is not None:
            self._regions.close()
        self._ledger.begin_cut_off(self._engine.in_flight)
        await self._http.stop()
        await self._metrics.stop()
        self._watch.stop()
        self._renderer.shutdown()
        self._bodies.close()
        self._freed.stop()
        self._populator.close()
        if self._traces is not None:
            seconds = max(0.0, min(LAST_TRACES_SECONDS, end - time.monotonic()))
            await asyncio.to_thread(self._traces.close, seconds)
        if self._memory.used:
            log.error("the memory budget does not balance: %d bytes are in use", self._memory.used)
        return self._ledger.close(self._registry.answers - self._engine.undelivered) and not self._memory.used

    @property
    def left_behind(self) -> int:
        """Loads that hang: their threads will not end."""
        return self._control.left_behind

    def _cut_off(self) -> None:
        self._ledger.begin_cut_off(self._engine.in_flight)
        self._engine.cut_off()

    def summary(self, ports: Ports) -> str:
        """What is served, and where, for a person to read."""
        rows = [("Model", "Version", "Status")]
        for entry in self._registry:
            if not entry.statuses:
                rows.append((entry.name, "-", f"UNAVAILABLE: {entry.problem}" if entry.problem else "not loaded"))
            for version, status in sorted(entry.statuses.items()):
                reason = f": {status.reason}" if status.reason else ""
                rows.append((entry.name, str(version), f"{status.state}{reason}"))
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = [f"  {name:<{widths[0]}}  {version:<{widths[1]}}  {status}" for name, version, status in rows]
        addresses = [
            f"  {what:<7}  {address if address.startswith('unix:') else f'{address}:{port}'}"
            for what, address, port in (
                ("gRPC", self._settings.grpc_address, ports.grpc),
                ("HTTP", self._settings.http_address, ports.http),
                ("metrics", self._settings.metrics_address, ports.metrics),
            )
            if port is not None
        ]
        if ports.http is not None and part_options.serves_ui(self._settings):
            addresses.append(f"  page     {part_options.page_address(self._settings, ports.http)}")
        return "\n".join([f"Convoy {__version__}", *lines, "", *addresses])

    def _access_logged(self, state: LogState) -> bool:
        return state.info and (self._settings.access_log or state.verbose > 0)

    def _observer(self) -> Observer:
        return Observer(
            self._registry,
            self._control.turns,
            lambda: self._control.unseen_repositories,
            self._engine.failures,
            self._grpc.calls.snapshot,
            self._grpc.transport,
            self._watch,
            BuildSnapshot(
                __version__,
                onnxruntime.__version__,
                "grpcio" if isinstance(self._grpc, GrpcioEngine) else "nghttp2",
            ),
            lambda: self._traces.lost if self._traces is not None else 0,
            lambda: self._regions.usage() if self._regions is not None else (0, 0),
            lambda: self._http.snapshot(),  # noqa: PLW0108 -- made later, since it may serve what this observes
            lambda: self._store.counts() if self._store is not None else None,
            self._ledger.snapshot,
            lambda: MemorySnapshot(self._memory.limit, self._memory.used, self._memory.refused),
        )


async def serve(settings: Settings, logs: Logs) -> bool:
    """Run a server until SIGTERM or SIGINT, also where that comes before all models are loaded. Returns whether every
    request was answered exactly once, or its caller had gone."""
    loop = asyncio.get_running_loop()
    stop, no_delay, last_exit = asyncio.Event(), asyncio.Event(), LastExit()
    app = App(settings, logs)
    starting = asyncio.create_task(app.start())

    def begin_stop() -> None:
        if stop.is_set():
            no_delay.set()
        stop.set()
        starting.cancel()  # changes nothing once it has started

    # Not the loop's own handlers: those can only be removed, and a signal between that and the next one would end the
    # process as one without a handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(begin_stop))
    try:
        ports = await starting
        print(app.summary(ports), flush=True)
        if settings.ports_file:
            write_ports(settings.ports_file, ports)
        await stop.wait()
        if settings.shutdown_delay_secs:
            log.info("stopping: not ready, serving for %g s; a second signal ends that", settings.shutdown_delay_secs)
            app.announce_stop()
            await _wait_at_most(no_delay, settings.shutdown_delay_secs)
        log.info("stopping: answering what is in progress")
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        log.info("stopping: before all models were loaded")
    finally:
        last_exit.leave_within(settings.exit_timeout_secs + LAST_SECONDS)
        balances = await app.stop()
        if not join_lanes(LAST_SECONDS) or app.left_behind:
            last_exit.leave_within(0)
            join_lanes(LAST_SECONDS)
        # All is done: who asks once more while the interpreter goes shall not change the exit status.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    return balances


async def _wait_at_most(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _freeze_heap() -> None:
    """What is loaded stays: no collection during service need walk over it.

    A first time before anyone is served, so that the second, when models serve already, finds little to walk over.
    """
    gc.collect()
    gc.freeze()


def _grpc_engine(settings: Settings) -> type[Nghttp2Engine] | type[GrpcioEngine]:
    """The engine that the flags ask for. Raises `OSError` where it is nghttp2, and that was not built."""
    wanted = settings.grpc_engine
    if wanted is GrpcEngine.GRPCIO:
        log.info("gRPC engine: grpcio")
        return GrpcioEngine
    try:
        from server.frontends.grpc.listener import Nghttp2Engine
    except ImportError as error:
        hint = "it is built at install where gcc and libnghttp2-dev are there"
        if wanted is GrpcEngine.NGHTTP2:
            raise OSError(f"the gRPC engine nghttp2 is not available ({error}); {hint}") from error
        log.warning("gRPC engine: grpcio, since nghttp2 is not available (%s); %s", error, hint)
        return GrpcioEngine
    log.info("gRPC engine: nghttp2")
    return Nghttp2Engine


def write_ports(path: Path, ports: Ports) -> None:
    """Atomically, so that whoever waits for the file never reads half of it. Raises `OSError`."""
    content = {"grpc": ports.grpc, "http": ports.http, "metrics": ports.metrics}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with given_by("--ports-file", path):
        temporary.write_text(json.dumps(content))
        temporary.replace(path)
