"""What the flags decide, checked once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from server import flags, metrics_config, restricted_apis, triton_flags
from server.cache_config import CacheConfig, CacheConfigInvalid, parse_cache_config
from server.flag_values import CompressionLevel, GrpcEngine, LogFormat, ModelControlMode
from server.header_pattern import HeaderPattern
from server.metrics_config import MetricsConfig
from server.restricted_apis import GRPC_HEADER_PREFIX, Restrictions
from server.trace_config import TraceConfig, TraceConfigInvalid, parse_trace_config
from server.urls import RepositoryUrl


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that flags decide."""

    model_repositories: tuple[Path, ...]
    model_repository_urls: tuple[RepositoryUrl, ...]
    model_repository_cache_dir: Path | None
    """None: a temporary folder."""
    server_id: str
    model_control_mode: ModelControlMode
    repository_poll_secs: float
    load_models: tuple[str, ...]
    model_config_name: str
    """"": config.pbtxt."""
    model_load_thread_count: int | None
    """None: half as many as cores, 4 at most."""
    model_load_retry_count: int
    model_load_timeout_secs: float
    """0: no limit."""
    exit_on_error: bool
    strict_readiness: bool
    disable_auto_complete_config: bool
    allow_custom_ops: bool
    default_max_batch_size: int
    model_cache_dir: Path | None
    memory_budget: int | None
    """Bytes; None: a share of the memory that there is."""
    run_memory_limit: int | None
    """Bytes; None: no limit."""
    max_queued_bytes: int
    cache: CacheConfig | None
    """Where answers are kept; None: nowhere."""
    distinct_overload_statuses: bool
    max_running_batches: int | None
    """None: as many as cores; 0: no limit."""
    run_timeout_ms: int
    """0: no limit."""
    exit_timeout_secs: float
    shutdown_delay_secs: float
    allow_grpc: bool
    grpc_address: str
    grpc_port: int
    grpc_engine: GrpcEngine
    grpc_max_message_bytes: int
    reuse_grpc_port: bool
    grpc_infer_response_compression_level: CompressionLevel
    grpc_use_ssl: bool
    grpc_use_ssl_mutual: bool
    grpc_server_cert: Path | None
    grpc_server_key: Path | None
    grpc_root_cert: Path | None
    grpc_keepalive_time_ms: int
    grpc_keepalive_timeout_ms: int
    grpc_keepalive_permit_without_calls: bool
    grpc_http2_min_recv_ping_interval_without_data_ms: int
    grpc_http2_max_ping_strikes: int
    grpc_max_connection_age_ms: int
    """0: no limit."""
    grpc_max_connection_age_grace_ms: int
    """0: no limit."""
    grpc_header_forward_pattern: HeaderPattern | None
    grpc_restricted_protocols: Restrictions
    allow_client_shm: bool
    allow_http: bool
    http_address: str
    http_port: int
    reuse_http_port: bool
    http_max_input_size: int
    http_use_ssl: bool
    http_use_ssl_mutual: bool
    http_server_cert: Path | None
    http_server_key: Path | None
    http_root_cert: Path | None
    http_json_nan: bool
    http_header_forward_pattern: HeaderPattern | None
    http_restricted_apis: Restrictions
    http_metrics: bool
    ui: bool | None
    """None: on a loopback address only."""
    auth_policy: Path | None
    allow_admin: bool | None
    """None: changes on loopback addresses only, but for shared memory."""
    audit_log: Path | None
    allow_metrics: bool
    allow_cpu_metrics: bool
    allow_gpu_metrics: bool
    metrics_address: str
    metrics_port: int
    metrics_use_ssl: bool
    metrics_use_ssl_mutual: bool
    metrics_server_cert: Path | None
    metrics_server_key: Path | None
    metrics_root_cert: Path | None
    metrics_interval_ms: int
    metrics_config: MetricsConfig
    trace: TraceConfig
    access_log: bool
    log_verbose: int
    log_info: bool
    log_warning: bool
    log_error: bool
    log_format: LogFormat
    log_file: Path | None
    ports_file: Path | None


