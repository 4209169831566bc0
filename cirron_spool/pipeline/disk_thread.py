"""One thread that runs disk jobs in order for an event loop, and reports each result to the loop.

A thread pool would cost half of a small upload for each call (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from cirron_spool.concurrency.threads import call_from_thread, start

T = TypeVar("T")

# Longest wait for the thread at the end. A dead mount can hold it for ever; a daemon thread can be abandoned.
_STOP_S = 2.0

_Done = Callable[[Any, BaseException | None], None]


class DiskThread:
    """Runs jobs one after another in a daemon thread, from start() to stop()."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._main, name="cirron-spool disk", daemon=True)
        # None asks the thread to stop.
        self._inbox: SimpleQueue[tuple[Callable[[], object], _Done] | None] = SimpleQueue()
        self._last: Callable[[], None] | None = None
        self._stopped: asyncio.Future[None] = self._loop.create_future()

    def start(self) -> None:
        """Start the thread. Raises NoThreadError."""
        start(self._thread)

    def submit(self, job: Callable[[], T], done: Callable[[T, BaseException | None], None]) -> None:
        """Queue ``job``. The event loop calls ``done`` with its result and its exception; one of them is None.

        Never blocks.
        """
        self._inbox.put((job, done))

    async def run(self, job: Callable[[], T]) -> T:
        """Run ``job``; return its result or raise its exception. A cancellation does not wait for the job."""
        result: asyncio.Future[T] = self._loop.create_future()

        def done(value: T, error: BaseException | None) -> None:
            if result.done():
                return
            if error is None:
                result.set_result(value)
            else:
                result.set_exception(error)

        self.submit(job, done)
        return await result

    async def stop(self, last: Callable[[], None]) -> None:
        """End the thread after the current job, then have it call ``last``. :meth:`serve` ends a long job early.

        Returns when the thread has ended, or after two seconds.
        """
        self._last = last
        self._inbox.put(None)
        await asyncio.wait([self._stopped], timeout=_STOP_S)

    # -- in the thread -----------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run the waiting jobs. A long job calls this, so that a short job need not wait for its end."""
        while not self._inbox.empty():  # the thread is the only reader
            self._run(self._inbox.get_nowait())

    def _main(self) -> None:
        try:
            while True:
                self._run(self._inbox.get())
        except _Stop:
            pass
        finally:
            try:
                if self._last is not None:
                    self._last()
            finally:
                call_from_thread(self._loop, self._stopped.set_result, None)

    def _run(self, job: tuple[Callable[[], object], _Done] | None) -> None:
        if job is None:
            raise _Stop
        work, done = job
        result, failure = None, None
        try:
            result = work()
        except _Stop:
            raise
        except BaseException as error:  # noqa: BLE001  # raised in the event loop
            failure = error
        call_from_thread(self._loop, done, result, failure)


class _Stop(BaseException):
    """Ends the thread, also in the middle of a long job."""
