"""One request that several callers share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs one request at a time, and gives its outcome to all waiting callers.

    A caller after the end of a request starts a new one. If a request raises or is cancelled, the next waiting caller
    repeats it. ``lock`` is held during a request.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._finished = 0
        self._last: tuple[str, T] | None = None

    async def run(self, subject: str, request: Callable[[], Awaitable[T]]) -> T:
        """Return the outcome of ``request``, or of another caller's request about the same ``subject``."""
        finished = self._finished
        async with self.lock:
            last = self._last
            if last is None or self._finished == finished or last[0] != subject:
                last = self._last = (subject, await request())
                self._finished += 1
            return last[1]
