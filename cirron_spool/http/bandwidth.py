"""The bandwidth limit: one token bucket for the bodies of all uploads of one transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

# The bucket holds the bytes of so many seconds. They make up for timers that fire late.
_BURST_S = 0.1
# So short are pieces that those of several uploads mix.
_PIECES_PER_S = 10


class Bandwidth:
    """Lets ``bytes_per_second`` pass, in the order of the calls.

    In any T seconds at most ``bytes_per_second * (T + 0.1)`` bytes and one piece pass. ``piece_bytes`` is the longest
    piece that does not burst. ``clock`` and ``sleep`` are for tests.
    """

    def __init__(
        self,
        bytes_per_second: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()  # all bytes that were let through have passed by then
        self.piece_bytes = max(1, bytes_per_second // _PIECES_PER_S)

    async def take(self, size: int) -> None:
        """Return when ``size`` bytes may pass. A cancellation gives them back."""
        now = self._clock()
        passes_at = max(self._free_at, now - _BURST_S)
        self._free_at = passes_at + size / self._rate
        if passes_at > now:
            try:
                await self._sleep(passes_at - now)
            except BaseException:
                self._free_at -= size / self._rate
                raise
