"""The delays between attempts, and Retry-After."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cirron_spool.protocol.retry import LONGEST_DELAY_S, delays, parse_retry_after

NOW = datetime(2026, 4, 18, 4, 29, 58, tzinfo=UTC)


@dataclass(frozen=True)
class Outcome:
    retry_after_s: float | None = None


NOTHING = Outcome()


def waits(
    retries: int, random: Callable[[], float] = lambda: 0.0, outcomes: list[Outcome] | None = None
) -> list[float]:
    """What ``delays`` yields after its priming, when attempts come to `outcomes` (then to nothing special)."""
    schedule = delays(retries, random)
    assert schedule.send(None) == 0.0  # type: ignore[arg-type]  # priming, as backoff does it
    left = list(outcomes or [])
    found: list[float] = []
    while True:
        try:
            found.append(schedule.send(left.pop(0) if left else NOTHING))
        except StopIteration:
            return found


@pytest.mark.parametrize(
    ("retries", "random", "expected"),
    [
        pytest.param(0, 0.0, [], id="no retries"),
        pytest.param(1, 0.0, [1.0], id="one"),
        pytest.param(3, 0.0, [1.0, 2.0, 4.0], id="the default"),
        pytest.param(3, 0.999, [1.24975, 2.4995, 4.999], id="the default, most jitter"),
        pytest.param(4, 0.999, [1.24975, 2.4995, 4.999, 9.998], id="just below the cap"),
        pytest.param(6, 0.0, [1.0, 2.0, 4.0, 8.0, 10.0, 10.0], id="the cap"),
        pytest.param(6, 0.999, [1.24975, 2.4995, 4.999, 9.998, 10.0, 10.0], id="the cap, most jitter"),
        pytest.param(4, 0.5, [1.125, 2.25, 4.5, 9.0], id="half the jitter"),
    ],
)
def test_delays(retries: int, random: float, expected: list[float]) -> None:
    assert waits(retries, lambda: random) == pytest.approx(expected)


def test_each_delay_has_jitter_of_its_own() -> None:
    values = iter([0.0, 0.4, 0.8])
    assert waits(3, lambda: next(values)) == pytest.approx([1.0, 2.2, 4.8])


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        pytest.param([Outcome(7.0)], [7.0, 2.0, 4.0], id="the first"),
        pytest.param([NOTHING, Outcome(0.0)], [1.0, 1.0, 4.0], id="none at all is a second"),
        pytest.param([NOTHING, NOTHING, Outcome(1.5)], [1.0, 2.0, 1.5], id="shorter than ours"),
        pytest.param([Outcome(120.0)] * 3, [120.0, 120.0, 120.0], id="beyond the cap"),
        pytest.param([NOTHING, NOTHING, Outcome(0.5)], [1.0, 2.0, 1.0], id="less than a second is one"),
    ],
)
def test_retry_after_replaces_its_own_delay_only(outcomes: list[Outcome], expected: list[float]) -> None:
    assert waits(3, lambda: 0.0, outcomes) == expected


def test_retry_after_has_no_jitter() -> None:
    assert waits(1, lambda: 0.999, [Outcome(30.0)]) == [30.0]


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True))
def test_delays_end_with_the_retries_and_stay_in_bounds(retries: int, random: float) -> None:
    found = waits(retries, lambda: random)
    assert len(found) == retries
    assert found == sorted(found)
    for attempt, delay in enumerate(found):
        least = min(2.0**attempt, LONGEST_DELAY_S)
        assert least <= delay <= min(least * 1.25, LONGEST_DELAY_S)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("120", 120.0, id="digits"),
        pytest.param("0", 0.0, id="zero"),
        pytest.param("007", 7.0, id="leading zeros"),
        pytest.param(" \t30 ", 30.0, id="white space around"),
        pytest.param("1000000000", 1e9, id="1e9 in digits"),
        pytest.param("9" * 18, 999_999_999_999_999_999.0, id="18 digits"),
        pytest.param("9" * 19, float("inf"), id="19 digits"),
        pytest.param("9" * 5000, float("inf"), id="5000 digits"),
        pytest.param("Sat, 18 Apr 2026 04:31:58 GMT", 120.0, id="date"),
        pytest.param("Saturday, 18-Apr-26 04:31:58 GMT", 120.0, id="date of RFC 850"),
        pytest.param("Sat Apr 18 04:31:58 2026", 120.0, id="date of asctime"),
        pytest.param("0" * 400 + "5", 5.0, id="400 leading zeros"),
        pytest.param("0" * 30, 0.0, id="30 zeros"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", 251625814201.0, id="the last date"),
    ],
)
def test_usable_retry_after(value: str, seconds: float) -> None:
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty"),
        pytest.param("   ", id="blank"),
        pytest.param("-1", id="negative"),
        pytest.param("-0", id="minus zero"),
        pytest.param("+5", id="signed"),
        pytest.param("1.5", id="fraction"),
        pytest.param("1e9", id="exponent"),
        pytest.param("0x10", id="hex"),
        pytest.param("1_000", id="underscore"),
        pytest.param("nan", id="nan"),
        pytest.param("inf", id="inf"),
        pytest.param("soon", id="a word"),
        pytest.param("120 seconds", id="a unit"),
        pytest.param("120, 130", id="two values"),
        pytest.param("١٢٠", id="Arabic digits"),
        pytest.param("\uff11\uff12\uff10", id="full-width digits"),
        pytest.param("²", id="superscript"),
        pytest.param("120\n", id="line feed"),
        pytest.param("\x00", id="NUL"),
        pytest.param("2026-04-18T04:31:58Z", id="ISO 8601"),
        pytest.param("Sat, 18 Apr 2026", id="date without a time"),
        pytest.param("Sat, 99 Apr 2026 04:31:58 GMT", id="impossible day"),
        pytest.param("Sat, 18 Apr 2026 04:31:58 +9999", id="impossible zone"),
        pytest.param("Sat, 18 Apr 2026 04:31:58 AEST", id="another zone"),
        pytest.param("Sat, 18 Apr 2026 04:29:58 GMT", id="now"),
        pytest.param("Sat, 18 Apr 2026 04:29:57 GMT", id="a second ago"),
        pytest.param("Thu, 01 Jan 1970 00:00:00 GMT", id="the epoch"),
        pytest.param("Mon, 01 Jan 0001 00:00:00 +2359", id="before the calendar"),
    ],
)
def test_useless_retry_after_is_ignored(value: str) -> None:
    assert parse_retry_after(value, NOW) is None


@given(st.text() | st.from_regex(r"(Sat, )?[0-9]{1,5} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{0,9} ?[-+A-Z0-9]{0,6}"))
@example("Sat, 18 Apr 2026 04:31:58 " + "9" * 400)
@example("0 " * 1000)
@example("9" * 5000 + " Apr 2026 00:00:00 GMT")
def test_retry_after_never_raises(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or seconds >= 0


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(9998, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
    st.integers(-86_399, 86_399),
)
def test_dates_are_measured_from_now_in_any_zone(moment: datetime, offset_s: int) -> None:
    moment = moment.replace(microsecond=0)
    seconds = (moment - NOW).total_seconds()
    now = NOW.astimezone(timezone(timedelta(seconds=offset_s)))
    assert parse_retry_after(format_datetime(moment, usegmt=True), now) == (seconds if seconds > 0 else None)
