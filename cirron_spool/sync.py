"""``flush_spool_sync``: ``flush_spool`` for code without an event loop, or inside of one that it must not use."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from cirron_spool.concurrency import event_loop
from cirron_spool.concurrency.threads import start
from cirron_spool.errors import ConfigError, resource_errors
from cirron_spool.lazy_flush import flush_spool

if TYPE_CHECKING:
    from cirron_spool.events import FlushResult


def flush_spool_sync(*arguments: Any, **options: Any) -> FlushResult:
    """Upload a spool, and return once that is done; see :func:`~cirron_spool.flush_spool`.

    Under a running event loop, as in a notebook, the flush runs in a thread with an event loop of its own, and the
    caller waits for it. ``on_event`` is then called in that thread. An exception in the caller, such as
    KeyboardInterrupt, cancels the flush. Raises the errors of ``flush_spool``. Raises ConfigError for ``client``,
    ``session`` and ``stop``: they belong to an event loop.
    """
    for option in ("client", "session", "stop"):
        if options.get(option) is not None:
            raise ConfigError(f"{option} belongs to an event loop. Use flush_spool() in that loop.")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with resource_errors():
            return event_loop.run(lambda: flush_spool(*arguments, **options))
    with resource_errors():
        return _InThread(arguments, options).run()


class _InThread:
    """One flush in a thread with its own event loop."""

    def __init__(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._arguments = arguments
        self._options = options
        self._outcome: FlushResult | BaseException | None = None
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._is_cancelled = False

    def run(self) -> FlushResult:
        """Flush. Raises the errors of the flush, and NoThreadError."""
        thread = threading.Thread(target=self._run_loop, name="cirron-spool flush", daemon=True)
        start(thread)
        try:
            thread.join()
        except BaseException:
            self._cancel()
            thread.join()
            raise
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        assert self._outcome is not None  # noqa: S101  # the thread has ended
        return self._outcome

    def _run_loop(self) -> None:
        try:
            self._outcome = event_loop.run(self._flush)
        except BaseException as error:  # noqa: BLE001  # raised in the caller's thread
            self._outcome = error

    async def _flush(self) -> FlushResult:
        task = asyncio.current_task()
        if task is not None:
            self._running = asyncio.get_running_loop(), task
        if self._is_cancelled:
            raise asyncio.CancelledError
        return await flush_spool(*self._arguments, **self._options)

    def _cancel(self) -> None:
        self._is_cancelled = True
        if self._running is not None:
            loop, task = self._running
            try:
                loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:  # the loop is closed
                return
