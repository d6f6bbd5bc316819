"""The pure parts of the soak: the plan, the known answers, the books, and which series are flat."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
from prometheus_client.samples import Sample

from loadtest.errors import WrongAnswerError
from loadtest.figures import Counts
from loadtest.http_v2 import encode_request
from loadtest.soak import models
from loadtest.soak.actions import ACTIONS
from loadtest.soak.books import client_checks, failure_checks, ledger_checks, model_checks
from loadtest.soak.cases import Case, Zoo, answer_of, answer_of_json, datatype_of, raw
from loadtest.soak.sampling import Page
from loadtest.soak.schedule import CROWD, KIND_BY_NAME, KINDS, schedule
from loadtest.soak.tally import GRPC, HTTP, STREAM, Tally, shape_of
from loadtest.soak.verdict import Points, Tolerance, judge, trend
from loadtest.verdict import Check
from proto import grpc_service_pb2 as pb

ROOT = Path(__file__).parents[2]
SECONDS = 1800
MEMORY = Tolerance("RSS", "MiB", 16)


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return Zoo(ROOT / "model_repository")


def series(rise_per_hour: float, *, noise: float = 0.0, warm_up: float = 0.0) -> Points:
    """1,800 s around 100: a leak, noise with this deviation, and what is taken in the first five minutes for good."""
    random = Random(0)
    return [
        (at, 100 + rise_per_hour * at / 3600 + min(at / 300, 1) * warm_up + random.gauss(0, noise))
        for at in range(SECONDS)
    ]


@pytest.mark.parametrize("noise", [0, 5, 20])
def test_a_series_that_is_only_noisy_is_flat(noise: float) -> None:
    assert judge(MEMORY, series(0, noise=noise), SECONDS).passed


@pytest.mark.parametrize("noise", [0, 5, 20])
def test_a_leak_is_found_beneath_the_noise(noise: float) -> None:
    check = judge(MEMORY, series(100, noise=noise), SECONDS)

    assert not check.passed
    assert "RISES" in check.text


def test_a_leak_within_the_tolerance_is_told_and_allowed() -> None:
    check = judge(MEMORY, series(20), SECONDS)

    assert check.passed
    assert "line +7.4" in check.text
    assert "+20 an hour" in check.text


def test_what_is_taken_in_the_warm_up_is_no_leak() -> None:
    assert judge(MEMORY, series(0, noise=2, warm_up=500), SECONDS).passed


def test_memory_that_comes_and_goes_is_flat() -> None:
    saw = [(at, 100 + at % 60) for at in range(SECONDS)]

    assert judge(MEMORY, saw, SECONDS).passed


def test_a_leak_that_begins_late_is_found_by_its_last_quarter() -> None:
    late = [(at, 100 + max(0, at - 1300) * 0.1) for at in range(SECONDS)]

    assert trend(late, SECONDS).quarters_rise > 16
    assert not judge(MEMORY, late, SECONDS).passed


def test_a_series_that_falls_is_no_fault() -> None:
    assert judge(MEMORY, series(-500), SECONDS).passed


def test_one_sample_that_stands_out_is_no_leak() -> None:
    points = [*series(0)[:-1], (SECONDS - 1, 1000.0)]

    assert judge(MEMORY, points, SECONDS).passed


def test_samples_after_the_end_of_the_load_are_not_judged() -> None:
    points = [*series(100), *((SECONDS + at, 0.0) for at in range(1, 600))]

    assert not judge(MEMORY, points, SECONDS).passed


@pytest.mark.parametrize("points", [[], series(0)[:11], [(SECONDS + at, 1.0) for at in range(900)]])
def test_too_few_samples_prove_nothing(points: Points) -> None:
    check = judge(MEMORY, points, SECONDS)

    assert not check.passed
    assert "12 are needed" in check.text


def test_a_seed_makes_one_plan_and_parts_differ() -> None:
    def plan(seed: int, part: int) -> list[tuple[str, int]]:
        planned = schedule(seed, part, 2, rate=100, seconds=20, in_flight=4)
        return [(one.kind, one.seed) for one in planned]

    assert plan(1, 0) == plan(1, 0)
    assert plan(1, 0) != plan(2, 0)
    assert plan(1, 0) != plan(1, 1)


def test_a_plan_has_every_kind_and_keeps_rate_and_time() -> None:
    plans = [list(schedule(0, part, 3, rate=90, seconds=60, in_flight=4)) for part in range(3)]

    assert {one.kind for plan in plans for one in plan} == {kind.name for kind in KINDS}
    due = sorted(one.due_s for plan in plans for one in plan[4:])
    assert due == pytest.approx([number / 90 for number in range(5400)])


def test_a_plan_begins_with_a_crowd() -> None:
    first = list(islice(schedule(0, 0, 1, rate=10, seconds=10, in_flight=8), 8))

    assert {one.due_s for one in first} == {0}
    assert Counter(one.kind for one in first) == dict.fromkeys(CROWD, 2)


def test_every_kind_has_its_action() -> None:
    assert set(ACTIONS) == set(KIND_BY_NAME)


def test_a_kind_expects_the_refusals_that_it_provokes_alone() -> None:
    timed_out = KIND_BY_NAME["timed_out"]

    assert timed_out.expects("UNAVAILABLE", "Request timeout expired")
    assert not timed_out.expects("UNAVAILABLE", "Exceeds maximum queue size")
    assert not timed_out.expects("INTERNAL", "Request timeout expired")
    assert not KIND_BY_NAME["grpc_unary"].expects("UNAVAILABLE", "Request timeout expired")


def response_to(case: Case) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse()
    for name, array in case.expected.items():
        response.outputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
        response.raw_output_contents.append(raw(array))
    return response


def test_an_answer_is_right_only_if_it_is_this_requests(zoo: Zoo) -> None:
    random = Random(0)
    cases = [zoo.any(random) for _ in range(100)] + zoo.sequence(random)
    assert {case.model for case in cases} >= {models.AFFINE, models.TEXT, models.PAIR, models.CACHED, models.LENET5}
    for case, other in pairwise(cases):
        case.check(answer_of(response_to(case)))
        with pytest.raises(WrongAnswerError):
            case.check(answer_of(response_to(other)))


def test_an_answer_of_json_has_the_same_tensors(zoo: Zoo) -> None:
    for case in (zoo.affine(Random(1)), zoo.text(Random(1))):
        asked = json.loads(case.json())["inputs"]
        (y,) = case.expected.values()
        data = [element.decode() for element in y.ravel()] if y.dtype == np.object_ else y.ravel().tolist()
        body = {"outputs": [{"name": "y", "datatype": datatype_of(y), "shape": y.shape, "data": data}]}
        case.check(answer_of_json(json.dumps(body).encode()))
        assert [tensor["datatype"] for tensor in asked] == [datatype_of(y)]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"outputs": [{"name": "y"}]}'])
def test_an_answer_without_tensors_is_wrong(body: bytes) -> None:
    with pytest.raises(WrongAnswerError):
        answer_of_json(body)


def test_pictures_are_sent_as_files_and_as_tensors(zoo: Zoo) -> None:
    encoded, plain = zoo.lenet5(Random(3), encoded=True), zoo.lenet5(Random(3))

    assert encoded.request().inputs[0].datatype == "BYTES"
    assert encode_request(encoded.request())[1].count(b"\x89PNG") == len(encoded.inputs["input"])
    assert np.array_equal(encoded.expected["probabilities"], plain.expected["probabilities"])


def test_the_sums_of_a_sequence_go_on(zoo: Zoo) -> None:
    total = 0.0
    for case in zoo.sequence(Random(5)):
        total += case.inputs["x"].item()
        assert case.expected["y"].item() == total


def page(**values: float) -> Page:
    """Samples by name; `name__label_value__label_value` has labels."""
    samples = []
    for key, value in values.items():
        name, *labels = key.split("__")
        samples.append(Sample(name, dict(label.split("_", 1) for label in labels), value))
    return Page(tuple(samples))


def counts(successes: int) -> Counts:
    return Counts(successes, successes, successes, 0)


def failed(checks: list[Check]) -> list[str]:
    return [check.text for check in checks if not check.passed]


SUCCESS = "nv_inference_request_success__model_"


def test_answers_must_be_counted_to_the_request() -> None:
    tally = Tally(answered=Counter({(GRPC, "affine"): 3, (HTTP, "affine"): 2}))

    assert failed(list(model_checks(tally, {"affine": counts(5)}, page(**{f"{SUCCESS}affine": 5})))) == []
    for statistics, metric in ((4, 5), (6, 5), (5, 4), (5, 6)):
        seen = model_checks(tally, {"affine": counts(statistics)}, page(**{f"{SUCCESS}affine": metric}))
        assert len(failed(list(seen))) == 1


def test_who_left_may_have_been_answered_and_need_not() -> None:
    tally = Tally(answered=Counter({(GRPC, "patient"): 3}), left=Counter({(STREAM, "patient"): 2}))

    for successes, wrong in ((2, 2), (3, 0), (5, 0), (6, 2)):
        seen = model_checks(tally, {"patient": counts(successes)}, page(**{f"{SUCCESS}patient": successes}))
        assert len(failed(list(seen))) == wrong


def test_the_step_of_an_ensemble_ran_twice_for_each_of_its_answers() -> None:
    tally = Tally(answered=Counter({(GRPC, models.PAIR): 7}))

    for successes, wrong in ((14, 0), (7, 2)):
        seen = model_checks(tally, {models.STEP: counts(successes)}, page(**{f"{SUCCESS}step": successes}))
        assert len(failed(list(seen))) == wrong


def test_refusals_must_be_counted_to_the_request_wherever_they_were_made() -> None:
    tally = Tally(refused=Counter({(GRPC, "nonesuch"): 2, (HTTP, "affine"): 3, (GRPC, "patient"): 1}))
    tally.left[GRPC, "patient"] = 1
    name = "convoy_request_failed_total__model_"

    for affine, patient, wrong in ((3, 1, 0), (3, 2, 0), (3, 3, 1), (4, 1, 1), (2, 1, 1), (3, 0, 1)):
        seen = page(**{f"{name}": 2, f"{name}affine": affine, f"{name}patient": patient})
        assert len(failed(list(failure_checks(tally, seen)))) == wrong


LEDGER = {
    "convoy_ledger_received_total__protocol_http": 10.0,
    "convoy_ledger_ended_total__protocol_http__outcome_answered": 7.0,
    "convoy_ledger_ended_total__protocol_http__outcome_refused": 1.0,
    "convoy_ledger_ended_total__protocol_http__outcome_failed": 1.0,
    "convoy_ledger_ended_total__protocol_http__outcome_abandoned": 1.0,
    "convoy_ledger_in_progress__protocol_http": 0.0,
    "convoy_ledger_answered_twice_total__protocol_http": 0.0,
}


def clients() -> Tally:
    key = (HTTP, "affine")
    return Tally(Counter({key: 10}), Counter({key: 7}), Counter({key: 2}), Counter({key: 1}))


def test_a_ledger_that_balances_and_agrees_is_right() -> None:
    checks = list(ledger_checks(clients(), page(**LEDGER)))

    assert checks
    assert failed(checks) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("convoy_ledger_received_total__protocol_http", 11),
        ("convoy_ledger_ended_total__protocol_http__outcome_answered", 6),
        ("convoy_ledger_ended_total__protocol_http__outcome_failed", 0),
        ("convoy_ledger_ended_total__protocol_http__outcome_abandoned", 2),
        ("convoy_ledger_in_progress__protocol_http", 1),
        ("convoy_ledger_answered_twice_total__protocol_http", 1),
    ],
)
def test_a_ledger_that_is_off_by_one_is_found(name: str, value: float) -> None:
    assert failed(list(ledger_checks(clients(), page(**LEDGER | {name: value}))))


def test_a_server_without_a_ledger_is_not_judged_by_it() -> None:
    assert list(ledger_checks(clients(), page())) == []


def test_wrong_answers_unexpected_ends_and_lost_requests_fail() -> None:
    assert failed(list(client_checks(clients()))) == []
    for spoilt in (
        Tally(wrong=Counter(grpc_unary=1)),
        Tally(unexpected=Counter({("http_json", "503"): 1})),
        Tally(sent=Counter({(GRPC, "affine"): 1})),
    ):
        assert len(failed(list(client_checks(spoilt)))) == 1


def test_tallies_of_processes_add_up() -> None:
    tally = clients()
    tally.refusals["expired", "DEADLINE_EXCEEDED", "Deadline Exceeded"] = 1
    both = Tally()
    both.add(tally)
    both.add(tally)

    assert both.sent[HTTP, "affine"] == 20
    assert both.left.total() == 2
    assert both.refusals.total() == 2
    assert both.open_requests() == 0


def test_sentences_are_counted_without_names_and_numbers() -> None:
    one, other = ("model 'a' takes 4 rows, not 17", "model 'bc' takes 16 rows, not -1")

    assert shape_of(one) == shape_of(other) == "model … takes … rows, not …"


def test_a_plan_of_any_length_is_made_while_it_is_played() -> None:
    first = list(islice(schedule(0, 0, 1, rate=1e6, seconds=1e6, in_flight=1), 3))

    assert [one.due_s for one in first] == [0, 0, 1e-6]
