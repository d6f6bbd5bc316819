"""What Triton's ONNX path offers to its users, by name, as of August 2026. RPCs and fields are those of `proto`."""

from __future__ import annotations

FLAGS = frozenset(
    f"--{name}"
    for name in [
        "help",
        "id",
        "exit-timeout-secs",
        "model-store",
        "model-repository",
        "exit-on-error",
        "disable-auto-complete-config",
        "strict-readiness",
        "model-control-mode",
        "repository-poll-secs",
        "load-model",
        "model-config-name",
        "model-load-thread-count",
        "model-load-retry-count",
        "model-namespacing",
        "enable-peer-access",
        "allow-http",
        "http-address",
        "http-port",
        "reuse-http-port",
        "http-header-forward-pattern",
        "http-thread-count",
        "http-max-input-size",
        "http-restricted-api",
        "allow-grpc",
        "grpc-address",
        "grpc-port",
        "reuse-grpc-port",
        "grpc-header-forward-pattern",
        "grpc-infer-thread-count",
        "grpc-infer-allocation-pool-size",
        "grpc-max-response-pool-size",
        "grpc-use-ssl",
        "grpc-use-ssl-mutual",
        "grpc-server-cert",
        "grpc-server-key",
        "grpc-root-cert",
        "grpc-infer-response-compression-level",
        "grpc-keepalive-time",
        "grpc-keepalive-timeout",
        "grpc-keepalive-permit-without-calls",
        "grpc-http2-max-pings-without-data",
        "grpc-http2-min-recv-ping-interval-without-data",
        "grpc-http2-max-ping-strikes",
        "grpc-max-connection-age",
        "grpc-max-connection-age-grace",
        "grpc-restricted-protocol",
        "log-verbose",
        "log-info",
        "log-warning",
        "log-error",
        "log-format",
        "log-file",
        "allow-metrics",
        "allow-gpu-metrics",
        "allow-cpu-metrics",
        "metrics-address",
        "metrics-port",
        "metrics-interval-ms",
        "metrics-config",
        "trace-config",
        "trace-file",
        "trace-level",
        "trace-rate",
        "trace-count",
        "trace-log-frequency",
        "cache-config",
        "cache-directory",
        "response-cache-byte-size",
        "rate-limit",
        "rate-limit-resource",
        "pinned-memory-pool-byte-size",
        "cuda-memory-pool-byte-size",
        "cuda-virtual-address-size",
        "min-supported-compute-capability",
        "buffer-manager-thread-count",
        "host-policy",
        "model-load-gpu-limit",
        "allow-client-shm",
        "backend-directory",
        "backend-config",
        "repoagent-directory",
        "strict-model-config",
        "allow-sagemaker",
        "sagemaker-port",
        "sagemaker-safe-port-range",
        "sagemaker-thread-count",
        "allow-vertex-ai",
        "vertex-ai-port",
        "vertex-ai-thread-count",
        "vertex-ai-default-model",
    ]
)

EXTENSIONS = frozenset(
    [
        "classification",
        "sequence",
        "model_repository",
        "model_repository(unload_dependents)",
        "schedule_policy",
        "model_configuration",
        "system_shared_memory",
        "cuda_shared_memory",
        "binary_tensor_data",
        "parameters",
        "statistics",
        "trace",
        "logging",
    ]
)

_MODELS = ("v2/models/{model}", "v2/models/{model}/versions/{version}")
_REPOSITORIES = ("v2/repository", "v2/repository/{repository}")
_MEMORIES = ("v2/systemsharedmemory", "v2/cudasharedmemory")

ROUTES = frozenset({
    *(f"GET {path}" for path in ("v2", "v2/health/live", "v2/health/ready", "v2/models/stats")),
    *(f"GET {model}{part}" for model in _MODELS for part in ("", "/ready", "/config", "/stats")),
    *(f"POST {model}/{part}" for model in _MODELS for part in ("infer", "generate", "generate_stream")),
    *(f"POST {root}/index" for root in _REPOSITORIES),
    *(f"POST {root}/models/{{model}}/{verb}" for root in _REPOSITORIES for verb in ("load", "unload")),
    *(f"POST {root}/region/{{region}}/register" for root in _MEMORIES),
    *(f"GET {root}{part}/status" for root in _MEMORIES for part in ("", "/region/{region}")),
    *(f"POST {root}{part}/unregister" for root in _MEMORIES for part in ("", "/region/{region}")),
    *(
        f"{verb} {path}"
        for verb in ("GET", "POST")
        for path in ("v2/trace/setting", "v2/models/{model}/trace/setting", "v2/logging")
    ),
})  # fmt: skip

PARAMETERS = frozenset(
    [
        "intra_op_thread_count",
        "inter_op_thread_count",
        "execution_mode",
        "enable_mem_arena",
        "enable_mem_pattern",
        "session.use_device_allocator_for_initializers",
        "memory.enable_memory_arena_shrinkage",
        "cudnn_conv_algo_search",
        "gpu_mem_limit",
        "arena_extend_strategy",
        "do_copy_in_default_stream",
    ]
)
"""Keys of `parameters` that the ONNX Runtime backend reads."""

METRICS = frozenset(
    [
        "nv_inference_request_success",
        "nv_inference_request_failure",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_request_duration_us",
        "nv_inference_queue_duration_us",
        "nv_inference_compute_input_duration_us",
        "nv_inference_compute_infer_duration_us",
        "nv_inference_compute_output_duration_us",
        "nv_cache_num_hits_per_model",
        "nv_cache_num_misses_per_model",
        "nv_cache_hit_duration_per_model",
        "nv_cache_miss_duration_per_model",
        "nv_inference_pending_request_count",
        "nv_model_load_duration_secs",
        "nv_pinned_memory_pool_total_bytes",
        "nv_pinned_memory_pool_used_bytes",
        "nv_cpu_utilization",
        "nv_cpu_memory_total_bytes",
        "nv_cpu_memory_used_bytes",
        "nv_gpu_utilization",
        "nv_gpu_memory_total_bytes",
        "nv_gpu_memory_used_bytes",
        "nv_gpu_power_usage",
        "nv_gpu_power_limit",
        "nv_energy_consumption",
        "nv_inference_first_response_histogram_ms",
        "nv_inference_request_summary_us",
        "nv_inference_queue_summary_us",
        "nv_inference_compute_input_summary_us",
        "nv_inference_compute_infer_summary_us",
        "nv_inference_compute_output_summary_us",
        "nv_cache_hit_summary_per_model",
        "nv_cache_miss_summary_per_model",
    ]
)

SETTINGS = frozenset(
    [
        "trace_level",
        "trace_rate",
        "trace_count",
        "log_frequency",
        "trace_file",
        "trace_mode",
        "log_file",
        "log_info",
        "log_warning",
        "log_error",
        "log_verbose_level",
        "log_format",
    ]
)
"""What TraceSetting and LogSettings show."""
