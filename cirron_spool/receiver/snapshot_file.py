"""Snapshots on the disk. The path of each one below the store is its key."""

from __future__ import annotations

import contextlib
import filecmp
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cirron_spool.receiver.answers import RefusedError
from cirron_spool.receiver.incoming import IncomingFile, make_folder, sync_file
from cirron_spool.receiver.store import Store


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A durable snapshot: its key, its size in bytes (0 for a duplicate), and whether it is a duplicate."""

    key: str
    size: int
    duplicate: bool


class SnapshotFile(IncomingFile[StoredSnapshot]):
    """The write of one snapshot. Its bytes are stored unchanged."""

    def __init__(self, store: Store, key: str) -> None:
        super().__init__(store.directory)
        self._store = store
        self._key = key
        self._target = Path(store.path(key))

    def accept(self, data: bytes) -> Iterable[bytes]:
        """The unchanged bytes."""
        return (data,)

    def accept_end(self) -> Iterable[bytes]:
        """Nothing."""
        return ()

    def commit(self) -> StoredSnapshot:
        """Name the snapshot. Raises RefusedError (409: other bytes are stored under its key) or OSError."""
        with self._store.exclusive(self._key):
            self._store.check_directory()
            make_folder(self._target.parent)
            duplicate = os.path.lexists(self._target)
            if duplicate and not self._is_stored():
                raise RefusedError(409, "A different snapshot is stored under this key.")
            # A duplicate also replaces the file, since only the new one is known to be durable.
            os.replace(self.temporary, self._target)
            try:
                self._sync_folders()
            except OSError:
                if not duplicate:
                    with contextlib.suppress(OSError):
                        os.unlink(self._target)
                raise
        return StoredSnapshot(self._key, 0 if duplicate else self.size, duplicate)

    def _sync_folders(self) -> None:
        """Sync each folder from the snapshot's up to the store's. Another upload may have just created one."""
        if os.name == "posix":
            for folder in self._target.parents:
                sync_file(folder, os.O_RDONLY)
                if folder == self._store.directory:
                    break

    def _is_stored(self) -> bool:
        regular = self._target.is_file() and not self._target.is_symlink()
        return regular and filecmp.cmp(self.temporary, self._target, shallow=False)
