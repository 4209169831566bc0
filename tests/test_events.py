"""The totals of a flush and the exit code that follows from them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirron_spool.errors import (
    EXIT_ATTENTION,
    EXIT_AUTH,
    EXIT_OK,
    EXIT_TEMPFAIL,
    EXIT_USAGE,
    AuthError,
    AuthInvalidError,
    AuthRejectedError,
    CirronSpoolError,
    ConfigError,
    NotAuthenticatedError,
    SpoolBusyError,
    SpoolError,
    first_cause,
)
from cirron_spool.events import BatchFailure, Failed, FlushResult, describe
from cirron_spool.pipeline.tally import Tally, worst

HERE = Path("/spool")
FAILURE = BatchFailure("1-a.json", 503, "Upload of 1-a.json failed: HTTP 503 Busy")


def tally(listed: int) -> Tally:
    return Tally(HERE, selected=listed)


def test_nothing_to_do() -> None:
    assert tally(0).result(0.5) == FlushResult(HERE, seconds=0.5)
    assert FlushResult(HERE).exit_code == EXIT_OK


def test_all_delivered() -> None:
    flush = tally(2)
    flush.upload(1000, 300)
    flush.upload(50, 50)
    assert flush.result(1.0) == FlushResult(HERE, uploaded=2, bytes_read=1050, bytes_sent=350, seconds=1.0)


def test_the_pages_partial_failure() -> None:
    flush = tally(2)
    flush.fail(FAILURE, EXIT_AUTH)
    result = flush.result(0.0)
    assert (result.uploaded, result.failed, result.skipped, result.untried) == (0, 1, 1, 1)
    assert result.failures == (FAILURE,)
    assert result.exit_code == EXIT_AUTH


def test_stopped_on_request_with_batches_left_is_for_later() -> None:
    flush = tally(3)
    flush.upload(1, 1)
    result = flush.result(0.0)
    assert (result.skipped, result.untried, result.exit_code) == (2, 2, EXIT_TEMPFAIL)


def test_a_batch_passed_over_is_skipped_but_was_tried() -> None:
    flush = tally(2)
    flush.skip()
    flush.upload(1, 1)
    result = flush.result(0.0)
    assert (result.failed, result.skipped, result.untried, result.exit_code) == (0, 1, 0, EXIT_ATTENTION)


def test_quarantined_is_counted_apart_and_a_person_must_look() -> None:
    flush = tally(1)
    flush.set_aside()
    result = flush.result(0.0)
    assert (result.quarantined, result.failed, result.skipped, result.exit_code) == (1, 0, 0, EXIT_ATTENTION)


def test_vanished_is_no_failure() -> None:
    flush = tally(1)
    flush.evicted += 1
    result = flush.result(0.0)
    assert (result.evicted, result.failed, result.skipped, result.exit_code) == (1, 0, 0, EXIT_OK)


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        pytest.param([], EXIT_OK, id="none"),
        pytest.param([EXIT_OK], EXIT_OK, id="fine"),
        pytest.param([EXIT_OK, EXIT_TEMPFAIL], EXIT_TEMPFAIL, id="later"),
        pytest.param([EXIT_TEMPFAIL, EXIT_ATTENTION, EXIT_OK], EXIT_ATTENTION, id="a person before later"),
        pytest.param([EXIT_AUTH, EXIT_ATTENTION, EXIT_TEMPFAIL], EXIT_AUTH, id="credentials before a person"),
        pytest.param([EXIT_AUTH, EXIT_USAGE], EXIT_USAGE, id="usage before all"),
        pytest.param([99, EXIT_TEMPFAIL], 99, id="an unknown code is not hidden"),
    ],
)
def test_worst(codes: list[int], code: int) -> None:
    assert worst(codes) == code
    assert worst(reversed(codes)) == code


OUTCOMES = st.sampled_from(
    ["uploaded", "failed", "auth", "later", "quarantined", "evicted", "passed", "left"]
)


@given(st.lists(OUTCOMES))
def test_the_counts_always_add_up(outcomes: list[str]) -> None:
    flush = tally(len(outcomes))
    for number, outcome in enumerate(outcomes):
        failure = BatchFailure(f"{number}-a.json", None, outcome)
        match outcome:
            case "uploaded":
                flush.upload(number, 1)
            case "failed":
                flush.fail(failure, EXIT_ATTENTION)
            case "auth":
                flush.fail(failure, EXIT_AUTH)
            case "later":
                flush.fail(failure, EXIT_TEMPFAIL)
            case "quarantined":
                flush.set_aside()
            case "evicted":
                flush.evicted += 1
            case "passed":
                flush.skip()
        so_far = flush.result(0.0)
        counts = (so_far.uploaded, so_far.failed, so_far.skipped, so_far.quarantined, so_far.evicted)
        assert sum(counts) == len(outcomes)
        assert min(counts) >= 0
    result = flush.result(2.0)
    assert result.uploaded == outcomes.count("uploaded") == result.bytes_sent
    assert result.bytes_read == sum(
        number for number, outcome in enumerate(outcomes) if outcome == "uploaded"
    )
    assert [failure.message for failure in result.failures] == [
        outcome for outcome in outcomes if outcome in ("failed", "auth", "later")
    ]
    assert result.failed == len(result.failures)
    assert result.untried == outcomes.count("left")
    assert result.skipped == outcomes.count("left") + outcomes.count("passed")
    assert (result.exit_code == EXIT_OK) == (set(outcomes) <= {"uploaded", "evicted"})
    if "auth" in outcomes:
        assert result.exit_code == EXIT_AUTH
    elif {"failed", "quarantined", "passed"} & set(outcomes):
        assert result.exit_code == EXIT_ATTENTION


def test_a_result_does_not_change_with_the_flush() -> None:
    flush = tally(2)
    flush.fail(FAILURE, EXIT_ATTENTION)
    before = flush.result(0.0)
    flush.fail(FAILURE, EXIT_ATTENTION)
    assert before.failures == (FAILURE,)
    with pytest.raises(FrozenInstanceError):
        before.uploaded = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (CirronSpoolError("x"), 1),
        (ConfigError("x"), 2),
        (SpoolError("x"), 2),
        (SpoolError("x", exit_code=1), 1),
        (SpoolBusyError("x"), 4),
        (AuthError("x"), 3),
        (NotAuthenticatedError(), 3),
        (AuthInvalidError(), 3),
        (AuthRejectedError("x"), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_errors_have_one_base_and_an_exit_code(error: CirronSpoolError, exit_code: int) -> None:
    assert isinstance(error, CirronSpoolError)
    assert error.exit_code == exit_code
    assert error.result is None


def test_the_pages_words_for_missing_and_expired_credentials() -> None:
    assert str(NotAuthenticatedError()) == "Not authenticated. Run cirron auth login first."
    assert str(AuthInvalidError()) == "Authentication invalid. Run cirron auth login first."


def test_of_several_errors_the_first_of_ours_reaches_the_caller() -> None:
    ours, later = ConfigError("a"), SpoolError("b")
    inner = ExceptionGroup("inner", [ValueError("x"), ours])
    assert first_cause(BaseExceptionGroup("outer", [KeyError("y"), inner, later])) is ours
    assert first_cause(BaseExceptionGroup("outer", [later, inner])) is later


def test_without_one_of_ours_the_first_error_reaches_the_caller() -> None:
    first = KeyError("y")
    nested = BaseExceptionGroup("inner", [first, ValueError("x")])
    assert first_cause(BaseExceptionGroup("outer", [nested, TypeError("z")])) is first


def test_a_failure_and_what_to_do_are_two_sentences_in_a_log() -> None:
    assert describe(Failed("a.json", 413, "Rejected a.json: HTTP 413 x", "Look.")) == (
        "Rejected a.json: HTTP 413 x. Look."
    )
    assert describe(Failed("a.json", None, "It ended.", "Look.")) == "It ended. Look."
    assert describe(Failed("a.json", None, "It ended")) == "It ended"
