"""The server's flags, checked once: names and values as Triton has them wherever Triton has the flag."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from server import flag_values, metrics_config, restricted_apis
from server.cache_config import CacheConfig, CacheConfigInvalid, parse_cache_config
from server.header_pattern import HeaderPattern
from server.metrics_config import MetricsConfig
from server.restricted_apis import GRPC_HEADER_PREFIX, ApiCategory, Restrictions
from server.trace_config import TraceConfig, TraceConfigInvalid, parse_trace_config
from server.urls import RepositoryUrl


class ModelControlMode(StrEnum):
    """Which models are loaded."""

    NONE = "none"
    """All models of the repositories, when the server starts."""
    EXPLICIT = "explicit"
    """Those that --load-model names, when the server starts; others, and again, as callers ask for it."""
    POLL = "poll"
    """All models of the repositories, now and as they change."""


class GrpcEngine(StrEnum):
    """What carries gRPC calls."""

    AUTO = "auto"
    """nghttp2 where it was built, else grpcio."""
    NGHTTP2 = "nghttp2"
    GRPCIO = "grpcio"


class LogFormat(StrEnum):
    """How a line of the log looks."""

    DEFAULT = "default"
    ISO8601 = "ISO8601"
    JSON = "json"


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
    exit_on_error: bool
    strict_readiness: bool
    disable_auto_complete_config: bool
    default_max_batch_size: int
    model_cache_dir: Path | None
    max_queued_bytes: int
    cache: CacheConfig | None
    """Where answers are kept; None: nowhere."""
    distinct_overload_statuses: bool
    max_running_batches: int | None
    """None: as many as cores; 0: no limit."""
    exit_timeout_secs: float
    shutdown_delay_secs: float
    allow_grpc: bool
    grpc_address: str
    grpc_port: int
    grpc_engine: GrpcEngine
    grpc_max_message_bytes: int
    reuse_grpc_port: bool
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
    allow_metrics: bool
    allow_cpu_metrics: bool
    allow_gpu_metrics: bool
    metrics_address: str
    metrics_port: int
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
    parser = _parser()
    flags = parser.parse_args(argv)
    if flags.load_model and flags.model_control_mode is not ModelControlMode.EXPLICIT:
        parser.error("--load-model needs --model-control-mode=explicit")
    if "*" in flags.load_model and len(flags.load_model) > 1:
        parser.error("--load-model: wildcard model name '*' must be the ONLY startup model if specified at all")
    if flags.model_namespacing:
        parser.error(
            "--model-namespacing is not offered: a model has one name on a server; give the models names of their own, "
            "or start a server for each repository"
        )
    if flags.repository_poll_secs is not None and flags.model_control_mode is not ModelControlMode.POLL:
        parser.error("--repository-poll-secs needs --model-control-mode=poll")
    if flags.model_repository_cache_dir and not any(isinstance(r, RepositoryUrl) for r in flags.model_repository):
        parser.error("--model-repository-cache-dir is for repositories at a distance: --model-repository s3://…")
    _check_tls_flags(parser, flags)
    if not (flags.allow_grpc or flags.allow_http or flags.allow_metrics):
        parser.error("nothing to serve: --allow-grpc, --allow-http and --allow-metrics are all false")
    return Settings(
        model_repositories=tuple(each for each in flags.model_repository if isinstance(each, Path)),
        model_repository_urls=tuple(each for each in flags.model_repository if isinstance(each, RepositoryUrl)),
        model_repository_cache_dir=flags.model_repository_cache_dir,
        server_id=flags.id,
        model_control_mode=flags.model_control_mode,
        repository_poll_secs=flags.repository_poll_secs or 15.0,
        load_models=tuple(flags.load_model),
        model_config_name=flags.model_config_name or "",
        model_load_thread_count=flags.model_load_thread_count,
        model_load_retry_count=flags.model_load_retry_count,
        exit_on_error=flags.exit_on_error,
        strict_readiness=flags.strict_readiness,
        disable_auto_complete_config=flags.disable_auto_complete_config,
        default_max_batch_size=flags.backend_config[-1],
        model_cache_dir=flags.model_cache_dir,
        max_queued_bytes=flags.max_queued_bytes,
        cache=_cache_config(parser, flags),
        distinct_overload_statuses=flags.distinct_overload_statuses,
        max_running_batches=flags.max_running_batches,
        exit_timeout_secs=flags.exit_timeout_secs,
        shutdown_delay_secs=flags.shutdown_delay_secs,
        allow_grpc=flags.allow_grpc,
        grpc_address=flags.grpc_address,
        grpc_port=flags.grpc_port,
        grpc_engine=flags.grpc_engine,
        grpc_max_message_bytes=flags.grpc_max_message_bytes,
        reuse_grpc_port=flags.reuse_grpc_port,
        grpc_use_ssl=flags.grpc_use_ssl or flags.grpc_use_ssl_mutual,
        grpc_use_ssl_mutual=flags.grpc_use_ssl_mutual,
        grpc_server_cert=flags.grpc_server_cert,
        grpc_server_key=flags.grpc_server_key,
        grpc_root_cert=flags.grpc_root_cert,
        grpc_keepalive_time_ms=flags.grpc_keepalive_time,
        grpc_keepalive_timeout_ms=flags.grpc_keepalive_timeout,
        grpc_keepalive_permit_without_calls=flags.grpc_keepalive_permit_without_calls,
        grpc_http2_min_recv_ping_interval_without_data_ms=flags.grpc_http2_min_recv_ping_interval_without_data,
        grpc_http2_max_ping_strikes=flags.grpc_http2_max_ping_strikes,
        grpc_max_connection_age_ms=flags.grpc_max_connection_age,
        grpc_max_connection_age_grace_ms=flags.grpc_max_connection_age_grace,
        grpc_header_forward_pattern=flags.grpc_header_forward_pattern,
        grpc_restricted_protocols=_restrictions(parser, "--grpc-restricted-protocol", flags.grpc_restricted_protocol),
        allow_client_shm=flags.allow_client_shm,
        allow_http=flags.allow_http,
        http_address=flags.http_address,
        http_port=flags.http_port,
        http_max_input_size=flags.http_max_input_size,
        http_use_ssl=flags.http_use_ssl or flags.http_use_ssl_mutual,
        http_use_ssl_mutual=flags.http_use_ssl_mutual,
        http_server_cert=flags.http_server_cert,
        http_server_key=flags.http_server_key,
        http_root_cert=flags.http_root_cert,
        http_json_nan=flags.http_json_nan,
        http_header_forward_pattern=flags.http_header_forward_pattern,
        http_restricted_apis=_restrictions(parser, "--http-restricted-api", flags.http_restricted_api),
        http_metrics=flags.http_metrics,
        allow_metrics=flags.allow_metrics,
        allow_cpu_metrics=flags.allow_cpu_metrics,
        allow_gpu_metrics=flags.allow_gpu_metrics,
        metrics_address=flags.metrics_address or flags.http_address,
        metrics_port=flags.metrics_port,
        metrics_interval_ms=flags.metrics_interval_ms,
        metrics_config=_metrics_config(parser, flags.metrics_config),
        trace=_trace_config(parser, flags.trace_config),
        access_log=flags.access_log,
        log_verbose=flags.log_verbose,
        log_info=flags.log_info,
        log_warning=flags.log_warning,
        log_error=flags.log_error,
        log_format=flags.log_format,
        log_file=flags.log_file,
        ports_file=flags.ports_file,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Serve ONNX models over the KServe v2 / Triton gRPC protocol, in batches.",
        allow_abbrev=False,
    )
    _add_model_flags(parser.add_argument_group("models"))
    _add_listener_flags(parser.add_argument_group("listeners"))
    _add_grpc_flags(parser.add_argument_group("gRPC"))
    _add_http_flags(parser.add_argument_group("HTTP"))
    other = parser.add_argument_group("process")
    other.add_argument("--id", default="convoy", metavar="NAME", help="the server's name in ServerMetadata")
    other.add_argument(
        "--exit-timeout-secs", type=flag_values.seconds, default=30.0, metavar="SECONDS",
        help="on SIGTERM, how long requests in progress may take before they are aborted (default 30)",
    )  # fmt: skip
    other.add_argument(
        "--shutdown-delay-secs", type=flag_values.seconds, default=0.0, metavar="SECONDS",
        help="on SIGTERM, how long to go on serving as not ready, so that load balancers notice (default 0)",
    )  # fmt: skip
    other.add_argument(
        "--ports-file", type=Path, metavar="PATH", help="write the ports in use to this JSON file once listening"
    )
    _add_observation_flags(parser.add_argument_group("logs and traces"))
    return parser


def _add_model_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model-repository", "--model-store", type=flag_values.repository, action="append", required=True,
        metavar="PATH|URL",
        help="a folder of models, or the URL of one (s3://bucket/models, gs://, abfs://); again for more than one",
    )  # fmt: skip
    group.add_argument(
        "--model-repository-cache-dir", type=Path, metavar="PATH",
        help="where repositories at a distance are kept on this machine (default: a temporary folder)",
    )  # fmt: skip
    group.add_argument(
        "--model-control-mode", type=flag_values.one_of(ModelControlMode), default=ModelControlMode.NONE,
        choices=list(ModelControlMode),
        help="none: load every model (default); explicit: load those of --load-model, and others on request; poll: "
        "load every model, and follow what becomes of the repositories",
    )  # fmt: skip
    group.add_argument(
        "--repository-poll-secs", type=flag_values.interval, metavar="SECONDS",
        help="with poll, how long from one look at the repositories to the next (default 15)",
    )  # fmt: skip
    group.add_argument(
        "--load-model", action="append", default=[], metavar="NAME",
        help="a model to load at start in explicit mode; again for more than one; * alone for all",
    )  # fmt: skip
    group.add_argument(
        "--model-config-name", type=flag_values.file_stem, metavar="NAME",
        help="take configs/NAME.pbtxt of the models that have it, config.pbtxt of the others",
    )  # fmt: skip
    group.add_argument(
        "--model-load-thread-count", type=flag_values.positive_int, metavar="N",
        help="how many versions are loaded at once (default: half as many as cores, 4 at most)",
    )  # fmt: skip
    group.add_argument(
        "--model-load-retry-count", type=flag_values.natural, default=0, metavar="N",
        help="how often a load that failed is tried again at once, unless the configuration is wrong (default 0)",
    )  # fmt: skip
    _add_boolean(group, "--exit-on-error", False, "do not start where a model cannot be loaded at start")
    _add_boolean(group, "--model-namespacing", False, "not offered: models of one name in two repositories")
    _add_boolean(group, "--strict-readiness", True, "ready only when every model that should serve does")
    group.add_argument(
        "--disable-auto-complete-config", type=flag_values.boolean, nargs="?", const=True, default=False,
        metavar="true|false", help="take config.pbtxt as it stands (default false; true where no value follows)",
    )  # fmt: skip
    group.add_argument(
        "--backend-config", type=flag_values.backend_config, action="append", default=[4],
        metavar="BACKEND,KEY=VALUE",
        help="only onnxruntime,default-max-batch-size=N: max_batch_size for models whose config has none (default 4)",
    )  # fmt: skip
    group.add_argument(
        "--model-cache-dir", type=Path, metavar="PATH",
        help="where optimised graphs are kept, for models whose parameter optimized_model_cache is true",
    )  # fmt: skip
    group.add_argument(
        "--max-queued-bytes", type=flag_values.positive_int, default=1 << 30, metavar="BYTES",
        help="how much the waiting requests of all models may hold together (default 1 GiB)",
    )  # fmt: skip
    group.add_argument(
        "--cache-config", action="append", default=[], metavar="CACHE,KEY=VALUE",
        help="where the answers of models with response_cache are kept: local,size=BYTES, or redis,host=HOST and "
        "redis,port=PORT (also user, password, db, tls_enabled, cacert, cert, key, wait_timeout=MS, ttl=SECONDS)",
    )  # fmt: skip
    group.add_argument(
        "--response-cache-byte-size", type=flag_values.natural, metavar="BYTES",
        help="deprecated: as --cache-config local,size=BYTES; 0 for none",
    )  # fmt: skip
    group.add_argument(
        "--max-running-batches", type=flag_values.natural, metavar="N",
        help="how many batches of all models may run at once on the CPU; 0: as many as instances (default: cores)",
    )  # fmt: skip


def _add_listener_flags(group: argparse._ArgumentGroup) -> None:
    for name, port, what in (("grpc", 8001, "gRPC"), ("http", 8000, "HTTP"), ("metrics", 8002, "metrics")):
        _add_boolean(group, f"--allow-{name}", True, f"serve {what}")
        address = None if name == "metrics" else "0.0.0.0"
        note = "default: as --http-address" if name == "metrics" else "default 0.0.0.0"
        group.add_argument(f"--{name}-address", default=address, metavar="ADDRESS", help=f"where to serve it ({note})")
        group.add_argument(
            f"--{name}-port",
            type=flag_values.port,
            default=port,
            metavar="PORT",
            help=f"default {port}; 0 takes a free one",
        )
    _add_boolean(
        group,
        "--allow-client-shm",
        False,
        "let clients register shared memory, which the server then reads and writes: for clients that are trusted",
    )
    _add_boolean(group, "--allow-cpu-metrics", True, "metrics of the machine's processors and memory")
    _add_boolean(group, "--allow-gpu-metrics", True, "metrics of the machine's GPUs, where there are any")
    group.add_argument(
        "--metrics-interval-ms", type=flag_values.natural, default=2000, metavar="MS",
        help="for how long readings of the machine's processors and GPUs are good (default 2000)",
    )  # fmt: skip
    group.add_argument(
        "--metrics-config", action="append", default=[], metavar="KEY=VALUE",
        help="counter_latencies=true|false, histogram_latencies=true|false, summary_latencies=true|false (default "
        "false) and summary_quantiles=QUANTILE:ERROR,...",
    )  # fmt: skip


def _add_grpc_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--grpc-engine", type=flag_values.one_of(GrpcEngine), default=GrpcEngine.AUTO, choices=list(GrpcEngine),
        help="auto (default): nghttp2 where it was built, else grpcio",
    )  # fmt: skip
    group.add_argument(
        "--grpc-max-message-bytes", type=flag_values.positive_int, default=128 << 20, metavar="BYTES",
        help="the largest request to read (default 128 MiB)",
    )  # fmt: skip
    _add_boolean(
        group,
        "--distinct-overload-statuses",
        False,
        "answer overload with RESOURCE_EXHAUSTED (HTTP: 429) and lateness with DEADLINE_EXCEEDED (504), not both with "
        "UNAVAILABLE (503)",
    )
    _add_boolean(group, "--reuse-grpc-port", False, "share the port with other processes")
    _add_tls_flags(group, "grpc")
    numbers = (
        ("keepalive-time", 7_200_000, "MS", "silence after which a peer is pinged"),
        ("keepalive-timeout", 20_000, "MS", "how long it may take to answer"),
        ("http2-min-recv-ping-interval-without-data", 300_000, "MS", "how often a peer may ping without data"),
        ("http2-max-ping-strikes", 2, "N", "how often a peer may ping too often; 0 lets it"),
        ("max-connection-age", 0, "MS", "age at which connections are asked to go; 0 never"),
        ("max-connection-age-grace", 0, "MS", "how long their calls may then go on; 0 for ever"),
    )
    for name, default, unit, text in numbers:
        group.add_argument(
            f"--grpc-{name}",
            type=flag_values.natural,
            default=default,
            metavar=unit,
            help=f"{text} (default {default})",
        )
    _add_boolean(group, "--grpc-keepalive-permit-without-calls", False, "ping, and be pinged, without an open call")
    _add_access_flags(group, "grpc", "--grpc-restricted-protocol", f"{GRPC_HEADER_PREFIX}KEY")


def _add_access_flags(group: argparse._ArgumentGroup, protocol: str, restricting: str, header: str) -> None:
    group.add_argument(
        f"--{protocol}-header-forward-pattern", type=flag_values.header_pattern, metavar="REGEX",
        help="headers whose names match (RE2, in any part, whatever the case) are parameters of requests: they show in "
        "the access log and in traces",
    )  # fmt: skip
    group.add_argument(
        restricting, action="append", default=[], metavar="APIS:KEY=VALUE",
        help=f"answer these APIs, separated by commas, only where the header {header} has the value; again for others: "
        + ", ".join(ApiCategory),
    )  # fmt: skip


def _add_http_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--http-max-input-size", type=flag_values.positive_int, default=64 << 20, metavar="BYTES",
        help="the largest body of a request to read, also after decompression (default 64 MiB)",
    )  # fmt: skip
    _add_boolean(group, "--http-json-nan", False, "read and write NaN and Infinity in JSON, as bare words")
    _add_boolean(group, "--http-metrics", False, "serve the metrics page here too")
    _add_access_flags(group, "http", "--http-restricted-api", "KEY")
    _add_tls_flags(group, "http")


def _add_tls_flags(group: argparse._ArgumentGroup, protocol: str) -> None:
    _add_boolean(group, f"--{protocol}-use-ssl", False, "TLS, with the two files that follow")
    _add_boolean(group, f"--{protocol}-use-ssl-mutual", False, "TLS that asks clients for a certificate too")
    for name, what in (("server-cert", "certificate"), ("server-key", "key"), ("root-cert", "root for clients")):
        group.add_argument(f"--{protocol}-{name}", type=Path, metavar="PATH", help=f"PEM file of the {what}")


def _add_observation_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--log-verbose", type=flag_values.natural, default=0, metavar="LEVEL",
        help="0: information; 1: debugging detail and a line for each request too; 2: that of libraries as well",
    )  # fmt: skip
    for level in ("info", "warning", "error"):
        _add_boolean(group, f"--log-{level}", True, f"log what is of level {level}")
    group.add_argument(
        "--log-format", type=flag_values.one_of(LogFormat), default=LogFormat.DEFAULT, choices=list(LogFormat)
    )
    group.add_argument("--log-file", type=Path, metavar="PATH", help="append the log to this file instead of stderr")
    _add_boolean(group, "--access-log", False, "a line in the log for each inference request")
    group.add_argument(
        "--trace-config", action="append", default=[], metavar="[MODE,]SETTING=VALUE",
        help="mode=opentelemetry or triton; level=TIMESTAMPS or OFF; rate=N; count=N; opentelemetry,url=URL; "
        "opentelemetry,resource=KEY=VALUE; opentelemetry,bsp_max_queue_size=N (also bsp_schedule_delay and "
        "bsp_max_export_batch_size); triton,file=PATH; triton,log-frequency=N",
    )  # fmt: skip


def _trace_config(parser: argparse.ArgumentParser, texts: Sequence[str]) -> TraceConfig:
    try:
        return parse_trace_config(texts)
    except TraceConfigInvalid as error:
        parser.error(str(error))


def _cache_config(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> CacheConfig | None:
    try:
        return parse_cache_config(flags.cache_config, flags.response_cache_byte_size, os.environ)
    except CacheConfigInvalid as error:
        parser.error(str(error))


def _check_tls_flags(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    values = vars(flags)
    for protocol in ("grpc", "http"):
        mutual = values[f"{protocol}_use_ssl_mutual"]
        files = values[f"{protocol}_server_cert"] and values[f"{protocol}_server_key"]
        if (values[f"{protocol}_use_ssl"] or mutual) and not files:
            parser.error(f"--{protocol}-use-ssl needs --{protocol}-server-cert and --{protocol}-server-key")
        if mutual and not values[f"{protocol}_root_cert"]:
            parser.error(f"--{protocol}-use-ssl-mutual needs --{protocol}-root-cert")


def _add_boolean(group: argparse._ArgumentGroup, flag: str, default: bool, text: str) -> None:
    group.add_argument(
        flag,
        type=flag_values.boolean,
        default=default,
        metavar="true|false",
        help=f"{text} (default {str(default).lower()})",
    )


def _restrictions(parser: argparse.ArgumentParser, flag: str, texts: Sequence[str]) -> Restrictions:
    try:
        return restricted_apis.parse(texts)
    except ValueError as error:
        parser.error(f"argument {flag}: {error}")


def _metrics_config(parser: argparse.ArgumentParser, settings: Sequence[str]) -> MetricsConfig:
    try:
        return metrics_config.parse(settings)
    except ValueError as error:
        parser.error(str(error))
