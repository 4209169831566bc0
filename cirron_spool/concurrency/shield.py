"""Finish a coroutine despite cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

import anyio

R = TypeVar("R")


async def complete(work: Awaitable[R], grace_s: float | None = None) -> R:
    """Finish ``work`` even if the awaiting task is cancelled. Then raise the cancellation.

    ``grace_s`` seconds after the cancellation the work itself is cancelled; None means never. An error of the work is
    raised in place of the cancellation.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        if grace_s is not None:
            asyncio.get_running_loop().call_later(grace_s, task.cancel)
        # anyio cancels a task in each iteration of the loop until the task leaves its scope.
        with anyio.CancelScope(shield=True):
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        raise
    return task.result()
