"""The ledger: what is received is what has ended and what is in progress, and bugs show."""

from __future__ import annotations

import logging

import pytest

from server.errors import Reason
from server.ledger import Account, Ledger, summary


def test_every_way_to_end_is_told_apart() -> None:
    account = Account("grpc")
    account.received += 5
    account.answered += 1
    account.fail(Reason.QUEUE_FULL)
    account.fail(Reason.BACKEND)
    account.abandon()
    account.turn_away(Reason.OVERSIZE)
    shown = account.snapshot()
    reasons = {Reason.QUEUE_FULL: 1, Reason.BACKEND: 1, Reason.OVERSIZE: 1}
    assert (shown.received, shown.answered, shown.by_reason, shown.abandoned) == (6, 1, reasons, 1)
    assert shown.in_progress == 1
    assert shown.received == shown.answered + sum(reasons.values()) + shown.abandoned + shown.in_progress
    assert list(account.problems()) == ["1 still in progress"]


def test_a_second_answer_is_a_problem_and_changes_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    account = Account("http")
    account.received += 1
    account.answered += 1
    account.answer_again()
    assert (account.answered, account.in_progress, account.snapshot().by_reason) == (1, 0, {})
    assert list(account.problems()) == ["1 answered twice"]
    assert "a request of http was answered twice" in caplog.text


def test_a_request_that_ends_twice_without_being_noticed_is_a_problem() -> None:
    account = Account("http")
    account.received += 1
    account.answered += 1
    account.fail(Reason.BACKEND)
    assert account.in_progress == -1
    assert list(account.problems()) == ["1 ended that were not received, or had ended"]


def test_who_is_cut_off_has_not_left() -> None:
    account = Account("grpc")
    account.received += 1
    account.begin_cut_off()
    account.abandon()
    assert (account.abandoned, account.snapshot().by_reason) == (0, {Reason.SHUTDOWN: 1})
    assert list(account.problems()) == []


def test_what_is_cut_off_although_no_model_had_it_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    ledger.grpc.received += 2
    ledger.begin_cut_off(held=1)
    ledger.grpc.abandon()
    ledger.grpc.abandon()
    assert not ledger.close(given=0)
    assert "1 requests were not answered, and no model had them" in caplog.text


def test_a_ledger_that_balances_says_what_there_was(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ledger = Ledger()
    ledger.http.received += 1
    ledger.http.fail(Reason.INVALID)
    ledger.begin_cut_off(held=0)
    assert ledger.close(given=0)
    assert caplog.messages == [
        "ledger: http: 1 received = answered 0, invalid 1, abandoned 0, in progress 0",
    ]
    assert summary(ledger.grpc.snapshot()) == "grpc: 0 received = answered 0, abandoned 0, in progress 0"


def test_an_account_more_balances_as_the_others_do() -> None:
    ledger = Ledger()
    account = ledger.open("playground")
    account.received += 1

    assert [each.protocol for each in ledger.snapshot()] == ["grpc", "grpc_stream", "http", "playground"]
    ledger.begin_cut_off(held=0)
    assert ledger.lost == 1


def test_a_request_in_progress_in_the_end_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    ledger.grpc_stream.received += 1
    assert not ledger.close(given=0)
    assert caplog.records[0].levelno == logging.ERROR
    assert "1 still in progress" in caplog.text


@pytest.mark.parametrize("given", [0, 2])
def test_an_answer_that_no_model_gave_or_that_nobody_got_is_found(given: int, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    ledger.http.received += 1
    ledger.http.answered += 1
    assert not ledger.close(given)
    assert caplog.messages == [
        f"the ledger does not balance: 1 requests were answered, and models gave {given} answers"
    ]
