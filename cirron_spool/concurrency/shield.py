"""Finish a coroutine despite cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

import anyio

R = TypeVar("R")


async def complete(work: Awaitable[R], grace_s: float | None = None) -> R:
    """Await ``work`` to its end even if the awaiting task is cancelled meanwhile; the cancellation follows it.

    With ``grace_s`` the work is cancelled itself so many seconds after the awaiting task. An error of the work's own
    goes before the cancellation.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        if grace_s is not None:
            asyncio.get_running_loop().call_later(grace_s, task.cancel)
        # anyio cancels a scope's tasks again at each turn of the loop until they have left it, asyncio as often as it
        # is asked to.
        with anyio.CancelScope(shield=True):
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        raise
    return task.result()
