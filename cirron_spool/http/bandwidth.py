"""The bandwidth limit: one token bucket for the bodies of all uploads of one transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

# The size of the bucket, in seconds of bytes. It compensates timers that fire late.
_BURST_S = 0.1
# Short pieces let several uploads share the bandwidth.
_PIECES_PER_S = 10


class Bandwidth:
    """Limits the rate to ``bytes_per_second``, in the order of the calls.

    In any T seconds, at most ``bytes_per_second * (T + 0.1)`` bytes and one piece pass. ``piece_bytes`` is the longest
    piece without a burst. ``clock`` and ``sleep`` are for tests.
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
        self._free_at = clock()  # all granted bytes have passed by then
        self.piece_bytes = max(1, bytes_per_second // _PIECES_PER_S)

    async def take(self, size: int) -> None:
        """Return when ``size`` bytes may pass. A cancellation returns them to the bucket."""
        now = self._clock()
        passes_at = max(self._free_at, now - _BURST_S)
        self._free_at = passes_at + size / self._rate
        if passes_at > now:
            try:
                await self._sleep(passes_at - now)
            except BaseException:
                self._free_at -= size / self._rate
                raise
