"""Run a coroutine of a command that a signal cancels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from cirron_spool.cli.signals import Signals, StopRequest
from cirron_spool.concurrency import event_loop

T = TypeVar("T")


def run_until_stopped(main: Callable[[], Coroutine[Any, Any, T]], signals: Signals) -> T:
    """Run ``main`` in an event loop. A signal cancels it, then raises KeyboardInterrupt."""
    stop = StopRequest()

    async def stoppable() -> T:
        task = asyncio.current_task()
        if task is not None:
            stop.bind(partial(_cancel, task))
        return await main()

    try:
        with signals.stopping(stop):
            return event_loop.run(stoppable)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
