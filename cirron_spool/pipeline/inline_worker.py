"""The disk work in an event loop that serves nothing else, as in the command.

A small batch is read, compressed and deleted while the previous request waits for its answer. That saves two thread
switches for each batch. The thread reads large batches, one at a time, which keeps their order.
"""

from __future__ import annotations

from functools import partial

from cirron_spool.pipeline.batch import Ready
from cirron_spool.pipeline.disk_worker import DiskWorker

# Largest file of the event loop. Its work takes 30 to 300 µs on a local disk.
SMALL_BYTES = 128 * 1024
# Batches that are read ahead. The second one keeps the thread busy with large batches.
_AHEAD = 2


class InlineWorker(DiskWorker):
    """Reads and deletes small files in the event loop, and large ones in the thread.

    See :class:`~cirron_spool.pipeline.disk_worker.DiskWorker`. A hung file system can block the loop.
    """

    def _start_reading(self) -> None:
        self._read_ahead()

    def _read_ahead(self) -> None:
        while self._names and not self._is_reading and self._has_room():
            name = self._names.popleft()
            try:
                batch = self._reader.read_if_small(name, SMALL_BYTES)
            except BaseException as error:  # noqa: BLE001  # raised by next() and drain()
                self._fail(error)
                return
            if batch is not None:
                self._add((batch,))
            else:
                self._is_reading = True
                self._thread.submit(partial(self._reader.read, name, self._thread.serve), self._was_read)

    def _has_room(self) -> bool:
        ahead = min(self._window_size.size - 1 + _AHEAD, self._tuning.prefetch_batches)
        return len(self._ready) < ahead and self._ready_bytes < self._tuning.prefetch_bytes

    def _was_read(self, batch: Ready | None, error: BaseException | None) -> None:
        self._is_reading = False
        if batch is None:
            self._fail(error)
            return
        self._add((batch,))
        self._read_ahead()
        self._progress.set()

    def _delete_deferred(self) -> None:
        # While the thread deletes, later files go there, too: files are deleted in order.
        while self._deferred and not self._deleting:
            batch, removed, before = self._deferred[0]
            if before is not None or batch.size > SMALL_BYTES:
                break
            self._deferred.popleft()
            try:
                result = self._try_remove(batch)
            except BaseException as error:  # noqa: BLE001  # raised by next() and drain()
                self._fail(error)
                return
            removed(batch, result)
        if self._deferred:
            self._delete_in_thread()
