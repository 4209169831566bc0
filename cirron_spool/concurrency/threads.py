"""Run blocking work in daemon threads, and resolve futures from a thread."""

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
    """Run blocking ``work`` in its own daemon thread; return its result or raise its exception.

    A cancellation returns at once, and the thread continues. It delays neither the end of the event loop nor of the
    interpreter. Raises NoThreadError when no thread can be started.
    """
    outcome: asyncio.Future[R | BaseException] = asyncio.get_running_loop().create_future()

    def run() -> None:
        try:
            resolve_from_thread(outcome, work())
        except BaseException as error:  # noqa: BLE001  # raised where the work is awaited
            resolve_from_thread(outcome, error)

    start(threading.Thread(target=run, name=name, daemon=True))
    result = await outcome
    if isinstance(result, BaseException):
        raise result
    return result


def start(thread: threading.Thread) -> None:
    """Start ``thread``. Raises NoThreadError if the system or the interpreter refuses."""
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        raise NoThreadError from None


class _DiskThreads(Executor):
    """Runs each call in its own daemon thread, or in the caller's thread if no thread can be started.

    At their end, the event loop and the interpreter join the threads of other executors. A dead network mount would
    block both.
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


# For rare calls into the file system: a thread costs about 50 µs.
DISK_THREADS = _DiskThreads()


async def in_thread(work: Callable[..., R], *args: Any) -> R:
    """Run blocking ``work`` in DISK_THREADS; return its result or raise its exception.

    A cancellation is raised after the end of the work.
    """
    return await complete(asyncio.wrap_future(DISK_THREADS.submit(work, *args)))


def resolve_from_thread(future: asyncio.Future[T], outcome: T) -> None:
    """From a thread: resolve ``future`` with ``outcome``, unless it is done or its event loop is closed."""
    call_from_thread(future.get_loop(), resolve, future, outcome)


def call_from_thread(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> None:
    """From a thread: call ``callback`` in the event loop ``loop``, unless the loop is closed."""
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(callback, *args)


def resolve(future: asyncio.Future[T], outcome: T) -> None:
    """Resolve ``future`` with ``outcome``, unless it is done."""
    if not future.done():
        future.set_result(outcome)