def parse(argv: Sequence[str]) -> Settings:
    """Settings from command-line arguments. A wrong flag prints what is wrong and exits with status 2."""
    parser = flags.parser()
    if refusal := triton_flags.refusal(argv):
        parser.error(f"flags of Triton that this server does not take:\n{refusal}")
    given = parser.parse_args(argv)
    if given.load_model and given.model_control_mode is not ModelControlMode.EXPLICIT:
        parser.error("--load-model needs --model-control-mode=explicit")
    if "*" in given.load_model and len(given.load_model) > 1:
        parser.error("--load-model: wildcard model name '*' must be the ONLY startup model if specified at all")
    if given.model_namespacing:
        parser.error(
            "--model-namespacing is not offered: a model has one name on a server; give the models names of their own, "
            "or start a server for each repository"
        )
    if given.repository_poll_secs is not None and given.model_control_mode is not ModelControlMode.POLL:
        parser.error("--repository-poll-secs needs --model-control-mode=poll")
    if given.model_repository_cache_dir and not any(isinstance(r, RepositoryUrl) for r in given.model_repository):
        parser.error("--model-repository-cache-dir is for repositories at a distance: --model-repository s3://…")
    if given.auth_policy and given.allow_admin is not None:
        parser.error("--allow-admin is for servers without --auth-policy, whose file says who may change the server")
    _check_tls_flags(parser, given)
    _check_memory_budget(parser, given)
    grpc_restricted = _restrictions(parser, "--grpc-restricted-protocol", given.grpc_restricted_protocol)
    http_restricted = _restrictions(parser, "--http-restricted-api", given.http_restricted_api)
    if not (given.allow_grpc or given.allow_http or given.allow_metrics):
        parser.error("nothing to serve: --allow-grpc, --allow-http and --allow-metrics are all false")
    return Settings(
        model_repositories=tuple(each for each in given.model_repository if isinstance(each, Path)),
        model_repository_urls=tuple(each for each in given.model_repository if isinstance(each, RepositoryUrl)),
        model_repository_cache_dir=given.model_repository_cache_dir,
        server_id=given.id,
        model_control_mode=given.model_control_mode,
        repository_poll_secs=given.repository_poll_secs or 15.0,
        load_models=tuple(given.load_model),
        model_config_name=given.model_config_name or "",
        model_load_thread_count=given.model_load_thread_count,
        model_load_retry_count=given.model_load_retry_count,
        model_load_timeout_secs=given.model_load_timeout_secs,
        exit_on_error=given.exit_on_error,
        strict_readiness=given.strict_readiness,
        allow_custom_ops=given.allow_custom_ops,
        disable_auto_complete_config=given.disable_auto_complete_config,
        default_max_batch_size=given.backend_config[-1],
        model_cache_dir=given.model_cache_dir,
        memory_budget=given.memory_budget,
        run_memory_limit=given.run_memory_limit,
        max_queued_bytes=given.max_queued_bytes,
        cache=_cache_config(parser, given),
        distinct_overload_statuses=given.distinct_overload_statuses,
        max_running_batches=given.max_running_batches,
        run_timeout_ms=given.run_timeout_ms,
        exit_timeout_secs=given.exit_timeout_secs,
        shutdown_delay_secs=given.shutdown_delay_secs,
        allow_grpc=given.allow_grpc,
        grpc_address=given.grpc_address,
        grpc_port=given.grpc_port,
        grpc_engine=given.grpc_engine,
        grpc_max_message_bytes=given.grpc_max_message_bytes,
        reuse_grpc_port=given.reuse_grpc_port,
        grpc_infer_response_compression_level=given.grpc_infer_response_compression_level,
        grpc_use_ssl=given.grpc_use_ssl or given.grpc_use_ssl_mutual,
        grpc_use_ssl_mutual=given.grpc_use_ssl_mutual,
        grpc_server_cert=given.grpc_server_cert,
        grpc_server_key=given.grpc_server_key,
        grpc_root_cert=given.grpc_root_cert,
        grpc_keepalive_time_ms=given.grpc_keepalive_time,
        grpc_keepalive_timeout_ms=given.grpc_keepalive_timeout,
        grpc_keepalive_permit_without_calls=given.grpc_keepalive_permit_without_calls,
        grpc_http2_min_recv_ping_interval_without_data_ms=given.grpc_http2_min_recv_ping_interval_without_data,
        grpc_http2_max_ping_strikes=given.grpc_http2_max_ping_strikes,
        grpc_max_connection_age_ms=given.grpc_max_connection_age,
        grpc_max_connection_age_grace_ms=given.grpc_max_connection_age_grace,
        grpc_header_forward_pattern=_without_secrets(
            given.grpc_header_forward_pattern, grpc_restricted, GRPC_HEADER_PREFIX
        ),
        grpc_restricted_protocols=grpc_restricted,
        allow_client_shm=given.allow_client_shm,
        allow_http=given.allow_http,
        http_address=given.http_address,
        http_port=given.http_port,
        reuse_http_port=given.reuse_http_port,
        http_max_input_size=given.http_max_input_size,
        http_use_ssl=given.http_use_ssl or given.http_use_ssl_mutual,
        http_use_ssl_mutual=given.http_use_ssl_mutual,
        http_server_cert=given.http_server_cert,
        http_server_key=given.http_server_key,
        http_root_cert=given.http_root_cert,
        http_json_nan=given.http_json_nan,
        http_header_forward_pattern=_without_secrets(given.http_header_forward_pattern, http_restricted, ""),
        http_restricted_apis=http_restricted,
        http_metrics=given.http_metrics,
        ui=given.ui,
        auth_policy=given.auth_policy,
        allow_admin=given.allow_admin,
        audit_log=given.audit_log,
        allow_metrics=given.allow_metrics,
        allow_cpu_metrics=given.allow_cpu_metrics,
        allow_gpu_metrics=given.allow_gpu_metrics,
        metrics_address=given.metrics_address or given.http_address,
        metrics_port=given.metrics_port,
        metrics_use_ssl=given.metrics_use_ssl or given.metrics_use_ssl_mutual,
        metrics_use_ssl_mutual=given.metrics_use_ssl_mutual,
        metrics_server_cert=given.metrics_server_cert,
        metrics_server_key=given.metrics_server_key,
        metrics_root_cert=given.metrics_root_cert,
        metrics_interval_ms=given.metrics_interval_ms,
        metrics_config=_metrics_config(parser, given.metrics_config),
        trace=_trace_config(parser, given.trace_config),
        access_log=given.access_log,
        log_verbose=given.log_verbose,
        log_info=given.log_info,
        log_warning=given.log_warning,
        log_error=given.log_error,
        log_format=given.log_format,
        log_file=given.log_file,
        ports_file=given.ports_file,
    )


