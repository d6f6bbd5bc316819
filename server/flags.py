"""The flags, with their defaults: names and values as Triton has them wherever Triton has the flag."""

from __future__ import annotations

import argparse
from pathlib import Path

from server import flag_values
from server.flag_values import CompressionLevel, GrpcEngine, LogFormat, ModelControlMode
from server.restricted_apis import GRPC_HEADER_PREFIX, ApiCategory


def parser() -> argparse.ArgumentParser:
    """Of the command line. What flags mean together is for `settings` to check."""
    every = argparse.ArgumentParser(
        prog="python -m server",
        description="Serve ONNX models over the KServe v2 / Triton gRPC protocol, in batches.",
        allow_abbrev=False,
    )
    _add_model_flags(every.add_argument_group("models"))
    listeners = every.add_argument_group("listeners")
    _add_listener_flags(listeners)
    _add_tls_flags(listeners, "metrics")
    _add_grpc_flags(every.add_argument_group("gRPC"))
    _add_http_flags(every.add_argument_group("HTTP"))
    _add_access_control_flags(every.add_argument_group("access"))
    other = every.add_argument_group("process")
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
    _add_observation_flags(every.add_argument_group("logs and traces"))
    return every


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
    group.add_argument(
        "--model-load-timeout-secs", type=flag_values.seconds, default=1800.0, metavar="SECONDS",
        help="how long it may take to load a version before it is given up; 0: as long as it likes (default 1800)",
    )  # fmt: skip
    _add_boolean(group, "--exit-on-error", False, "do not start where a model cannot be loaded at start")
    _add_boolean(group, "--model-namespacing", False, "not offered: models of one name in two repositories")
    _add_boolean(group, "--strict-readiness", True, "ready only when every model that should serve does")
    group.add_argument(
        "--disable-auto-complete-config", type=flag_values.boolean, nargs="?", const=True, default=False,
        metavar="true|false", help="take config.pbtxt as it stands (default false; true where no value follows)",
    )  # fmt: skip
    _add_boolean(
        group,
        "--allow-custom-ops",
        False,
        "run the operator libraries that models bring (model_operations): code, with all rights of the server",
    )
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
        "--memory-budget", type=flag_values.byte_size, metavar="BYTES",
        help="how much all requests and answers may hold together, over all protocols, from the first byte read to "
        "the last byte written; K, M, G or T after the number count in powers of 1024 (default: a quarter of the "
        "memory, or four times the largest request)",
    )  # fmt: skip
    group.add_argument(
        "--run-memory-limit", type=flag_values.byte_size, metavar="BYTES",
        help="how much the runs of all models on the CPU may hold together, of tensors between operators and of "
        "outputs; a run that asks for more is answered UNAVAILABLE; units as above (default: as much as they like)",
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
    group.add_argument(
        "--run-timeout-ms", type=flag_values.natural, default=0, metavar="MS",
        help="how long a run may take of models without a parameter run_timeout_ms; 0: as long as it likes (default)",
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


def _add_access_control_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--auth-policy", type=Path, metavar="PATH",
        help="a TOML file that says who may ask what; nobody else may ask anything but for health",
    )  # fmt: skip
    group.add_argument(
        "--allow-admin", type=flag_values.boolean, metavar="true|false",
        help="without --auth-policy, whether callers may load and unload models, register shared memory and change "
        "trace and log settings, as far as other flags allow it (default: on loopback addresses only; shared memory on "
        "all)",
    )  # fmt: skip
    group.add_argument(
        "--audit-log", type=Path, metavar="PATH",
        help="append a line of JSON to this file for each call that changes the server, or is not allowed to",
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
    group.add_argument(
        "--grpc-infer-response-compression-level", type=flag_values.lower_case_of(CompressionLevel),
        default=CompressionLevel.NONE, choices=list(CompressionLevel),
        help="compress answers of ModelInfer for callers who understand it (default none)",
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
    _add_boolean(group, "--reuse-http-port", False, "share the port with other processes")
    _add_boolean(group, "--http-json-nan", False, "read and write NaN and Infinity in JSON, as bare words")
    _add_boolean(group, "--http-metrics", False, "serve the metrics page here too")
    group.add_argument(
        "--ui", type=flag_values.boolean, metavar="true|false",
        help="serve the playground, a page for people, at / (default: where --http-address is a loopback address)",
    )  # fmt: skip
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


def _add_boolean(group: argparse._ArgumentGroup, flag: str, default: bool, text: str) -> None:
    group.add_argument(
        flag,
        type=flag_values.boolean,
        default=default,
        metavar="true|false",
        help=f"{text} (default {str(default).lower()})",
    )
