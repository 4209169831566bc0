"""When to try again: the delays between the attempts of one batch.

A schedule is a generator in the form that ``backoff`` waits with: prime it with ``send(None)``, then ``send`` it what
an attempt came to and it yields the seconds to wait. Its end is the end of the attempts. No clock, no socket, no
randomness of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

# SPEC section 4: 1, 2, 4 s with jitter, at most 10 s.
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 10.0
# Up to a quarter more, never less: enough to pull apart the ranks of a run that failed together, and the n-th
# delay is still recognisably 2 ** n seconds.
JITTER = 0.25
# Beyond this a flush ends (exit code 4) rather than sit and wait: SPEC section 4.
LONGEST_RETRY_AFTER_S = 120.0


class Waitable(Protocol):
    """What an attempt came to, as far as waiting goes."""

    @property
    def retry_after_s(self) -> float | None:
        """The server's own delay in seconds, when it named a usable one."""


def delays(retries: int, random: Callable[[], float]) -> Generator[float, Waitable, None]:
    """The seconds to wait before each of ``retries`` further attempts.

    The n-th delay (from 0) is ``min(10, 2**n * (1 + 0.25 * random()))``; a ``retry_after_s`` of what is sent in
    replaces it. ``random`` gives a float in [0, 1). The generator ends when the retries are used up.
    """
    outcome = yield 0.0  # the priming send(None); backoff discards this value
    for attempt in range(retries):
        delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempt, 10) * (1 + JITTER * random()))
        outcome = yield delay if outcome.retry_after_s is None else outcome.retry_after_s


def parse_retry_after(value: str, now: datetime) -> float | None:
    """The seconds that a ``Retry-After`` header asks for, or None when it says nothing usable.

    Digits of seconds or an HTTP date (RFC 9110, section 10.2.3), measured from ``now`` (aware). Nonsense, negative
    and past values are None: a server's slip must neither stop a flush nor make it hammer.
    """
    value = value.strip(" \t")
    if value.isascii() and value.isdigit():
        # More digits than this are beyond any limit anyway, and float() of thousands of them is not free.
        return float(value) if len(value) <= 18 else float("inf")
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:  # "-0000" and the obsolete forms: HTTP dates are always UTC
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - now).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return seconds if seconds > 0 else None
