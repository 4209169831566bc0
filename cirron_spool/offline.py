"""Inspect and clear: what can be done with a spool without a network.

What is imported for them holds named tuples where other rooms have data classes: to import those takes a sixth of the
time in which ``inspect`` starts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cirron_spool.naming import reason
from cirron_spool.places import spool_directory
from cirron_spool.spool import Entry, Removal, SpoolDirectory


class Inventory(NamedTuple):
    """The batches in a spool directory, oldest first, and their sizes in bytes."""

    directory: Path
    entries: Sequence[Entry]

    @property
    def total_bytes(self) -> int:
        """The sizes of all batches together."""
        return sum(entry.size for entry in self.entries)


class ClearResult(NamedTuple):
    """What a clear came to: batches and bytes deleted, and those that could not be, with the system's reason."""

    directory: Path
    deleted: int
    bytes: int
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def failed(self) -> int:
        """Batches that could not be deleted and are still there."""
        return len(self.failures)


def inspect_spool(directory: str | os.PathLike[str] | None = None) -> Inventory:
    """List the spool in ``directory`` (``$CIRRON_OUTPUT_DIR/spool`` or ``./.cirron/spool``) without reading a batch.

    A directory that does not exist is an empty spool. Blocking; works offline. Raises SpoolError when it is not a
    directory or may not be read.
    """
    path = spool_directory(directory, os.environ)
    with SpoolDirectory(path) as spool:
        return Inventory(path, spool.entries() if spool.open() else ())


def clear_spool(
    directory: str | os.PathLike[str] | None = None, *, inventory: Inventory | None = None
) -> ClearResult:
    """Delete every batch in the spool, or just those of an ``inventory`` that somebody has agreed to.

    Anything that is not a batch is left alone; a batch that is gone already counts as deleted. Blocking; works
    offline. Raises SpoolError, and SpoolBusyError while a flush or another clear works on the spool.
    """
    path = inventory.directory if inventory is not None else spool_directory(directory, os.environ)
    with SpoolDirectory(path) as spool:
        if not spool.open():
            return ClearResult(path, 0, 0)
        entries = inventory.entries if inventory is not None else spool.entries()
        if not entries:
            return ClearResult(path, 0, 0)
        spool.check_writable()
        spool.lock()  # given back with the directory
        deleted = size = 0
        failures: list[tuple[str, str]] = []
        for entry in entries:
            try:
                removal = spool.delete(entry.name, None)
            except OSError as error:
                failures.append((entry.name, reason(error)))
                continue
            if removal is Removal.CHANGED:
                failures.append((entry.name, "it is no regular file any more"))
            else:
                deleted += 1
                size += entry.size
        return ClearResult(path, deleted, size, tuple(failures))
