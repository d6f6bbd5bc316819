"""docs/benchmarks.md: tables and sentences from the summary of a run. Everything in it is measured or said by `run`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from loadtest.peers.catalogue import REFERENCE
from loadtest.side_by_side.plots import draw
from loadtest.side_by_side.records import Record
from loadtest.side_by_side.summary import OBJECTIVE, START, WORDS, Figure, Lead, Run, Server, Summary, leads

_BUSY = 0.5
"""Load per core, before anything is started, from which a run is of little use."""

_METHOD = """## How it was measured

One server ran at a time, started afresh for each turn; all servers took turns, {rounds} rounds, each beginning with
another one. Figures are medians of the rounds, with the least and the most in brackets; × is the median ÷ that of
{reference}. The same file `model.onnx` ran everywhere on ONNX Runtime's CPU provider, with as many threads (LeNet-5 and
the 602 KB requests: 1, ResNet-18: 2), which sleep while they wait (`session.intra_op.allow_spinning` 0), and with the
same largest batch (64; 8 for ResNet-18 and the 602 KB requests). Where a server has a fixed window for batches, it is
1 ms, which a lone request waits too.

- **Load**: h2load, one thread, the same for all servers of a protocol: gRPC over 4 connections (1 for one in flight),
  HTTP/1.1 over as many connections as requests in flight, kept alive. After a warm-up, a volley of a fixed number of
  requests, {volleys}. A closed loop. It shares the machine with the server.
- **Right answers**: of every server, one answer before, one after each volley, and 16 different requests sent at once
  are compared with ONNX Runtime's numbers. In a volley every status must be 2xx and, since a gRPC error is a trailer,
  the bytes of all answers must add up.
- **Server CPU**: user and system time of all processes of the server, from the kernel, divided by requests. It counts
  in steps of 10 ms.
- **Memory**: of all processes of the server: pages that are no file's, a page shared by n processes counted once
  (`Pss_Anon` + `Pss_Shmem`), and mapped files, each once. Under load: the most of samples taken every second.
- **Time to the first answer**: from the start of the process to the first right answer, asked for every 20 ms.
- **Objective**: Poisson arrivals from an open-loop generator (latency counts from the scheduled moment). The highest of
  the rates 250 × 2^(n/2) per second at which 99 % were answered within the limit; found by bisection, a rate
  that fails being tried twice, no higher than the best closed-loop rate.
