"""The figures of a spool: span, rate, room left, bytes over time."""

from __future__ import annotations

import pytest

from cirron_spool.spool.listing import Entry
from cirron_spool.spool.names import format_batch_name
from cirron_spool.spool.summary import summarise
from cirron_spool.text import sparkline

S = 10**9


def spool(*batches: tuple[float, int]) -> list[Entry]:
    """Batches by second and size."""
    return [Entry(format_batch_name(int(second * S), "0a"), size) for second, size in batches]


def test_the_rate_is_that_of_the_last_run() -> None:
    yesterday = [(float(second), 10_000) for second in range(60)]
    today = [(86_400.0 + second, 1000) for second in range(1000)]
    figures = summarise(spool(*yesterday, *today), cap=10_000_000, now_ns=87_400 * S)
    assert (figures.rate, figures.rate_s) == (1000.0, 600.0)
    assert figures.span_s == 87_399
    # 1.6 MB are used; the rest lasts 8,400 s at 1,000 bytes a second, of which one is past.
    assert figures.full_in_s == 8_399
    assert sum(figures.bytes_over_time) == 1_600_000


@pytest.mark.parametrize(
    ("cap", "now_s", "full_in_s"),
    [
        (5_000, 10, 0.0),
        (4_999, 10_000, 0.0),  # full, though nothing was written for hours
        (6_000, 10, 1.0),
        (6_000, 11, 0.0),
        (6_000, 9, 1.0),  # the clock of another machine
        (6_000, 10_000, None),
        (None, 10, None),
    ],
)
def test_the_time_until_the_sdk_deletes(cap: int | None, now_s: int, full_in_s: float | None) -> None:
    batches = spool(*((float(second), 1000) for second in range(6, 11)))
    assert summarise(batches, cap=cap, now_ns=now_s * S).full_in_s == full_in_s


def test_batches_of_a_part_of_a_second_have_no_rate() -> None:
    """Two batches of 0.2 s, as at the end of a run, are no hundred MB a minute, and the spool is not full soon."""
    figures = summarise(spool((5, 100_000), (5.2, 400_000)), cap=1_000_000, now_ns=6 * S)
    assert (figures.rate, figures.full_in_s) == (0, None)
    assert summarise(spool((5, 1000), (6, 4000)), cap=1_000_000, now_ns=6 * S).rate == 4000


def test_batches_of_one_moment_have_no_rate() -> None:
    figures = summarise(spool((5, 10), (5, 30)), cap=1000, now_ns=6 * S)
    assert (figures.span_s, figures.rate, figures.full_in_s) == (0, 0, None)
    assert (figures.largest.size, figures.bytes_over_time) == (30, [40])


@pytest.mark.parametrize(
    ("values", "line"),
    [([], ""), ([0], "▁"), ([5], "█"), ([0, 1, 1000], "▁▂█"), ([1, 2, 3, 4, 5, 6, 7], "▂▃▄▅▆▇█")],
)
def test_a_sparkline(values: list[float], line: str) -> None:
    assert sparkline(values) == line
