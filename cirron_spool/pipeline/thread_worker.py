"""The disk work in a thread: the caller's event loop never touches the disk.

The thread gets groups of names to read and of files to delete. It reports a whole group, so that many small batches
wake the loop once. Between two files of a group the thread runs waiting jobs, so a delete never waits for a group.
"""

from __future__ import annotations

from functools import partial

from cirron_spool.pipeline.batch import Prepared, Ready
from cirron_spool.pipeline.disk_worker import DiskWorker

# Largest group, in files and in bytes: one to two milliseconds of work.
_GROUP_FILES = 16
_GROUP_BYTES = 256 * 1024


class ThreadWorker(DiskWorker):
    """Reads and deletes only in the thread; see :class:`~cirron_spool.pipeline.disk_worker.DiskWorker`."""

    def _start_reading(self) -> None:
        # Only the first window: this leaves the CPU to connection set-up.
        self._read_group(self._window_size.size)

    def _read_ahead(self) -> None:
        tuning = self._tuning
        if len(self._ready) * 2 <= tuning.prefetch_batches and self._ready_bytes * 2 <= tuning.prefetch_bytes:
            self._read_group(min(_GROUP_FILES, tuning.prefetch_batches - len(self._ready)))

    def _delete_deferred(self) -> None:
        self._delete_in_thread()

    def _read_group(self, files: int) -> None:
        if self._is_reading or not self._names:
            return
        self._is_reading = True
        names = [self._names.popleft() for _ in range(min(files, len(self._names)))]
        room = min(_GROUP_BYTES, self._tuning.prefetch_bytes - self._ready_bytes)
        self._thread.submit(partial(self._read, names, room), self._was_read)

    def _was_read(self, group: tuple[list[Ready], list[str]] | None, error: BaseException | None) -> None:
        self._is_reading = False
        if group is None:
            self._fail(error)
            return
        batches, unread = group
        self._add(batches)
        if not self._is_ended:
            self._names.extendleft(reversed(unread))
            self._read_ahead()
        self._progress.set()

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _read(self, names: list[str], room: int) -> tuple[list[Ready], list[str]]:
        """Read a group up to ``room`` bytes. Returns the batches and the unread names."""
        batches: list[Ready] = []
        size = 0
        for name in names:
            if size >= room:
                break
            batch = self._reader.read(name, self._thread.serve)
            batches.append(batch)
            size += batch.size if isinstance(batch, Prepared) else 0
            self._thread.serve()
        return batches, names[len(batches) :]
