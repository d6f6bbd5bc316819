"""The flags: every one in both its forms, and everything that is wrong with one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.cache_config import LocalCache
from server.flag_values import CompressionLevel, GrpcEngine, LogFormat, ModelControlMode
from server.header_pattern import HeaderPattern
from server.metrics_config import MetricsConfig
from server.restricted_apis import ApiCategory, Secret
from server.settings import Settings, parse
from server.trace_config import TraceConfig, TraceSetting

REPOSITORY = ("--model-repository", "models")
TLS = tuple(
    word
    for protocol in ("grpc", "http", "metrics")
    for name, file in (("server-cert", "c.pem"), ("server-key", "k.pem"), ("root-cert", "r.pem"))
    for word in (f"--{protocol}-{name}", file)
)

FLAGS: dict[str, tuple[str, str, object]] = {
    "--model-repository": ("more", "model_repositories", (Path("models"), Path("more"))),
    "--model-store": ("more", "model_repositories", (Path("models"), Path("more"))),
    "--model-control-mode": ("explicit", "model_control_mode", ModelControlMode.EXPLICIT),
    "--model-repository-cache-dir": ("/cache", "model_repository_cache_dir", Path("/cache")),
    "--repository-poll-secs": ("0.5", "repository_poll_secs", 0.5),
    "--load-model": ("m", "load_models", ("m",)),
    "--model-config-name": ("h100", "model_config_name", "h100"),
    "--model-load-thread-count": ("7", "model_load_thread_count", 7),
    "--model-load-retry-count": ("2", "model_load_retry_count", 2),
    "--exit-on-error": ("true", "exit_on_error", True),
    "--strict-readiness": ("false", "strict_readiness", False),
    "--disable-auto-complete-config": ("true", "disable_auto_complete_config", True),
    "--backend-config": ("onnxruntime,default-max-batch-size=16", "default_max_batch_size", 16),
    "--model-cache-dir": ("/cache", "model_cache_dir", Path("/cache")),
    "--memory-budget": ("3G", "memory_budget", 3 << 30),
    "--run-memory-limit": ("2G", "run_memory_limit", 2 << 30),
    "--max-queued-bytes": ("5000", "max_queued_bytes", 5000),
    "--cache-config": ("local,size=1000", "cache", LocalCache(1000)),
    "--response-cache-byte-size": ("1000", "cache", LocalCache(1000)),
    "--max-running-batches": ("3", "max_running_batches", 3),
    "--run-timeout-ms": ("3000", "run_timeout_ms", 3000),
    "--model-load-timeout-secs": ("90", "model_load_timeout_secs", 90.0),
    "--id": ("name", "server_id", "name"),
    "--exit-timeout-secs": ("2.5", "exit_timeout_secs", 2.5),
    "--shutdown-delay-secs": ("7.5", "shutdown_delay_secs", 7.5),
    "--ports-file": ("ports.json", "ports_file", Path("ports.json")),
    "--log-verbose": ("2", "log_verbose", 2),
    "--log-info": ("false", "log_info", False),
    "--log-warning": ("false", "log_warning", False),
    "--log-error": ("false", "log_error", False),
    "--log-format": ("json", "log_format", LogFormat.JSON),
    "--access-log": ("true", "access_log", True),
    "--trace-config": ("rate=100", "trace", TraceConfig(setting=TraceSetting(rate=100))),
    "--log-file": ("log", "log_file", Path("log")),
    "--allow-grpc": ("false", "allow_grpc", False),
    "--grpc-address": ("127.0.0.1", "grpc_address", "127.0.0.1"),
    "--grpc-port": ("0", "grpc_port", 0),
    "--allow-http": ("false", "allow_http", False),
    "--http-address": ("::1", "http_address", "::1"),
    "--http-port": ("65535", "http_port", 65535),
    "--allow-metrics": ("false", "allow_metrics", False),
    "--metrics-address": ("127.0.0.2", "metrics_address", "127.0.0.2"),
    "--metrics-port": ("1", "metrics_port", 1),
    "--allow-custom-ops": ("true", "allow_custom_ops", True),
    "--allow-client-shm": ("true", "allow_client_shm", True),
    "--allow-cpu-metrics": ("false", "allow_cpu_metrics", False),
    "--allow-gpu-metrics": ("false", "allow_gpu_metrics", False),
    "--metrics-use-ssl": ("true", "metrics_use_ssl", True),
    "--metrics-use-ssl-mutual": ("true", "metrics_use_ssl_mutual", True),
    "--metrics-server-cert": ("x.pem", "metrics_server_cert", Path("x.pem")),
    "--metrics-server-key": ("x.pem", "metrics_server_key", Path("x.pem")),
    "--metrics-root-cert": ("x.pem", "metrics_root_cert", Path("x.pem")),
    "--auth-policy": ("policy.toml", "auth_policy", Path("policy.toml")),
    "--allow-admin": ("true", "allow_admin", True),
    "--audit-log": ("audit.jsonl", "audit_log", Path("audit.jsonl")),
    "--metrics-interval-ms": ("0", "metrics_interval_ms", 0),
    "--metrics-config": ("summary_latencies=true", "metrics_config", MetricsConfig(summary_latencies=True)),
    "--grpc-engine": ("grpcio", "grpc_engine", GrpcEngine.GRPCIO),
    "--grpc-max-message-bytes": ("1000", "grpc_max_message_bytes", 1000),
    "--grpc-infer-response-compression-level": (
        "High",
        "grpc_infer_response_compression_level",
        CompressionLevel.HIGH,
    ),
    "--reuse-grpc-port": ("true", "reuse_grpc_port", True),
    "--distinct-overload-statuses": ("true", "distinct_overload_statuses", True),
    "--grpc-use-ssl": ("true", "grpc_use_ssl", True),
    "--grpc-use-ssl-mutual": ("true", "grpc_use_ssl_mutual", True),
    "--grpc-server-cert": ("x.pem", "grpc_server_cert", Path("x.pem")),
    "--grpc-server-key": ("x.pem", "grpc_server_key", Path("x.pem")),
    "--grpc-root-cert": ("x.pem", "grpc_root_cert", Path("x.pem")),
    "--http-max-input-size": ("1000", "http_max_input_size", 1000),
    "--reuse-http-port": ("true", "reuse_http_port", True),
    "--http-json-nan": ("true", "http_json_nan", True),
    "--ui": ("true", "ui", True),
    "--http-metrics": ("true", "http_metrics", True),
    "--http-use-ssl": ("true", "http_use_ssl", True),
    "--http-use-ssl-mutual": ("true", "http_use_ssl_mutual", True),
    "--http-server-cert": ("x.pem", "http_server_cert", Path("x.pem")),
    "--http-server-key": ("x.pem", "http_server_key", Path("x.pem")),
    "--http-root-cert": ("x.pem", "http_root_cert", Path("x.pem")),
    "--grpc-keepalive-time": ("5", "grpc_keepalive_time_ms", 5),
    "--grpc-keepalive-timeout": ("6", "grpc_keepalive_timeout_ms", 6),
    "--grpc-keepalive-permit-without-calls": ("true", "grpc_keepalive_permit_without_calls", True),
    "--grpc-http2-min-recv-ping-interval-without-data": (
        "7",
        "grpc_http2_min_recv_ping_interval_without_data_ms",
        7,
    ),
    "--grpc-http2-max-ping-strikes": ("0", "grpc_http2_max_ping_strikes", 0),
    "--grpc-max-connection-age": ("8", "grpc_max_connection_age_ms", 8),
    "--grpc-max-connection-age-grace": ("9", "grpc_max_connection_age_grace_ms", 9),
    "--grpc-header-forward-pattern": ("^x-", "grpc_header_forward_pattern", HeaderPattern("^x-")),
    "--http-header-forward-pattern": ("^x-", "http_header_forward_pattern", HeaderPattern("^x-")),
    "--grpc-restricted-protocol": (
        "health:key=value",
        "grpc_restricted_protocols",
        {ApiCategory.HEALTH: Secret("key", "value")},
    ),
    "--http-restricted-api": (
        "trace,logging:key=a=b:c",
        "http_restricted_apis",
        {ApiCategory.TRACE: Secret("key", "a=b:c"), ApiCategory.LOGGING: Secret("key", "a=b:c")},
    ),
}
"""Flag → a value other than the default, the setting that it changes, and what it becomes."""


def with_context(flag: str, *words: str) -> Settings:
    """Parse a flag beside those without which it would be refused."""
    context = [*REPOSITORY, *TLS]
    if flag == "--load-model":
        context += ["--model-control-mode", "explicit"]
    if flag == "--repository-poll-secs":
        context += ["--model-control-mode", "poll"]
    if flag == "--model-repository-cache-dir":
        context += ["--model-repository", "s3://bucket/models"]
    return parse([*context, *words])


@pytest.mark.parametrize(("flag", "text", "name", "expected"), [(f, *rest) for f, rest in FLAGS.items()], ids=FLAGS)
def test_a_flag_takes_its_value_as_the_next_word(flag: str, text: str, name: str, expected: object) -> None:
    assert getattr(with_context(flag, flag, text), name) == expected
    assert getattr(with_context(flag), name) != expected


@pytest.mark.parametrize(("flag", "text", "name", "expected"), [(f, *rest) for f, rest in FLAGS.items()], ids=FLAGS)
def test_a_flag_takes_its_value_behind_an_equals_sign(flag: str, text: str, name: str, expected: object) -> None:
    assert getattr(with_context(flag, f"{flag}={text}"), name) == expected


def test_the_help_describes_every_flag_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    usage = capsys.readouterr().out.split("\n\n")[0]
    assert set(re.findall(r"--[a-z0-9-]+", usage)) - {"--model-namespacing"} | {"--model-store"} == set(FLAGS)


def test_a_flag_that_stands_alone_in_triton_may_do_so_here() -> None:
    settings = parse(["--disable-auto-complete-config", *REPOSITORY])
    assert settings.disable_auto_complete_config
    assert settings.model_repositories == (Path("models"),)


def test_what_is_not_offered_may_be_declined() -> None:
    assert parse([*REPOSITORY, "--model-namespacing=false"]) == parse(REPOSITORY)


def test_the_defaults_are_tritons() -> None:
    settings = parse(REPOSITORY)
    assert (settings.grpc_port, settings.http_port, settings.metrics_port) == (8001, 8000, 8002)
    assert (settings.strict_readiness, settings.exit_timeout_secs) == (True, 30)
    assert settings.model_control_mode is ModelControlMode.NONE
    assert (settings.allow_grpc, settings.allow_http, settings.allow_metrics) == (True, True, True)
    assert settings.default_max_batch_size == 4
    assert settings.max_running_batches is None
    assert (settings.grpc_keepalive_time_ms, settings.grpc_keepalive_timeout_ms) == (7_200_000, 20_000)


def test_metrics_are_served_where_http_is_unless_told_otherwise() -> None:
    assert parse([*REPOSITORY, "--http-address=127.0.0.9"]).metrics_address == "127.0.0.9"


def test_flags_that_may_be_given_again_add_up() -> None:
    settings = parse(
        ["--model-repository=a", "--model-store=b", "--model-control-mode=explicit", "--load-model=x", "--load-model=y"]
    )
    assert settings.model_repositories == (Path("a"), Path("b"))
    assert settings.load_models == ("x", "y")


def test_a_repository_may_be_a_url_and_is_never_printed_with_its_secrets() -> None:
    settings = parse([*REPOSITORY, "--model-repository=s3://user:secret@bucket/models?token=secret"])
    assert settings.model_repositories == (Path("models"),)
    (url,) = settings.model_repository_urls
    assert url.text == "s3://user:secret@bucket/models?token=secret"
    assert "secret" not in f"{settings} {url} {url!r}"


def test_no_pattern_matches_headers_with_secrets() -> None:
    flags = ("--grpc-restricted-protocol=health:Key=s", "--http-restricted-api=trace:X-Key=s")
    settings = parse([*REPOSITORY, *flags, "--grpc-header-forward-pattern=.*", "--http-header-forward-pattern=.*"])
    over_grpc, over_http = settings.grpc_header_forward_pattern, settings.http_header_forward_pattern
    assert over_grpc is not None and over_http is not None
    hidden = {"authorization", "proxy-authorization", "cookie"}
    assert [name for name in (*hidden, "triton-grpc-protocol-key") if over_grpc.matches(name)] == []
    assert [name for name in (*hidden, "x-key") if over_http.matches(name)] == []
    assert over_grpc.matches("x-key") and over_http.matches("x-tenant")


def test_a_policy_says_who_is_an_admin_and_no_flag_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([*REPOSITORY, "--auth-policy=p.toml", "--allow-admin=true"])
    assert "--allow-admin is for servers without --auth-policy" in capsys.readouterr().err


def test_restrictions_add_up_and_are_never_printed_with_their_secrets() -> None:
    settings = parse(
        [*REPOSITORY, "--grpc-restricted-protocol=health:a=secret", "--grpc-restricted-protocol=trace:b=secret"]
    )
    assert set(settings.grpc_restricted_protocols) == {ApiCategory.HEALTH, ApiCategory.TRACE}
    assert "secret" not in repr(settings)


def test_an_empty_header_pattern_forwards_nothing() -> None:
    assert parse([*REPOSITORY, "--grpc-header-forward-pattern="]).grpc_header_forward_pattern is None


def test_the_last_default_batch_size_counts() -> None:
    size = "--backend-config=onnxruntime,default-max-batch-size="
    assert parse([*REPOSITORY, f"{size}8", f"{size}0"]).default_max_batch_size == 0


def test_asking_for_a_clients_certificate_means_tls() -> None:
    assert parse([*REPOSITORY, *TLS, "--grpc-use-ssl-mutual=true"]).grpc_use_ssl


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("True", True), ("TRUE", True), ("1", True), ("false", False), ("False", False), ("0", False)],
)
def test_booleans_are_written_as_triton_takes_them(text: str, expected: bool) -> None:
    assert parse([*REPOSITORY, "--strict-readiness", text]).strict_readiness is expected


WRONG = {
    "no repository": ([], "the following arguments are required: --model-repository"),
    "an unknown flag": ([*REPOSITORY, "--speed=11"], "unrecognized arguments: --speed=11"),
    "a cut flag": ([*REPOSITORY, "--strict=true"], "unrecognized arguments: --strict=true"),
    "a flag without its value": ([*REPOSITORY, "--grpc-port"], "--grpc-port: expected one argument"),
    "a boolean without its value": ([*REPOSITORY, "--allow-http"], "--allow-http: expected one argument"),
    "no boolean": ([*REPOSITORY, "--allow-http=yes"], "--allow-http: must be true or false, not 'yes'"),
    "no port": ([*REPOSITORY, "--grpc-port=grpc"], "--grpc-port: must be a port number from 0 to 65535, not 'grpc'"),
    "a port too high": ([*REPOSITORY, "--http-port=65536"], "--http-port: must be a port number"),
    "a negative port": ([*REPOSITORY, "--metrics-port=-1"], "--metrics-port: must be a port number"),
    "an odd digit": ([*REPOSITORY, "--http-port=8²"], "--http-port: "),
    "no size": ([*REPOSITORY, "--grpc-max-message-bytes=0"], "must be a positive integer, not '0'"),
    "no interval": ([*REPOSITORY, "--grpc-keepalive-time=-5"], "must be an integer of at least 0, not '-5'"),
    "no time": ([*REPOSITORY, "--exit-timeout-secs=soon"], "must be a number of seconds, not 'soon'"),
    "a negative time": ([*REPOSITORY, "--exit-timeout-secs=-1"], "must be a number of seconds, not '-1'"),
    "an endless time": ([*REPOSITORY, "--exit-timeout-secs=inf"], "must be a number of seconds, not 'inf'"),
    "not a time": ([*REPOSITORY, "--exit-timeout-secs=nan"], "must be a number of seconds, not 'nan'"),
    "an unknown mode": (
        [*REPOSITORY, "--model-control-mode=push"],
        "--model-control-mode: must be one of none, explicit, poll, not 'push'",
    ),
    "an unknown log format": (
        [*REPOSITORY, "--log-format=xml"],
        "--log-format: must be one of default, ISO8601, json, not 'xml'",
    ),
    "an unknown engine": (
        [*REPOSITORY, "--grpc-engine=warp"],
        "--grpc-engine: must be one of auto, nghttp2, grpcio, not 'warp'",
    ),
    "no log level": (
        [*REPOSITORY, "--log-verbose=much"],
        "--log-verbose: must be an integer of at least 0",
    ),
    "no time between looks": ([*REPOSITORY, "--repository-poll-secs=0"], "must be more than 0 seconds"),
    "looks without poll": ([*REPOSITORY, "--repository-poll-secs=5"], "needs --model-control-mode=poll"),
    "a cache of nothing": ([*REPOSITORY, "--model-repository-cache-dir=c"], "is for repositories at a distance"),
    "a wildcard beside a name": (
        [*REPOSITORY, "--model-control-mode=explicit", "--load-model=m", "--load-model=*"],
        "wildcard model name '*' must be the ONLY startup model",
    ),
    "names for models of two repositories": ([*REPOSITORY, "--model-namespacing=true"], "a model has one name"),
    "a configuration elsewhere": ([*REPOSITORY, "--model-config-name=../x"], "without its ending, and without spaces"),
    "a hidden configuration": ([*REPOSITORY, "--model-config-name=.x"], "without its ending, and without spaces"),
    "a configuration with spaces": ([*REPOSITORY, "--model-config-name=a b"], "without its ending, and without spaces"),
    "no thread to load": ([*REPOSITORY, "--model-load-thread-count=0"], "must be a positive integer"),
    "a model without explicit mode": ([*REPOSITORY, "--load-model=m"], "needs --model-control-mode=explicit"),
    "nothing to serve": (
        [*REPOSITORY, "--allow-grpc=false", "--allow-http=false", "--allow-metrics=false"],
        "nothing to serve: --allow-grpc, --allow-http and --allow-metrics are all false",
    ),
    "TLS without its files": ([*REPOSITORY, "--grpc-use-ssl=true"], "needs --grpc-server-cert and --grpc-server-key"),
    "TLS of HTTP without its files": (
        [*REPOSITORY, "--http-use-ssl=true"],
        "needs --http-server-cert and --http-server-key",
    ),
    "mutual TLS without a root": (
        [*REPOSITORY, *TLS[:4], "--grpc-use-ssl-mutual=true"],
        "--grpc-use-ssl-mutual needs --grpc-root-cert",
    ),
    "another backend": ([*REPOSITORY, "--backend-config=tensorrt,x=1"], "knows onnxruntime,default-max-batch-size=N"),
    "another setting": ([*REPOSITORY, "--backend-config=onnxruntime,x=1"], "not 'onnxruntime,x=1'"),
    "no header pattern": (
        [*REPOSITORY, "--http-header-forward-pattern=("],
        "--http-header-forward-pattern: '(' is not a regular expression of RE2: missing ): (",
    ),
    "a pattern that looks back": (
        [*REPOSITORY, r"--grpc-header-forward-pattern=(a)\1"],
        "--grpc-header-forward-pattern: '(a)\\1' is not a regular expression of RE2: invalid escape sequence",
    ),
    "an unknown API": (
        [*REPOSITORY, "--grpc-restricted-protocol=health,helath:k=v"],
        "argument --grpc-restricted-protocol: unknown restricted API 'helath'; there are health, metadata, inference, ",
    ),
    "an API in two groups": (
        [*REPOSITORY, "--http-restricted-api=health:a=b", "--http-restricted-api=trace,health:c=d"],
        "--http-restricted-api: restricted API 'health' can not be specified in multiple config groups",
    ),
    "a restriction without APIs": ([*REPOSITORY, "--http-restricted-api=k=v"], "must be APIS:KEY=VALUE"),
    "a restriction without a key": ([*REPOSITORY, "--http-restricted-api=health:=v"], "must be APIS:KEY=VALUE"),
    "a restriction without a value": ([*REPOSITORY, "--http-restricted-api=health:k"], "must be APIS:KEY=VALUE"),
    "a key that is no header": ([*REPOSITORY, "--http-restricted-api=health:k y=v"], "KEY a header's name"),
    "a value that headers trim": ([*REPOSITORY, "--http-restricted-api=health:k= v"], "VALUE printable ASCII"),
    "a key of binary metadata": ([*REPOSITORY, "--grpc-restricted-protocol=health:k-bin=v"], "ends in -bin"),
    "no batch size": ([*REPOSITORY, "--backend-config=onnxruntime,default-max-batch-size="], "=N only, not "),
    "an odd batch size": ([*REPOSITORY, "--backend-config=onnxruntime,default-max-batch-size=²"], "=N only, not "),
    "a giant batch size": (
        [*REPOSITORY, "--backend-config=onnxruntime,default-max-batch-size=9999999999"],
        "=N only, not ",
    ),
}


@pytest.mark.parametrize(("argv", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_flag_says_what_is_wrong(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
