"""All that can be seen of a spool from outside, without a change: for ``status``."""

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
    """A spool and the places beside it.

    ``entries`` are the batches, oldest first. ``irregular`` are named like batches but are no regular files. ``cap``
    and ``free_bytes`` are bytes; ``free_bytes`` is None where the file system does not say. ``unwritable`` is a line
    for a person, or empty, and so is ``quarantine_problem``.
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
    """Look at the spool in ``directory``. Blocking. Raises SpoolError where it cannot be read."""
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
