"""What mutation testing showed that no other test held: each of these fails for a mutant that had survived."""

from __future__ import annotations

from datetime import UTC, datetime

from cirron_spool.protocol import retry as schedule

NOW = datetime(2026, 4, 18, 4, 29, 58, tzinfo=UTC)


def test_a_server_may_ask_for_two_minutes() -> None:
    assert schedule.LONGEST_RETRY_AFTER_S == 120.0


def test_a_date_half_a_second_ahead_is_ahead() -> None:
    assert (
        schedule.parse_retry_after(
            "Sat, 18 Apr 2026 04:29:58 GMT", NOW.replace(second=57, microsecond=500_000)
        )
        == 0.5
    )


def test_only_blanks_may_stand_around_the_digits() -> None:
    assert schedule.parse_retry_after("\t 5 \t", NOW) == 5.0
    assert schedule.parse_retry_after("~5", NOW) is None
