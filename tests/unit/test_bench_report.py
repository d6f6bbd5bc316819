"""The page of the side-by-side benchmark, from turns as they lie on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.side_by_side.records import Record, Records
from loadtest.side_by_side.report import render, write_report
from loadtest.side_by_side.summary import Run, Server, Summary, leads

MACHINE = {
    "system": "Linux",
    "processor": "two cores of something",
    "cores": 2,
    "python": "3.11.7",
    "load_average_before": 0.25,
    "load_average_after": 1.5,
    **dict.fromkeys(("onnxruntime", "grpcio", "uvloop", "numpy", "protobuf"), "1.0"),
}


def server(name: str, *, absent: str | None = None, ours: bool = False, runs_model: bool = True) -> Server:
    return Server(name, f"The {name}", "gRPC", "as it comes", {name: "1.2.3"}, absent, None, ours, runs_model)


RUN = Run(
    machine=MACHINE,
    servers=(
        server("nghttp2", ours=True),
        server("rival"),
        server("second"),
        server("broken"),
        server("absent", absent="pip cannot install it:\nno such version"),
        server("floor", runs_model=False),
    ),
    subjects={"lenet5": "LeNet-5"},
    rounds=2,
    volley_seconds={"lenet5": 2.0},
    minutes=7.0,
)


def turn(name: str, number: int, rate: float, p50_ms: float, **more: float) -> Record:
    return Record(
        name,
        "lenet5",
        number,
        server_figures={"start_seconds": 1.0, "idle_memory_mib": 100.0},
        loads={"1": {"requests_per_second": rate, "p50_ms": p50_ms, **more}},
        objective={"kept_per_second": rate / 2, "limit_ms": 10.0},
    )


TURNS = [
    turn("nghttp2", 1, 1000, 1.0, cpu_us_per_request=100),
    turn("nghttp2", 2, 1200, 1.2, cpu_us_per_request=110),
    turn("rival", 1, 550, 0.5, cpu_us_per_request=400),
    turn("rival", 2, 550, 0.7, cpu_us_per_request=440),
    Record("broken", "lenet5", 1, failure="it ended before its first answer | ImportError: libfoo.so\nis missing"),
    turn("second", 1, 1150, 2.0),
    turn("floor", 1, 5000, 0.1),
]


@pytest.fixture
def page(tmp_path: Path) -> str:
    records = Records(tmp_path / "turns")
    for record in TURNS:
        records.write(record)
    return render(RUN, Summary(records), {"requests/s": "images/rates.svg"})


def test_a_table_has_medians_spreads_and_ratios_to_ours(page: str) -> None:
    assert "| The nghttp2 | gRPC | 1,100 (1,000–1,200) | 1.00 | 1.10 (1.00–1.20) | – | 105 (100–110) | 1.00 |" in page
    assert "| The rival | gRPC | 550 | 0.50 | 0.60 (0.50–0.70) | – | 420 (400–440) | 4.00 |" in page


def test_a_loss_is_said_and_whether_it_is_beyond_the_spread(page: str) -> None:
    behind = page.partition("## Where others are ahead")[2].partition("##")[0]

    assert "LeNet-5, 1 in flight: The rival is ahead in p50 (0.60 ms against 1.10 ms)." in behind
    assert "The second is ahead in requests/s (1,150 against 1,100, within the spread)." in behind
    assert "floor" not in behind
    assert "server CPU" not in behind


def test_the_best_of_the_others_is_named_and_a_floor_is_none(page: str) -> None:
    assert "0.96 × the best of the others (The second, 1,150)" in page.partition("## In short")[2].partition("##")[0]


def test_who_could_not_run_is_listed_with_the_reason(page: str) -> None:
    assert "The absent could not be run: `pip cannot install it: no such version`" in page
    assert "1 of 2 turns ended early" in page
    assert "ImportError: libfoo.so is missing" in page
    assert "| The absent | gRPC | cannot run, see below |" in page
    assert "| The broken | gRPC | failed, see below |" in page


def test_the_page_says_machine_versions_and_noise(page: str) -> None:
    assert "two cores of something, 2 cores" in page
    assert "Load average 0.25 before and 1.50 after" in page
    assert "differed by up to 18% of the median in requests/s and 10% in server CPU" in page
    assert "| The rival | gRPC | rival 1.2.3 | as it comes |" in page


def test_a_busy_machine_and_a_single_round_are_admitted(page: str) -> None:
    assert "busy" not in page

    busy = replace(RUN, machine={**MACHINE, "load_average_before": 1.5}, rounds=1)
    assert "busy with other programs" in render(busy, Summary(TURNS), {})
    assert "the noise is not known" in render(busy, Summary(TURNS), {})


def test_at_an_objective_rates_are_compared_and_not_each_servers_own_p99() -> None:
    one, other = ({"kept_per_second": 500.0, "limit_ms": 10.0, "p99_ms": p99_ms} for p99_ms in (8.0, 4.0))
    turns = [Record("nghttp2", "lenet5", 1, objective=one), Record("rival", "lenet5", 1, objective=other)]

    assert leads(Summary(turns), RUN, "nghttp2") == []


def test_nobody_ahead_is_said_too() -> None:
    summary = Summary(TURNS[:2])

    assert leads(summary, RUN, "nghttp2") == []
    assert "No other server that runs the model is ahead" in render(RUN, summary, {})


def test_a_run_survives_its_file() -> None:
    assert Run.from_json(RUN.as_json() | {"servers": [vars(one) for one in RUN.servers]}) == RUN


def test_pictures_are_small_and_equal_figures_draw_equal_ones(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pages = [write_report(RUN, TURNS, tmp_path / name) for name in ("one", "other")]
    pictures = [sorted((page.parent / "images").iterdir()) for page in pages]

    assert [picture.read_bytes() for picture in pictures[0]] == [picture.read_bytes() for picture in pictures[1]]
    assert sum(picture.stat().st_size for picture in pictures[0]) < 300_000
    for picture in pictures[0]:
        assert f"images/{picture.name}" in pages[0].read_text()
