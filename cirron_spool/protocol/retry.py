"""The retry schedule: the delays between the attempts of one batch.

A schedule is a generator for the library ``backoff``. Prime it with ``send(None)``, then ``send`` it each outcome. It
yields the seconds to wait, and ends when the retries are used up.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import datetime
from typing import Protocol

from cirron_spool.protocol.http_date import parse_http_date

# docs/contract.md, Retry and waiting: 1, 2, 4 s with jitter, at most 10 s.
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 10.0
# Up to a quarter more: it separates the ranks of a run that fail at the same time.
JITTER = 0.25
# The longest delay of a flush that waits for the end of an outage.
LONGEST_OUTAGE_DELAY_S = 30.0
# The shortest Retry-After, and the shortest time between two attempts while the server fails.
SHORTEST_PAUSE_S = 1.0
# With a longer Retry-After a flush ends (exit code 4) and does not wait.
LONGEST_RETRY_AFTER_S = 120.0


class Waitable(Protocol):
    """The part of an outcome that decides the delay."""

    @property
    def retry_after_s(self) -> float | None:
        """The delay in seconds that the server asked for, or None."""


def delays(retries: int, random: Callable[[], float]) -> Generator[float, Waitable, None]:
    """The seconds to wait before each of ``retries`` further attempts.

    The n-th delay (from 0) is ``min(10, 2**n * (1 + 0.25 * random()))``. A ``retry_after_s`` of the outcome replaces
    it, but is never shorter than a second. ``random`` gives a float in [0, 1). The generator ends when the retries
    are used up.
    """
    outcome = yield 0.0  # the priming send(None); backoff discards this value
    for attempt in range(retries):
        delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempt, 10) * (1 + JITTER * random()))
        outcome = yield delay if outcome.retry_after_s is None else pause_after(outcome)


def outage_delay_s(waits: int, random: Callable[[], float]) -> float:
    """The delay of an outage after ``waits`` earlier waits, in seconds: doubled up to 30, with jitter."""
    longest = LONGEST_OUTAGE_DELAY_S * (1 + JITTER * random())
    return min(longest, FIRST_DELAY_S * 2.0 ** min(waits, 10) * (1 + JITTER * random()))


def pause_after(outcome: Waitable) -> float:
    """The seconds after a temporary failure without another attempt of any batch."""
    return max(SHORTEST_PAUSE_S, outcome.retry_after_s or 0.0)


def parse_retry_after(value: str, now: datetime, sent: str = "") -> float | None:
    """The seconds in a ``Retry-After`` header (RFC 9110, section 10.2.3), or None for an unusable value.

    The value is a number of seconds or an HTTP date. A date counts from ``sent``, the ``Date`` header of the answer, or
    else from ``now`` (aware). Invalid, negative and past values are None: they must neither stop a flush nor cause
    rapid retries.
    """
    value = value.strip(" \t")
    if value.isascii() and value.isdigit():
        digits = value.lstrip("0") or "0"
        # More digits are beyond every limit, and float() of thousands of digits is slow.
        return float(digits) if len(digits) <= 18 else float("inf")
    moment = parse_http_date(value, now)
    if moment is None:
        return None
    # Both headers have the server's clock, so their difference is right even if the clocks differ.
    seconds = (moment - (parse_http_date(sent.strip(" \t"), now) or now)).total_seconds()
    return seconds if seconds > 0 else None
