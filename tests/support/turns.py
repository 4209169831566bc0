"""Turns of the event loop."""

from __future__ import annotations

import asyncio


async def a_few_turns() -> None:
    """Let whatever is ready in the loop run, and what that makes ready."""
    for _ in range(20):
        await asyncio.sleep(0)
