"""A read-only survey of a spool, for ``status``."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cirron_spool.errors import SpoolError
from cirron_spool.settings.paths import spool_cap
from cirron_spool.spool.claim import is_claimed
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.listing import Entry
from cirron_spool.spool.quarantine import Rejection, entries_if_readable
from cirron_spool.spool.snapshots import Snapshots, find_snapshots


class Survey(NamedTuple):
    """The state of a spool, its quarantine and its snapshots.

    ``entries`` are the batches, oldest first. ``irregular`` entries have a batch's name, but are no regular files.
    ``cap`` is the SDK's limit in bytes. ``free_bytes`` is the free disk space, or None if unknown. ``unwritable`` and
    ``quarantine_problem`` are lines for a person, or empty.
    """

    directory: Path
    exists: bool
    entries: list[Entry]
    irregular: tuple[str, ...]
    cap: int
    is_locked: bool
    unwritable: str
    quarantine: list[Rejection]
    quarantine_problem: str
    snapshots: Snapshots | None
    free_bytes: int | None

    @property
    def total_bytes(self) -> int:
        """The sizes of all batches together."""
        return sum(entry.size for entry in self.entries)

    @property
    def empty(self) -> list[str]:
        """The batches without a byte, which no flush sends."""
        return [entry.name for entry in self.entries if not entry.size]


def survey(directory: Path) -> Survey:
    """Survey the spool in ``directory``. Blocking. Raises SpoolError if it cannot be read."""
    with SpoolDirectory(directory) as spool:
        exists = spool.open()
        entries = spool.entries() if exists else []
        irregular = spool.listing().irregular if exists else ()
        unwritable = ""
        try:
            if exists:
                spool.check_writable()
        except SpoolError as error:
            unwritable = str(error)
    quarantine, problem = entries_if_readable(directory)
    free = None
    with suppress(OSError, StopIteration):
        free = shutil.disk_usage(next(at for at in (directory, *directory.parents) if os.path.isdir(at))).free
    return Survey(
        directory,
        exists,
        entries,
        irregular,
        spool_cap(os.environ),
        is_claimed(directory),
        unwritable,
        quarantine,
        problem,
        find_snapshots(directory),
        free,
    )
