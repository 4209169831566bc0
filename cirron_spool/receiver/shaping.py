"""Simulate a slow link: delay answers, and limit the rate of bodies."""

from __future__ import annotations

import asyncio


class Shaping:
    """``latency_ms`` before each answer; ``bandwidth`` bytes a second for all bodies together (None: no limit)."""

    def __init__(self, latency_ms: float, bandwidth: int | None) -> None:
        self._latency_s = latency_ms / 1000
        self._bandwidth = bandwidth
        self._free_at = 0.0

    async def body(self, size: int) -> None:
        """Return when a link of this bandwidth would have transferred ``size`` more bytes.

        The bytes of all bodies queue in the order of their reads. Idle time is not credited.
        """
        if self._bandwidth is None:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + size / self._bandwidth
        await asyncio.sleep(self._free_at - now)

    async def answer(self) -> None:
        """Return after the latency."""
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
