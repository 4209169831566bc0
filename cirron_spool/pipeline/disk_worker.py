"""The interface of the disk work: read batches ahead, and delete files after their acknowledgement.

Two strategies implement it: :mod:`~cirron_spool.pipeline.thread_worker` and
:mod:`~cirron_spool.pipeline.inline_worker`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from cirron_spool.concurrency.shield import complete
from cirron_spool.pipeline.batch import Prepared, Ready, held_bytes
from cirron_spool.pipeline.batch_reader import BatchReader
from cirron_spool.pipeline.disk_thread import DiskThread
from cirron_spool.pipeline.window_size import FixedSize, WindowSize
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.file_identity import Removal

T = TypeVar("T")

# Longest delay of a deferred delete. After a crash, an undeleted file is sent again.
_LONGEST_DELAY_S = 0.005

Remove = Callable[[Prepared], Removal]
Removed = Callable[[Prepared, Removal | OSError], None]
Before = Callable[[], None]
# The batch to delete, the callback for the result, and the work that must be done first.
_Delete = tuple[Prepared, Removed, Before | None]


class DiskWorker(ABC):
    """Reads the named batches ahead and in order, and deletes acknowledged ones.

    A context manager. Entering it raises NoThreadError. Leaving it finishes all deletes, then calls ``last`` in the
    thread. ``remove`` deletes one file, and may raise OSError. ``window_size`` is the number of batches in flight.
    """

    def __init__(
        self,
        reader: BatchReader,
        remove: Remove,
        tuning: Tuning,
        *,
        window_size: WindowSize = FixedSize(1),  # noqa: B008  # it never changes
        last: Callable[[], None] = lambda: None,
    ) -> None:
        self._reader = reader
        self._remove = remove
        self._tuning = tuning
        self._window_size = window_size
        self._last = last
        self._loop = asyncio.get_running_loop()
        self._thread = DiskThread()
        self._names: deque[str] = deque()  # still unread
        self._is_reading = False  # in the thread
        self._ready: deque[Ready] = deque()
        self._ready_bytes = 0
        self._deferred: deque[_Delete] = deque()  # deletes that wait for the next poll
        self._deleting = 0  # deletes in the thread
        self._error: BaseException | None = None  # a bug or a missing resource
        self._is_raised = False
        self._is_broken = False  # written by the thread: a delete raised
        self._timer: asyncio.TimerHandle | None = None
        self._progress = asyncio.Event()  # set by each report of the thread
        self._is_ended = False  # nothing more is read

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await complete(self._leave())
        if error is None:
            self._raise_error()

    async def run(self, job: Callable[[], T]) -> T:
        """Run a blocking ``job`` in the thread; return its result or raise its exception."""
        return await self._thread.run(job)

    def feed(self, names: Sequence[str]) -> None:
        """Add batches to read, after the earlier ones. The reading of the first starts at once."""
        self._names.extend(names)
        self._start_reading()

    async def next(self) -> Ready | None:
        """The next batch in order; None when none is left. Raises the exceptions of the reading."""
        while not self._ready:
            if self._error is not None or not (self._names or self._is_reading):
                self._raise_error()
                return None
            self._read_ahead()
            if not self._ready:
                await self._wait()
        batch = self._ready.popleft()
        self._ready_bytes -= held_bytes(batch)
        return batch

    def delete(self, batch: Prepared, removed: Removed, before: Before | None = None) -> None:
        """Delete the file of ``batch`` at the next poll, after the files before it. Returns at once.

        ``removed`` is called in the event loop with the batch and the result, and must not raise. ``before`` may block,
        and is called in the thread. If it raises OSError, the file stays, and the error is the result.
        """
        self._deferred.append((batch, removed, before))
        if self._timer is None:
            self._timer = self._loop.call_later(_LONGEST_DELAY_S, self._poll_late)

    def poll(self) -> None:
        """Run the deferred work, or hand it to the thread, while a request waits for its answer. Never raises."""
        if self._deferred and self._error is None:
            self._delete_deferred()
        self._read_ahead()

    @property
    def undeleted(self) -> int:
        """The number of files that wait for their delete."""
        return len(self._deferred) + self._deleting

    async def drain(self, at_most: int = 0) -> None:
        """Wait until at most ``at_most`` files wait for their delete.

        Raises the exceptions of the deletes, except OSError.
        """
        while self.undeleted > at_most and self._error is None:
            self.poll()
            if self.undeleted > at_most and self._error is None:
                await self._wait()
        self._raise_error()

    # -- for the strategies ------------------------------------------------------------------------------------------

    @abstractmethod
    def _start_reading(self) -> None:
        """Start to read the first batches, before the first upload."""

    @abstractmethod
    def _read_ahead(self) -> None:
        """Read more batches, here or in the thread, if there is room."""

    @abstractmethod
    def _delete_deferred(self) -> None:
        """Delete the deferred files in their order, here or in the thread."""

    def _add(self, batches: Iterable[Ready]) -> None:
        for batch in batches:
            self._ready.append(batch)
            self._ready_bytes += held_bytes(batch)

    def _delete_in_thread(self) -> None:
        deletes = tuple(self._deferred)
        self._deferred.clear()
        self._deleting += len(deletes)
        self._thread.submit(partial(self._remove_all, deletes), self._removed)

    def _remove_all(self, deletes: tuple[_Delete, ...]) -> list[tuple[Prepared, Removed, Removal | OSError]]:
        """In the thread: delete a group of files. After an exception nothing more is deleted."""
        if self._is_broken:
            return []
        try:
            return [(batch, removed, self._try_remove(batch, before)) for batch, removed, before in deletes]
        except BaseException:
            self._is_broken = True
            raise

    def _try_remove(self, batch: Prepared, before: Before | None = None) -> Removal | OSError:
        try:
            if before is not None:
                before()
            return self._remove(batch)
        except OSError as error:
            return error

    def _removed(
        self,
        results: list[tuple[Prepared, Removed, Removal | OSError]] | None,
        error: BaseException | None,
    ) -> None:
        if results is None:
            self._fail(error)
            return
        self._deleting -= len(results)
        self._progress.set()
        for batch, removed, result in results:
            removed(batch, result)

    def _fail(self, error: BaseException | None) -> None:
        self._error = self._error or error
        self._end_reading()
        self._progress.set()

    # -- small parts -------------------------------------------------------------------------------------------------

    def _poll_late(self) -> None:
        self._timer = None
        self.poll()

    async def _wait(self) -> None:
        """Wait for the thread's next report."""
        self._progress.clear()
        await self._progress.wait()

    def _end_reading(self) -> None:
        self._is_ended = True
        self._names.clear()

    def _raise_error(self) -> None:
        if self._error is not None and not self._is_raised:
            self._is_raised = True
            raise self._error

    async def _leave(self) -> None:
        self._end_reading()
        if self._deferred and self._error is None:
            self._delete_deferred()
        while self.undeleted and self._error is None:
            await self._wait()
        if self._timer is not None:
            self._timer.cancel()
        await self._thread.stop(self._last)
