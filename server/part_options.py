"""What the flags come to for each part of the server: its options, in its own words."""

from __future__ import annotations

import asyncio
import time
from math import inf
from pathlib import Path

from server.backends.cores import available_cores
from server.backends.gpus import gpu_reader, page_locked_bytes
from server.cache.local import LocalStore
from server.cache.store import Store
from server.cache_config import CacheConfig, LocalCache
from server.control import ControlSettings
from server.flag_values import CompressionLevel, ModelControlMode
from server.frontends.grpc.options import GrpcOptions
from server.frontends.rest.options import HttpOptions
from server.frontends.tls import TlsFiles
from server.metrics.machine import Machine
from server.metrics.page import MetricsPage
from server.models.model import TINY_BATCH_SECONDS
from server.settings import Settings
from server.trace_config import TraceMode
from server.tracing import Sink
from server.tracing.json_file import JsonFileSink

MOST_LOAD_THREADS = 4
"""Unless a flag says otherwise: as in Triton. And not all cores, since whoever serves meanwhile needs some."""


def http_options(settings: Settings) -> HttpOptions:
    root = settings.http_root_cert if settings.http_use_ssl_mutual else None
    return HttpOptions(
        max_input_bytes=settings.http_max_input_size,
        reuse_port=settings.reuse_http_port,
        tls=_tls_files(settings.http_server_cert, settings.http_server_key, root) if settings.http_use_ssl else None,
    )


def grpc_options(settings: Settings) -> GrpcOptions:
    tls = None
    if settings.grpc_use_ssl:
        root = settings.grpc_root_cert if settings.grpc_use_ssl_mutual else None
        tls = _tls_files(settings.grpc_server_cert, settings.grpc_server_key, root)
    return GrpcOptions(
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


def control_settings(settings: Settings, on_grpcio: bool) -> ControlSettings:
    explicit = settings.model_control_mode is ModelControlMode.EXPLICIT
    return ControlSettings(
        roots=settings.model_repositories,
        load_models=settings.load_models if explicit else None,
        default_max_batch_size=settings.default_max_batch_size,
        autocomplete=not settings.disable_auto_complete_config,
        max_queued_bytes=settings.max_queued_bytes,
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
    )


def _tls_files(cert: Path | None, key: Path | None, root: Path | None) -> TlsFiles:
    assert cert and key, "settings.parse sees to it"
    return TlsFiles(cert, key, root)
