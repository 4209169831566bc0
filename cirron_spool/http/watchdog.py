"""The stall watchdog ends an exchange that makes no progress within the timeout.

One timer serves all exchanges of a transport, since a timer for each exchange is too slow for a fast link.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any

from cirron_spool.http.connection import Connection

# A timeout is exceeded by an eighth at most.
_CHECKS_PER_LIMIT = 8
# The longest time between two updates of a progress bar.
_LONGEST_CHECK_INTERVAL_S = 0.25


class Exchange:
    """One request without a body, and its answer.

    ``connection`` is None until the request has one. ``written`` counts the written bytes of the body.
    ``last_progress`` is the time of the last progress or of the start, by time.monotonic(). ``timed_out`` is True if
    the watchdog ended the exchange.
    """

    # Class attributes are cheaper: each batch has an exchange, and most fields never change.
    connection: Connection | None = None
    last_progress = 0.0
    written = 0
    timed_out = False
    _task: asyncio.Task[Any]
    _cancel_requests: int
    _watched: set[Exchange]

    @property
    def fully_sent(self) -> bool:
        """Whether the whole request has left this process."""
        return True

    def update_progress(self, now: float) -> None:
        """Record the bytes that the peer has confirmed since the last call."""

    def begin(self, watched: set[Exchange]) -> None:
        """Prepare the ``with`` block of a task. In the block, the exchange is in ``watched``."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an exchange needs a task")
        self._task = task
        self._cancel_requests = task.cancelling()
        self._watched = watched
        self.last_progress = time.monotonic()

    def cancel(self) -> None:
        """Cancel the task of the exchange. Its ``with`` block raises TimeoutError."""
        self.timed_out = True
        self._task.cancel()

    def __enter__(self) -> None:
        self._watched.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watched.discard(self)
        # As in asyncio.timeout(): another cancellation stays a cancellation.
        if (
            self.timed_out
            and self._task.uncancel() <= self._cancel_requests
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error


class StallWatchdog:
    """Ends exchanges that make no progress for ``limit_s`` seconds (docs/contract.md, Retry and waiting)."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._watched: set[Exchange] = set()
        self._next_check: asyncio.TimerHandle | None = None

    def watch(self, exchange: Exchange) -> Exchange:
        """Return a context that watches ``exchange``, and raises TimeoutError when it stalls."""
        exchange.begin(self._watched)
        if self._next_check is None:
            self._check()
        return exchange

    def close(self) -> None:
        """Stop the timer."""
        if self._next_check is not None:
            self._next_check.cancel()

    def _check(self) -> None:
        # The timer is set first, so that an error in one check does not end the watch.
        interval = min(self._limit_s / _CHECKS_PER_LIMIT, _LONGEST_CHECK_INTERVAL_S)
        self._next_check = self._loop.call_later(interval, self._check)
        now = time.monotonic()
        for exchange in tuple(self._watched):
            exchange.update_progress(now)
            if now - exchange.last_progress >= self._limit_s and not exchange.timed_out:
                exchange.cancel()
            connection = exchange.connection
            if connection is not None and (exchange.timed_out or connection.has_failed):
                # An orderly close would wait for the peer and its TLS session.
                connection.abort()