def _trace_config(parser: argparse.ArgumentParser, texts: Sequence[str]) -> TraceConfig:
    try:
        return parse_trace_config(texts)
    except TraceConfigInvalid as error:
        parser.error(str(error))


def _cache_config(parser: argparse.ArgumentParser, given: argparse.Namespace) -> CacheConfig | None:
    try:
        return parse_cache_config(given.cache_config, given.response_cache_byte_size, os.environ)
    except CacheConfigInvalid as error:
        parser.error(str(error))


def largest_request(settings: Settings) -> int:
    """Bytes of the largest message or body that is read."""
    return max(settings.grpc_max_message_bytes, settings.http_max_input_size)


def _check_memory_budget(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    for flag, size in (
        ("--grpc-max-message-bytes", given.grpc_max_message_bytes),
        ("--http-max-input-size", given.http_max_input_size),
    ):
        if given.memory_budget is not None and given.memory_budget < 2 * size:
            parser.error(
                f"--memory-budget {given.memory_budget} is too little to read a request of {size} bytes and to answer "
                f"it: give it {2 * size} or more, or make {flag} smaller"
            )


def _check_tls_flags(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    values = vars(given)
    for protocol in ("grpc", "http", "metrics"):
        mutual = values[f"{protocol}_use_ssl_mutual"]
        files = values[f"{protocol}_server_cert"] and values[f"{protocol}_server_key"]
        if (values[f"{protocol}_use_ssl"] or mutual) and not files:
            parser.error(f"--{protocol}-use-ssl needs --{protocol}-server-cert and --{protocol}-server-key")
        if mutual and not values[f"{protocol}_root_cert"]:
            parser.error(f"--{protocol}-use-ssl-mutual needs --{protocol}-root-cert")


def _restrictions(parser: argparse.ArgumentParser, flag: str, texts: Sequence[str]) -> Restrictions:
    try:
        return restricted_apis.parse(texts)
    except ValueError as error:
        parser.error(f"argument {flag}: {error}")


def _without_secrets(pattern: HeaderPattern | None, restricted: Restrictions, prefix: str) -> HeaderPattern | None:
    """The pattern, which matches no header that lets its caller in."""
    names = {f"{prefix}{secret.key}".lower() for secret in restricted.values()}
    return pattern and replace(pattern, never=pattern.never | names)


def _metrics_config(parser: argparse.ArgumentParser, settings: Sequence[str]) -> MetricsConfig:
    try:
        return metrics_config.parse(settings)
    except ValueError as error:
        parser.error(str(error))
