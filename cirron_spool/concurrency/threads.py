"""What awaits and what is awaited: to its end in spite of a cancellation, and told from another thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from cirron_spool.concurrency.shield import complete
from cirron_spool.errors import NoThreadError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


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

    start(threading.Thread(target=run, name=name, daemon=True))
    result = await outcome
    if isinstance(result, BaseException):
        raise result
    return result


def start(thread: threading.Thread) -> None:
    """Start ``thread``. Raises NoThreadError when the system or the interpreter starts none."""
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        raise NoThreadError from None


class _DiskThreads(Executor):
    """Runs each call in a daemon thread of its own; where none can be started, at once in the caller's thread.

    The threads of other executors are waited for at the end of the event loop and of the interpreter: a dead network
    mount would hold up both.
    """

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future: Future[R] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    result = fn(*args, **kwargs)
                except BaseException as error:  # noqa: BLE001  # raised where the call is awaited
                    future.set_exception(error)
                else:
                    future.set_result(result)

        try:
            start(threading.Thread(target=run, name="cirron-spool file", daemon=True))
        except NoThreadError:
            run()
        return future


# For single calls into the file system, which are few: a thread costs some 50 µs.
DISK_THREADS = _DiskThreads()


async def in_thread(work: Callable[..., R], *args: Any) -> R:
    """What blocking ``work`` returns or raises, from DISK_THREADS. A cancellation waits until it has ended."""
    return await complete(asyncio.wrap_future(DISK_THREADS.submit(work, *args)))


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
