"""What the flags come to for each part of the server: its options, in its own words."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path

from server.access.decisions import Access
from server.access.policy import CHANGING, open_policy
from server.access.policy_file import PolicyFile
from server.backends.cores import available_cores
from server.backends.gpus import gpu_reader, page_locked_bytes
from server.backends.host_memory import available_memory
from server.cache.local import LocalStore
from server.cache.store import Store
from server.cache_config import CacheConfig, LocalCache
from server.control import ControlSettings
from server.errors import ConvoyError
from server.files import given_by
from server.flag_values import CompressionLevel, ModelControlMode
from server.frontends.access import Gate
from server.frontends.access_rules import CHANGING as CHANGING_RPCS
from server.frontends.audit import Audit
from server.frontends.decoding import Decoding, plainly
from server.frontends.forwarding import decoding_with_headers
from server.frontends.grpc.options import GrpcOptions
from server.frontends.rest.options import HttpOptions
from server.frontends.sockets import is_loopback
from server.frontends.statuses import Failures
from server.frontends.tls import TlsFiles
from server.memory_budget import MemoryBudget
from server.metrics.machine import Machine
from server.metrics.page import MetricsPage
from server.models.tiny_batches import TINY_BATCH_SECONDS
from server.pages import Populator
from server.restricted_apis import ApiCategory
from server.settings import Settings, largest_request
from server.shared_memory.regions import Regions
from server.trace_config import TraceMode
from server.tracing import Sink
from server.tracing.json_file import JsonFileSink

log = logging.getLogger(__name__)

Count = Callable[[ConvoyError], None]

OPENED_BY = "an operator opens it with --auth-policy or --allow-admin=true"
CLOSED = f"other machines reach this address, and no policy says who may: {OPENED_BY}, or serves on a loopback address"

GRPC, HTTP = "gRPC", "HTTP"
"""What the audit log calls the protocols."""

LOADS_ON_REQUEST = "model_repository(load)"
"""An extension of ours: without it a client cannot know, before it asks, that loads and unloads are refused."""

MEMORY_SHARE = 4
"""What part of the memory is for requests: models, and what their runs need, take the rest."""
LARGEST_REQUESTS = 4
MOST_LOAD_THREADS = 4
"""Unless a flag says otherwise: as in Triton. And not all cores, since whoever serves meanwhile needs some."""


def memory_budget(settings: Settings) -> MemoryBudget:
    """What all requests and answers may hold. Unless a flag says it: a quarter of the memory that there is, and as much
    as it takes to read a few of the largest requests."""
    if settings.memory_budget is not None:
        return MemoryBudget(settings.memory_budget)
    return MemoryBudget(max(available_memory() // MEMORY_SHARE, LARGEST_REQUESTS * largest_request(settings)))


def http_options(settings: Settings, memory: MemoryBudget, failures: Failures, populator: Populator) -> HttpOptions:
    tls = None
    if settings.http_use_ssl:
        root = settings.http_root_cert if settings.http_use_ssl_mutual else None
        tls = _tls_files("http", settings.http_server_cert, settings.http_server_key, root)
    return HttpOptions(
        memory=memory,
        populator=populator,
        failures=failures,
        max_input_bytes=settings.http_max_input_size,
        reuse_port=settings.reuse_http_port,
        tls=tls,
    )


def grpc_options(settings: Settings, memory: MemoryBudget, failures: Failures, populator: Populator) -> GrpcOptions:
    tls = None
    if settings.grpc_use_ssl:
        root = settings.grpc_root_cert if settings.grpc_use_ssl_mutual else None
        tls = _tls_files("grpc", settings.grpc_server_cert, settings.grpc_server_key, root)
    return GrpcOptions(
        memory=memory,
        populator=populator,
        failures=failures,
        max_message_bytes=settings.grpc_max_message_bytes,
        compression_level=list(CompressionLevel).index(settings.grpc_infer_response_compression_level),
        reuse_port=settings.reuse_grpc_port,
        tls=tls,
        keepalive_time=settings.grpc_keepalive_time_ms / 1000,
        keepalive_timeout=settings.grpc_keepalive_timeout_ms / 1000,
        keepalive_permit_without_calls=settings.grpc_keepalive_permit_without_calls,
        min_recv_ping_interval_without_data=settings.grpc_http2_min_recv_ping_interval_without_data_ms / 1000,
        max_ping_strikes=settings.grpc_http2_max_ping_strikes,
        max_connection_age=settings.grpc_max_connection_age_ms / 1000 or inf,
        max_connection_age_grace=settings.grpc_max_connection_age_grace_ms / 1000 or inf,
    )


def grpc_decoding(settings: Settings, gate: Gate | None) -> Decoding:
    """How messages of inference over gRPC become requests."""
    pattern = settings.grpc_header_forward_pattern
    decoding = plainly if pattern is None else partial(decoding_with_headers, pattern)
    return partial(gate.decoding, decoding) if gate and gate.guards_all else decoding


def metrics_options(settings: Settings) -> HttpOptions:
    tls = None
    if settings.metrics_use_ssl:
        root = settings.metrics_root_cert if settings.metrics_use_ssl_mutual else None
        tls = _tls_files("metrics", settings.metrics_server_cert, settings.metrics_server_key, root)
    return HttpOptions(tls=tls)


def gates(settings: Settings, count: Count) -> tuple[Gate | None, Gate | None]:
    """What gRPC and HTTP are behind; None where all may do all. `count`: told of inferences that are turned away.

    Raises `OSError` for a policy that cannot be used.
    """
    _warn_of_open_doors(settings)
    if settings.auth_policy is not None:
        access = PolicyFile(settings.auth_policy).access
        return Gate(access, Audit(GRPC), count), Gate(access, Audit(HTTP), count)
    return (
        _gate_without_policy(settings, count, GRPC, settings.grpc_address),
        _gate_without_policy(settings, count, HTTP, settings.http_address),
    )


def _gate_without_policy(settings: Settings, count: Count, protocol: str, address: str) -> Gate | None:
    explicit = settings.model_control_mode is ModelControlMode.EXPLICIT
    closed = closed_apis(settings.allow_admin, address, explicit=explicit)
    if not closed and settings.audit_log is None:
        return None
    access = Access(open_policy(closed, CLOSED if settings.allow_admin is None else OPENED_BY))
    return Gate(lambda _: access, Audit(protocol) if settings.audit_log else None, count, only=CHANGING_RPCS)


def _warn_of_open_doors(settings: Settings) -> None:
    """Of what an operator may not have meant, on addresses that other machines reach."""
    explicit = settings.model_control_mode is ModelControlMode.EXPLICIT and settings.allow_admin is None
    for protocol, allowed, address, tls in (
        (GRPC, settings.allow_grpc, settings.grpc_address, settings.grpc_use_ssl),
        (HTTP, settings.allow_http, settings.http_address, settings.http_use_ssl),
    ):
        if not allowed or is_loopback(address):
            continue
        if settings.auth_policy is not None and not tls:
            log.warning("%s on %s has no TLS: whoever is on the way can read callers' tokens", protocol, address)
        if settings.auth_policy is None and explicit:
            log.warning(
                "nobody may load models over %s on %s, since other machines reach it: --auth-policy says who may, "
                "--allow-admin=true that all may, with files of their own too; --allow-admin=false that this is meant",
                protocol, address,
            )  # fmt: skip


def closed_apis(allow_admin: bool | None, address: str, *, explicit: bool) -> frozenset[str]:
    """The APIs whose changing part is closed on an address, where there is no policy; `explicit`: models are loaded on
    request.

    Shared memory has a flag of its own that opens it, --allow-client-shm. In modes that load nothing on request, the
    control plane refuses that in Triton's words.
    """
    match allow_admin:
        case True:
            return frozenset()
        case False:
            return frozenset(CHANGING)
    if is_loopback(address):
        return frozenset()
    loading = (ApiCategory.MODEL_REPOSITORY.value,) if explicit else ()
    return frozenset((ApiCategory.TRACE.value, ApiCategory.LOGGING.value, *loading))


def serves_ui(settings: Settings) -> bool:
    """Whether the page is served: where only this machine reaches it, unless a flag says otherwise."""
    return is_loopback(settings.http_address) if settings.ui is None else settings.ui


def page_address(settings: Settings, port: int) -> str:
    """Where a browser finds the page."""
    scheme = "https" if settings.http_use_ssl else "http"
    address = settings.http_address
    host = f"[{address}]" if ":" in address else "localhost" if address == "0.0.0.0" else address
    return f"{scheme}://{host}:{port}/"


def answer_store(config: CacheConfig | None) -> Store | None:
    """Where answers are kept; None: nowhere. Raises `OSError` where the client of Redis is not installed."""
    if config is None:
        return None
    if isinstance(config, LocalCache):
        return LocalStore(config.size_bytes)
    try:
        from server.cache.redis_store import RedisStore  # takes a while, and few need it
    except ImportError as error:
        raise OSError(f"--cache-config redis: {error}: pip install 'convoy[redis]'") from error
    return RedisStore(config, asyncio.get_running_loop())


def trace_sink(settings: Settings) -> Sink | None:
    """Where traces go; None where the flags name no place. Raises `OSError` where OpenTelemetry is not usable."""
    config = settings.trace
    if config.mode is TraceMode.TRITON:
        return JsonFileSink(Path(config.file)) if config.file else None
    try:
        from server.tracing.otlp import OtlpSink  # takes half a second

        return OtlpSink(config)
    except ImportError as error:
        raise OSError(f"--trace-config mode=opentelemetry: {error}: pip install 'convoy[tracing]'") from error
    except ValueError as error:
        raise OSError(f"--trace-config mode=opentelemetry: {error}") from error


def metrics_page(settings: Settings) -> MetricsPage:
    machine = Machine(
        time.monotonic,
        interval=settings.metrics_interval_ms / 1000,
        cpu=settings.allow_cpu_metrics,
        gpus=gpu_reader() if settings.allow_gpu_metrics else None,
        page_locked=page_locked_bytes,
    )
    return MetricsPage(settings.metrics_config, machine)


def more_extensions(settings: Settings, regions: Regions | None) -> tuple[str, ...]:
    """What the server's metadata list that not every server offers."""
    on_request = (LOADS_ON_REQUEST,) if settings.model_control_mode is ModelControlMode.EXPLICIT else ()
    return (*on_request, *(regions.extensions if regions is not None else ()))


