"""A deadline stops a flush gracefully, early enough for the flush to end in time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import anyio

# Longest wait of a stopping flush for the batch in flight. Job schedulers kill a process after five seconds.
GRACE_S = 4.0
DEADLINE_NEAR = "The deadline is near: no further batch is started."
# Time for the last deletes and the closing of the connection.
_END_S = 0.5


class StopSignal(Protocol):
    """The signal that stops a flush gracefully: an ``anyio.Event`` or ``asyncio.Event``."""

    async def wait(self) -> object:
        """Return once the flush is to stop."""


class Deadline:
    """The stop signal of a flush that must end before ``end``, a timedelta from now or an aware datetime.

    ``stop`` is another stop signal. ``grace_s`` is the time for the batch in flight, in seconds. ``passed`` is True if
    the deadline stopped the flush.
    """

    def __init__(self, end: timedelta | datetime, stop: StopSignal | None) -> None:
        left_s = (end - datetime.now(UTC) if isinstance(end, datetime) else end).total_seconds()
        # Half of a short time is reserved for the last batch.
        reserve_s = max(0.0, min(GRACE_S + _END_S, left_s / 2))
        self.grace_s = max(0.0, reserve_s - _END_S)
        self.passed = False
        self._stop = stop
        self._stop_at = time.monotonic() + left_s - reserve_s

    async def wait(self) -> None:
        """Return once the flush is to stop."""
        with anyio.move_on_after(max(0.0, self._stop_at - time.monotonic())):
            if self._stop is None:
                await anyio.sleep_forever()
            else:
                await self._stop.wait()
                return
        self.passed = True
