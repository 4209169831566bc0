"""When to try again: the delays between the attempts of one batch.

A schedule is a generator in the form that ``backoff`` waits with: prime it with ``send(None)``, then ``send`` it each
outcome. It yields the seconds to wait. Its end is the end of the attempts. It has no clock, no socket and no
randomness.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import datetime
from typing import Protocol

from cirron_spool.protocol.http_date import parse_http_date

# docs/contract.md, Retry and waiting: 1, 2, 4 s with jitter, at most 10 s.
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 10.0
# Up to a quarter more, never less: enough to separate the ranks of a run that failed together.
JITTER = 0.25
# The longest delay of a flush that waits for the end of an outage.
LONGEST_OUTAGE_DELAY_S = 30.0
# A server's own delay is never shorter, and no attempt of a failing flush follows another sooner.
SHORTEST_PAUSE_S = 1.0
# Beyond this a flush ends (exit code 4) and does not wait.
LONGEST_RETRY_AFTER_S = 120.0


class Waitable(Protocol):
    """The part of an outcome that decides the wait."""

    @property
    def retry_after_s(self) -> float | None:
        """The server's own delay in seconds, when it named a usable one."""


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
    """The seconds before another attempt in an outage, after so many ``waits``: doubled up to 30, with jitter."""
    longest = LONGEST_OUTAGE_DELAY_S * (1 + JITTER * random())
    return min(longest, FIRST_DELAY_S * 2.0 ** min(waits, 10) * (1 + JITTER * random()))


def pause_after(outcome: Waitable) -> float:
    """The seconds after a temporary failure in which no other attempt is started, of this batch or another."""
    return max(SHORTEST_PAUSE_S, outcome.retry_after_s or 0.0)


def parse_retry_after(value: str, now: datetime, sent: str = "") -> float | None:
    """The seconds that a ``Retry-After`` header asks for, or None when it says nothing usable.

    Digits of seconds or an HTTP date (RFC 9110, section 10.2.3). ``sent`` is the answer's own ``Date`` header. A date
    counts from there, or from ``now`` (aware) without a valid one. Nonsense, negative and past values are None: a
    server's slip must neither stop a flush nor make it hammer.
    """
    value = value.strip(" \t")
    if value.isascii() and value.isdigit():
        digits = value.lstrip("0") or "0"
        # More digits than this are beyond any limit anyway, and float() of thousands of them is not free.
        return float(digits) if len(digits) <= 18 else float("inf")
    moment = parse_http_date(value, now)
    if moment is None:
        return None
    # The server's clock, not ours, dates both headers: where the clocks differ, only their distance is right.
    seconds = (moment - (parse_http_date(sent.strip(" \t"), now) or now)).total_seconds()
    return seconds if seconds > 0 else None