def control_settings(settings: Settings, on_grpcio: bool, memory: MemoryBudget) -> ControlSettings:
    explicit = settings.model_control_mode is ModelControlMode.EXPLICIT
    return ControlSettings(
        roots=settings.model_repositories,
        load_models=settings.load_models if explicit else None,
        default_max_batch_size=settings.default_max_batch_size,
        autocomplete=not settings.disable_auto_complete_config,
        max_queued_bytes=settings.max_queued_bytes,
        memory=memory,
        # On grpcio the event loop has a request at a time: were each run at once, batches would never grow under load.
        tiny_batch_seconds=0.0 if on_grpcio else TINY_BATCH_SECONDS,
        max_running_batches=settings.max_running_batches,
        urls=settings.model_repository_urls,
        cache_dir=settings.model_repository_cache_dir,
        poll=settings.model_control_mode is ModelControlMode.POLL,
        summaries=settings.metrics_config.summary_latencies,
        on_request=explicit,
        config_name=settings.model_config_name,
        load_threads=settings.model_load_thread_count or min(MOST_LOAD_THREADS, max(1, available_cores() // 2)),
        load_retries=settings.model_load_retry_count,
        run_timeout_ms=settings.run_timeout_ms,
        load_timeout_secs=settings.model_load_timeout_secs,
    )


def _tls_files(protocol: str, cert: Path | None, key: Path | None, root: Path | None) -> TlsFiles:
    """Raises `OSError` for one that cannot be read."""
    for name, path in (("server-cert", cert), ("server-key", key), ("root-cert", root)):
        if path is not None:
            with given_by(f"--{protocol}-{name}", path):
                path.open("rb").close()
    assert cert and key, "settings.parse sees to it"
    return TlsFiles(cert, key, root)
