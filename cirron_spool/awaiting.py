"""What awaits and what is awaited: to its end in spite of a cancellation, and told from another thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import anyio

R = TypeVar("R")
T = TypeVar("T")


class NoThreadError(OSError):
    """The system starts no further thread: a limit of this user or container is reached."""


async def complete(work: Coroutine[Any, Any, R], grace_s: float | None = None) -> R:
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


async def in_daemon_thread(work: Callable[[], R], name: str) -> R:
    """What blocking ``work`` returns or raises, in a thread of its own that nobody waits for.

    Cancelled, this returns at once and leaves the thread to itself; it holds up neither the event loop's end nor the
    interpreter's. Raises NoThreadError when no thread can be started.
    """
    outcome: asyncio.Future[R | BaseException] = asyncio.get_running_loop().create_future()

    def run() -> None:
        try:
            tell(outcome, work())
        except BaseException as error:  # noqa: BLE001  # raised where the work is awaited
            tell(outcome, error)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except (RuntimeError, MemoryError):
        raise NoThreadError from None
    result = await outcome
    if isinstance(result, BaseException):
        raise result
    return result


def tell(future: asyncio.Future[T], outcome: T) -> None:
    """From a thread: let ``future`` come to ``outcome`` in its event loop, unless it is done or the loop is closed."""
    call(future.get_loop(), resolve, future, outcome)


def call(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: Any) -> None:
    """Have ``loop`` call ``callback``."""
    with suppress(RuntimeError):  # it was closed under us: nobody is there to be told
        loop.call_soon_threadsafe(callback, *args)


def resolve(future: asyncio.Future[T], outcome: T) -> None:
    """Let ``future`` come to ``outcome``, unless it is done."""
    if not future.done():
        future.set_result(outcome)
