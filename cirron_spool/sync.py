"""Synchronous flushes. Each one runs in a new event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cirron_spool.concurrency import event_loop
from cirron_spool.concurrency.threads import start
from cirron_spool.errors import ConfigError, resource_errors
from cirron_spool.lazy_flush import flush_spool, flush_spools

if TYPE_CHECKING:
    from cirron_spool.events import FlushResult, FlushSpoolsResult

T = TypeVar("T")


def flush_spool_sync(*arguments: Any, **options: Any) -> FlushResult:
    """Upload a spool and wait for the result; see :func:`~cirron_spool.flush_spool`.

    If the caller's thread already runs an event loop, as in a notebook, the flush runs in another thread. ``on_event``
    is then called in that thread. An exception in the caller, such as KeyboardInterrupt, cancels the flush. Raises the
    errors of ``flush_spool``. Raises ConfigError for ``client``, ``session`` and ``stop``: they belong to an event
    loop.
    """
    _check_options("flush_spool", options)
    return run_in_new_loop(partial(flush_spool, *arguments, **options))


def flush_spools_sync(*arguments: Any, **options: Any) -> FlushSpoolsResult:
    """Upload several spools and wait for the result; see :func:`~cirron_spool.flush_spools`.

    Event loops, exceptions and ``on_event`` work as in :func:`flush_spool_sync`.
    """
    _check_options("flush_spools", options)
    return run_in_new_loop(partial(flush_spools, *arguments, **options))


def _check_options(flush: str, options: dict[str, Any]) -> None:
    for option in ("client", "session", "stop"):
        if options.get(option) is not None:
            raise ConfigError(f"{option} belongs to an event loop. Use {flush}() in that loop.")


def run_in_new_loop(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main`` in a new event loop, in another thread if this thread already runs a loop."""
    with resource_errors():
        return _InThread(main).run() if _is_in_event_loop() else event_loop.run(main)


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _InThread(Generic[T]):
    """A coroutine in a thread with its own event loop."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._main = main
        self._outcome: list[T] = []
        self._error: BaseException | None = None
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._is_cancelled = False

    def run(self) -> T:
        """Run to the end. Raises the errors of ``main``, and NoThreadError."""
        thread = threading.Thread(target=self._run_loop, name="cirron-spool flush", daemon=True)
        start(thread)
        try:
            thread.join()
        except BaseException:
            self._cancel()
            thread.join()
            raise
        if self._error is not None:
            raise self._error
        return self._outcome[0]

    def _run_loop(self) -> None:
        try:
            self._outcome.append(event_loop.run(self._until_cancelled))
        except BaseException as error:  # noqa: BLE001  # raised in the caller's thread
            self._error = error

    async def _until_cancelled(self) -> T:
        task = asyncio.current_task()
        if task is not None:
            self._running = asyncio.get_running_loop(), task
        if self._is_cancelled:
            raise asyncio.CancelledError
        return await self._main()

    def _cancel(self) -> None:
        self._is_cancelled = True
        if self._running is not None:
            loop, task = self._running
            try:
                loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:  # the loop is closed
                return