- Not measured: networks, GPUs, more than these cores. bare grpc.aio runs no model: it is a floor, not a server.
"""


def write_report(run: Run, records: Iterable[Record], folder: Path) -> Path:
    """Writes benchmarks.md to `folder` and its pictures to `folder`/images; returns the page's path.

    Records of servers and subjects that `run` does not name are left out.
    """
    names = {server.name for server in run.servers}
    summary = Summary(record for record in records if record.server in names and record.subject in run.subjects)
    pictures = draw(run, summary, folder / "images")
    page = folder / "benchmarks.md"
    page.write_text(render(run, summary, pictures))
    return page


def render(run: Run, summary: Summary, pictures: Mapping[str, str]) -> str:
    """The page. `pictures` maps what a picture shows to its path."""
    parts = ["# Benchmarks", _opening(run, summary), "## In short", _short(run, summary)]
    parts += [f"![{what}]({path})" for what, path in pictures.items()]
    parts += ["## Where others are ahead", _behind(run, leads(summary, run, REFERENCE.name))]
    for subject, title in run.subjects.items():
        parts.append(f"## {title}")
        parts += [_table(run, summary, subject, load) for load in summary.loads(subject)]
    parts += ["## Arrivals within an objective", _objectives(run, summary)]
    parts += ["## Start and memory", *(_start(run, summary, subject) for subject in run.subjects)]
    parts += ["## Who took part", _participants(run, summary)]
    volleys = ", ".join(f"about {seconds:g} s for {run.subjects[name]}" for name, seconds in run.volley_seconds.items())
    parts.append(_METHOD.format(rounds=run.rounds, reference=REFERENCE.title, volleys=volleys).rstrip())
    return "\n\n".join(parts) + "\n"


def _opening(run: Run, summary: Summary) -> str:
    of = run.machine
    packages = ", ".join(f"{name} {of[name]}" for name in ("onnxruntime", "grpcio", "uvloop", "numpy", "protobuf"))
    rate, cpu = (summary.largest_spread(REFERENCE.name, name) for name in ("requests_per_second", "cpu_us_per_request"))
    noise = "with one round, the noise is not known."
    if run.rounds > 1:
        noise = (
            f"the rounds of {REFERENCE.title} differed by up to {rate:.0%} of the median in requests/s "
            f"and {cpu:.0%} in server CPU."
        )
    lines = [
        f"This page is made by `make bench` (`ARGS=--report-only` draws it again) and took {run.minutes:.0f} minutes.",
        f"Machine: {of['processor']}, {of['cores']} cores, {of['system']}; Python {of['python']}, {packages}.",
        f"Load average {of['load_average_before']:.2f} before and {of['load_average_after']:.2f} after. Noise: {noise}",
    ]
    if of["load_average_before"] > _BUSY * of["cores"]:
        lines.append(
            "\n**The machine was busy with other programs: neither figures nor ratios of this run are worth much.**"
        )
    return "\n".join(lines)


def _short(run: Run, summary: Summary) -> str:
    """A sentence per load: ours, and the best of the others that run the model."""
    lines = []
    others = [server for server in run.servers if not server.ours and server.runs_model]
    for subject, title in run.subjects.items():
        for load in summary.loads(subject):
            ours = summary.figures(REFERENCE.name, subject, load).get("requests_per_second")
            rates = {
                server.title: figures["requests_per_second"]
                for server in others
                if (figures := summary.figures(server.name, subject, load))
            }
            if ours is None or not rates:
                continue
            best = max(rates, key=lambda name: rates[name].median)
            times = ours.median / rates[best].median
            lines.append(
                f"- {title}, {load} in flight: {REFERENCE.title} {_number(ours.median)} requests/s, "
                f"{times:.2f} × the best of the others ({best}, {_number(rates[best].median)})."
            )
    return "\n".join(lines) or "Nothing to compare."


def _behind(run: Run, found: Sequence[Lead]) -> str:
    if not found:
        return f"No other server that runs the model is ahead of {REFERENCE.title} in any figure of this page."
    lines: dict[tuple[str, str, str], list[str]] = {}
    for lead in found:
        words, unit = WORDS[lead.name]
        doubt = "" if lead.clear else ", within the spread"
        figures = f"{_number(lead.theirs.median)}{unit} against {_number(lead.ours.median)}{unit}"
        lines.setdefault((lead.subject, lead.load, lead.server), []).append(f"{words} ({figures}{doubt})")
    parts = [f"Figures of servers that run the model whose median is better than that of {REFERENCE.title}:\n"]
    for (subject, load, server), figures_of in lines.items():
        where = {START: "", OBJECTIVE: ", Poisson arrivals"}.get(load, f", {load} in flight")
        parts.append(
            f"- {run.subjects[subject]}{where}: {run.server(server).title} is ahead in {', '.join(figures_of)}."
        )
    return "\n".join(parts)


def _table(run: Run, summary: Summary, subject: str, load: str) -> str:
    head = (
        "server",
        "protocol",
        "requests/s",
        "×",
        "p50 ms",
        "p99 ms",
        "server CPU µs/request",
        "×",
        "cores",
        "client CPU µs",
    )
    rows = []
    for server in run.servers:
        figures = summary.figures(server.name, subject, load)
        if not figures:
            rows.append((server.title, server.protocol, _why_not(server, summary, subject), *[""] * 7))
            continue
        ratios = [
            summary.ratio(server.name, REFERENCE.name, subject, load, name)
            for name in ("requests_per_second", "cpu_us_per_request")
        ]
        rows.append(
            (
                server.title,
                server.protocol,
                _cell(figures.get("requests_per_second")),
                _ratio(ratios[0]),
                _cell(figures.get("p50_ms")),
                _cell(figures.get("p99_ms")),
                _cell(figures.get("cpu_us_per_request")),
                _ratio(ratios[1]),
                _cell(figures.get("cores_used"), spread=False),
                _cell(figures.get("client_cpu_us_per_request"), spread=False),
            )
        )
    return f"**{load} in flight**\n\n{_markdown(head, rows)}"


def _objectives(run: Run, summary: Summary) -> str:
    rows = []
    for subject, title in run.subjects.items():
        for server in run.servers:
            figures = summary.figures(server.name, subject, OBJECTIVE)
            if figures:
                ratio = summary.ratio(server.name, REFERENCE.name, subject, OBJECTIVE, "kept_per_second")
                limit = f"{figures['limit_ms'].median:g} ms"
                rows.append(
                    (
                        title,
                        limit,
                        server.title,
                        _cell(figures["kept_per_second"]),
                        _ratio(ratio),
                        _cell(figures.get("p99_ms")),
                    )
                )
    return _markdown(("model", "99 % within", "server", "arrivals/s", "×", "p99 ms at that rate"), rows)


def _start(run: Run, summary: Summary, subject: str) -> str:
    head = ("server", "first answer s", "×", "memory idle MiB", "×", "under load MiB", "×", "processes", "idle, cores")
    rows = []
    for server in run.servers:
        figures = summary.figures(server.name, subject, START)
        cells: list[str] = []
        for name in ("start_seconds", "idle_memory_mib", "peak_memory_mib"):
            cells += [
                _cell(figures.get(name)),
                _ratio(summary.ratio(server.name, REFERENCE.name, subject, START, name)),
            ]
        cells += [_cell(figures.get(name), spread=False) for name in ("processes", "idle_cores")]
        rows.append((server.title, *cells))
    return f"**{run.subjects[subject]}**\n\n{_markdown(head, rows)}"


def _participants(run: Run, summary: Summary) -> str:
    rows = []
    for server in run.servers:
        versions = ", ".join(f"{name} {version}" for name, version in server.versions.items())
        rows.append((server.title, server.protocol, versions, server.configuration))
    notes = [f"- {server.title} could not be run: {_escaped(server.absent)}" for server in run.servers if server.absent]
    notes += [
        f"- {server.title} has no figures of CPU and memory: {server.without_cpu}"
        for server in run.servers
        if server.without_cpu
    ]
    for (name, subject), reasons in summary.failures.items():
        notes.append(
            f"- {run.server(name).title}, {run.subjects[subject]}: {len(reasons)} of {run.rounds} turns ended early. "
            f"The last: {_escaped(reasons[-1])}"
        )
    return "\n\n".join(
        filter(None, (_markdown(("server", "protocol", "versions", "configuration"), rows), "\n".join(notes)))
    )


def _why_not(server: Server, summary: Summary, subject: str) -> str:
    if server.absent:
        return "cannot run, see below"
    return "failed, see below" if (server.name, subject) in summary.failures else "not measured"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(figure: Figure | None, *, spread: bool = True) -> str:
    if figure is None:
        return "–"
    if not spread or figure.low == figure.high:
        return _number(figure.median)
    return f"{_number(figure.median)} ({_number(figure.low)}–{_number(figure.high)})"


def _ratio(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}"


def _number(value: float) -> str:
    """Three significant digits or more."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def _escaped(text: str | None) -> str:
    """On one line, and no markup."""
    return "`" + " ".join((text or "").split()).replace("`", "'") + "`"
