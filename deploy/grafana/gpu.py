"""The GPUs: use, memory, power, and energy for what was answered."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana import panels
from deploy.grafana.layout import GPU, GPUS, Row, build
from deploy.grafana.panels import AnyPanel, Limits, Query, figure, graph
from deploy.grafana.promql import SERVER, highest, mean, rate, total

CHOSEN = f'{SERVER}, gpu_uuid=~"$gpu"'
MEMORY = f"nv_gpu_memory_used_bytes{{{CHOSEN}}} / nv_gpu_memory_total_bytes{{{CHOSEN}}}"
ENERGY = rate("nv_energy_consumption", CHOSEN)


def dashboard() -> Dashboard:
    """The dashboard of the GPUs. Empty without one."""
    return build(
        GPU,
        "Convoy / GPU",
        "GPUs of the servers. Empty where there is none, or with --allow-gpu-metrics=false.",
        [GPUS],
        [Row("Now", _now()), Row("Use and memory", _use()), Row("Power and energy", _power())],
    )


def _now() -> list[AnyPanel]:
    return [
        figure(
            "GPUs",
            "GPUs that the servers see. Fewer than there are: look for the driver's errors (dmesg).",
            f"count(nv_gpu_memory_total_bytes{{{CHOSEN}}})",
            span=4,
        ),
        figure(
            "Use",
            "Mean share of the time that a kernel ran. Above 95 % with queues that grow: add a GPU.",
            mean(f"nv_gpu_utilization{{{CHOSEN}}}"),
            panels.SHARE,
            limits=Limits(0.9, 0.97),
            span=4,
        ),
        figure(
            "Fullest memory",
            "Memory in use on the fullest GPU. Above 90 %: fewer instances, smaller batches or gpu_mem_limit.",
            highest(MEMORY),
            panels.SHARE,
            limits=Limits(0.8, 0.9),
            span=4,
        ),
        figure(
            "Power",
            "What all GPUs draw. Much below the limit under load: they wait for the host.",
            total(f"nv_gpu_power_usage{{{CHOSEN}}}"),
            panels.WATTS,
            span=4,
        ),
        figure(
            "Of the power limit",
            "Power of the GPU that is nearest to its limit. At 100 % it lowers its clock.",
            highest(f"nv_gpu_power_usage{{{CHOSEN}}} / nv_gpu_power_limit{{{CHOSEN}}}"),
            panels.SHARE,
            limits=Limits(0.95, 1),
            span=4,
        ),
        figure(
            "Joules per row",
            "Energy of the GPUs for a row inferred, on any device. Larger batches lower it.",
            f"{total(ENERGY)} / {total(rate('nv_inference_count', SERVER))}",
            "joule",
            span=4,
        ),
    ]


def _use() -> list[AnyPanel]:
    return [
        graph(
            "Use",
            "Share of the time that a kernel ran. Low while instances are busy: copies or the CPU are the limit; try a "
            "CUDA graph or a second instance.",
            Query(f"nv_gpu_utilization{{{CHOSEN}}}", "{{gpu_uuid}}"),
            unit=panels.SHARE,
            top=1,
        ),
        graph(
            "Memory, share",
            "Memory in use, everybody's. Above 90 % the alert ConvoyGpuMemory is near.",
            Query(MEMORY, "{{gpu_uuid}}"),
            unit=panels.SHARE,
            limits=Limits(0.8, 0.9),
            top=1,
        ),
        graph(
            "Memory, bytes",
            "In use, and all that there is. Steps are models that load, or batches of a new size.",
            Query(f"nv_gpu_memory_used_bytes{{{CHOSEN}}}", "used, {{gpu_uuid}}"),
            Query(f"nv_gpu_memory_total_bytes{{{CHOSEN}}}", "total, {{gpu_uuid}}"),
            unit=panels.BYTES,
        ),
        graph(
            "Page-locked memory",
            "Main memory that the GPUs read inputs from, of each server. It cannot be swapped out: count it as taken.",
            Query(f"nv_pinned_memory_pool_used_bytes{{{SERVER}}}", "used, {{instance}}"),
            Query(f"nv_pinned_memory_pool_total_bytes{{{SERVER}}}", "total, {{instance}}"),
            unit=panels.BYTES,
            span=24,
        ),
    ]


def _power() -> list[AnyPanel]:
    return [
        graph(
            "Power",
            "What each GPU draws, and what it may. At the limit: it runs slower than it could.",
            Query(f"nv_gpu_power_usage{{{CHOSEN}}}", "{{gpu_uuid}}"),
            Query(f"nv_gpu_power_limit{{{CHOSEN}}}", "limit of {{gpu_uuid}}"),
            unit=panels.WATTS,
            span=12,
        ),
        graph(
            "Mean power, from energy",
            "Joules each second, from the GPU's own counter: it sees peaks that fall between two scrapes.",
            Query(ENERGY, "{{gpu_uuid}}"),
            unit=panels.WATTS,
            span=12,
        ),
    ]
