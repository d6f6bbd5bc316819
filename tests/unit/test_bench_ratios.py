"""The regression guard's arithmetic: what has moved, and what is noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from loadtest.errors import LoadTestError
from loadtest.side_by_side.guard import BASELINE, check
from loadtest.side_by_side.ratios import Move, Ratio, as_json, compare, from_json, ratios_of
from loadtest.side_by_side.records import Record

CPU = "lenet5 ×64 ours/floor cpu_us_per_request"
RATE = "lenet5 ×64 ours/floor requests_per_second"


def records(server: str, cpu_us: Sequence[float], rates: Sequence[float]) -> list[Record]:
    return [
        Record(server, "lenet5", number, loads={"64": {"cpu_us_per_request": cpu, "requests_per_second": rate}})
        for number, (cpu, rate) in enumerate(zip(cpu_us, rates, strict=True))
    ]


def measured(cpu_us: Sequence[float], rates: Sequence[float], speed: Sequence[float]) -> dict[str, Ratio]:
    """Ratios to a floor of 200 µs and 5,000/s, on a machine that is `speed` times as fast in each round."""
    ours = records(
        "ours",
        [one / by for one, by in zip(cpu_us, speed, strict=True)],
        [one * by for one, by in zip(rates, speed, strict=True)],
    )
    floor = records("floor", [200 / by for by in speed], [5000 * by for by in speed])
    return ratios_of([*ours, *floor], ["ours"], ["floor"])


STEADY = measured([50, 50.5, 49.5, 50, 50.2], [20000, 20100, 19900, 20000, 20050], [1, 1, 1, 1, 1])


def test_a_ratio_is_taken_within_each_round() -> None:
    shaky = measured([50] * 5, [20000] * 5, [1, 0.4, 2, 0.7, 1.5])

    assert shaky[CPU].value == pytest.approx(0.25)
    assert shaky[RATE].value == pytest.approx(4.0)
    assert shaky[CPU].noise == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("cpu_us", "rates", "worse"), [([60] * 5, [20000] * 5, CPU), ([50] * 5, [16000] * 5, RATE)])
def test_a_planted_regression_is_found(cpu_us: list[float], rates: list[float], worse: str) -> None:
    moves = compare(STEADY, measured(cpu_us, rates, [1, 0.5, 2, 1, 1]))

    assert [move.name for move in moves if move.regressed] == [worse]
    assert [move.sentence() for move in moves if "REGRESSION" in move.sentence()] == [
        next(move.sentence() for move in moves if move.name == worse)
    ]


def test_a_change_within_the_noise_is_none() -> None:
    noisy = measured([40, 70, 55, 45, 62], [20000] * 5, [1] * 5)

    assert [move.name for move in compare(STEADY, noisy) if move.regressed or move.improved] == []
    assert noisy[CPU].value / STEADY[CPU].value > 1.05


def test_noise_that_hides_everything_is_named() -> None:
    (cpu,) = (
        move for move in compare(STEADY, measured([40, 90, 55, 30, 62], [20000] * 5, [1] * 5)) if move.name == CPU
    )

    assert cpu.blurred and not cpu.regressed
    assert cpu.sentence().startswith("NOISE")
    assert not any(move.blurred for move in compare(STEADY, STEADY))


def test_two_runs_without_any_noise_may_differ_by_a_twentieth() -> None:
    assert not Move(CPU, Ratio(1.0, 0.0), Ratio(1.05, 0.0)).regressed
    assert Move(CPU, Ratio(1.0, 0.0), Ratio(1.06, 0.0)).regressed


def test_what_is_better_is_said_and_no_regression() -> None:
    (cpu,) = (move for move in compare(STEADY, measured([40] * 5, [20000] * 5, [1] * 5)) if move.name == CPU)

    assert cpu.improved and not cpu.regressed
    assert cpu.sentence().startswith("better")
    assert "0.200, was 0.250" in cpu.sentence()


def test_ratios_of_only_one_side_are_named_and_no_regression() -> None:
    moves = compare({"old": Ratio(1, 0)}, {"fresh": Ratio(1, 0)})

    assert [move.sentence().split()[0] for move in moves] == ["MISSING", "NEW"]
    assert not any(move.regressed or move.improved for move in moves)


def test_a_floor_that_failed_gives_no_ratio() -> None:
    ours = records("ours", [50] * 3, [20000] * 3)
    assert ratios_of([*ours, *records("floor", [200], [5000])], ["ours"], ["floor"]) == {}


def test_a_baseline_survives_its_file() -> None:
    again = from_json(as_json(STEADY))

    assert again[CPU].value == pytest.approx(STEADY[CPU].value, abs=1e-4)
    assert not any(move.regressed or move.improved for move in compare(again, STEADY))


@pytest.mark.parametrize("bad", [{"x": 1}, {"x": {"value": 1}}, {"x": {"value": 0, "noise": 0}}, ["x"]])
def test_what_is_no_baseline_is_refused(bad: object) -> None:
    with pytest.raises(LoadTestError, match="not a baseline"):
        from_json(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "complaint"), [(None, "write it with --update"), ("{}", "not a baseline"), ("[", "not a baseline")]
)
def test_without_a_baseline_nothing_is_measured(tmp_path: Path, text: str | None, complaint: str) -> None:
    baseline = tmp_path / "baseline.json"
    if text is not None:
        baseline.write_text(text)

    with pytest.raises(LoadTestError, match=complaint):
        check(baseline=baseline, update=False, rounds=2, model_repository=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_committed_baseline_is_one_and_has_both_engines_beside_both_floors() -> None:
    names = from_json(json.loads(BASELINE.read_text())["ratios"])

    assert {name.split()[2] for name in names} == {
        f"{ours}/{floor}" for ours in ("nghttp2", "grpcio") for floor in ("fastapi", "grpc_aio")
    }
    assert len(names) == 2 * 2 * 2 * 3
