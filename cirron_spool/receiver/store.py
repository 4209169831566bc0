"""The folder that batches are kept in: nothing is there under a batch's name unless it is whole, valid and durable."""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cirron_spool import naming
from cirron_spool.errors import SpoolBusyError, SpoolError
from cirron_spool.lock import HeldError, lock_file
from cirron_spool.receiver.body import BodyReader, RefusedError

_LOCK_NAME = ".cirron-spool-receive.lock"

# Hidden, and matched neither by a batch's name nor by the SDK's globs for *.json and *.json.tmp.
_INCOMING = re.compile(r"\.incoming-[0-9a-f]{16}\.part")

# The SDK's identifiers have 32 digits. The bound keeps any file name under the 255 bytes that file systems allow.
_BATCH_ID = re.compile(r"[0-9a-f]{1,128}")

# What fits into the 20 digits that the SDK pads to, and so keeps the order of names the order of times.
_CREATED_NS = re.compile(r"0|[1-9][0-9]{0,19}")

# O_NOFOLLOW and O_CLOEXEC are not everywhere; where they are missing there is nothing to ask for.
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_OLD_FILE = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class Stored:
    """A batch that is durable: its file's name, its size in bytes (0 for a duplicate), whether it was there before."""

    name: str
    size: int
    duplicate: bool


class Store:
    """An open store. All methods may be called from any thread; none may be called on an event loop's.

    Only one store can be open on a folder at a time. A batch is looked for by its identifier, in an index that is made
    from the file names once and kept up to date; a batch that has since been taken away (flushed, cleared) counts as
    not there.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        """Open or create ``directory``. Raises SpoolError when that cannot be, SpoolBusyError when another has it."""
        self.directory = directory.absolute()
        self.max_bytes = max_bytes
        self._changed = threading.Condition()
        self._names: dict[str, str] = {}
        # Batches that were there at the start: whoever put them there may not have made them durable.
        self._unsynced: set[str] = set()
        self._being_committed: set[str] = set()
        self._folder: int | None = None
        try:
            _make_folder(self.directory)
            self._lock = lock_file(self.path(_LOCK_NAME))
        except HeldError:
            advice = "Stop it or choose another --store."
            raise SpoolBusyError(f"Another receiver stores in {self._shown}. {advice}") from None
        except OSError as error:
            raise self._unusable(error) from None
        try:
            self._clean_and_index()
            if os.name == "posix":
                self._folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._sync_folder()
        except OSError as error:
            self.close()
            raise self._unusable(error) from None

    def close(self) -> None:
        """Let go of the folder. The store cannot be used afterwards."""
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None
        self._lock.give_back()

    def upload(self, batch_id: str, *, gzipped: bool) -> Upload:
        """Begin to take in a batch. Raises RefusedError (400) when this is not 1 to 128 lower-case hex digits."""
        if not _BATCH_ID.fullmatch(batch_id):
            raise RefusedError(400, "X-Cirron-Batch-Id must be 1 to 128 lower-case hexadecimal digits.")
        return Upload(self, batch_id, gzipped=gzipped)

    def holds(self, batch_id: str) -> str | None:
        """The name of the durable batch with this identifier, or None."""
        with self._changed:
            return self._find(batch_id)

    def __len__(self) -> int:
        """How many batches the index knows."""
        with self._changed:
            return len(self._names)

    def path(self, name: str) -> str:
        """Where a file of this name is."""
        return os.path.join(self.directory, name)

    def commit(self, temporary: str, batch_id: str, created_ns: int, size: int) -> Stored:
        """Give a synced temporary file its batch's name, durably, unless the batch is already there.

        Raises OSError; then there is no such batch. Of two at once with the same identifier, the second waits for the
        first, because it may only be called a duplicate of something durable.
        """
        with self._changed:
            while batch_id in self._being_committed:
                self._changed.wait()
            there = self._find(batch_id)
            if there is not None:
                self._keep_one(temporary, there)
                return Stored(there, 0, duplicate=True)
            self._being_committed.add(batch_id)
        name = naming.format_name(created_ns, batch_id)
        try:
            os.replace(temporary, self.path(name))
            try:
                self._sync_folder()
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(self.path(name))
                raise
            with self._changed:
                self._names[batch_id] = name
        finally:
            with self._changed:
                self._being_committed.remove(batch_id)
                self._changed.notify_all()
        return Stored(name, size, duplicate=False)

    def _keep_one(self, temporary: str, there: str) -> None:
        """Of two files with one identifier keep the stored bytes, but where they are equal the file that just came.

        Somebody may be flushing this very store to us by mistake. The sender deletes the file that it has read, and
        would delete the only copy; a file that was replaced meanwhile it keeps.
        """
        if filecmp.cmp(temporary, self.path(there), shallow=False):
            os.replace(temporary, self.path(there))
            self._sync_folder()
        else:
            os.unlink(temporary)

    def _find(self, batch_id: str) -> str | None:
        name = self._names.get(batch_id)
        if name is None:
            return None
        try:
            found = os.lstat(self.path(name))
            # The SDK does not sync its files: after a power cut, one that was copied here can be empty.
            if stat.S_ISREG(found.st_mode) and found.st_size > 0:
                if batch_id in self._unsynced:
                    _sync_file(self.path(name))
                    self._unsynced.discard(batch_id)
                return name
        except FileNotFoundError:
            pass
        del self._names[batch_id]
        return None

    def _clean_and_index(self) -> None:
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    continue
                if (batch := naming.parse(entry.name)) is not None:
                    self._names[batch.batch_id] = entry.name
                elif _INCOMING.fullmatch(entry.name):
                    # Never acknowledged, and nobody else writes here while we have the lock.
                    os.unlink(entry.path)
        self._unsynced.update(self._names)

    def _sync_folder(self) -> None:
        # Windows has no such call, and needs none: it logs changes of names itself.
        if self._folder is not None:
            os.fsync(self._folder)

    @property
    def _shown(self) -> str:
        return naming.printable(str(self.directory))

    def _unusable(self, error: Exception) -> SpoolError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return SpoolError(f"Cannot store in {self._shown}: {reason}. Choose another folder with --store.")


class Upload:
    """One batch on its way in: ``feed`` its body, then ``finish``; ``discard`` whatever happened.

    The calls may come from different threads, one after another; ``discard`` may come at any time, also while another
    call runs, and waits for it.
    """

    def __init__(self, store: Store, batch_id: str, *, gzipped: bool) -> None:
        self._store = store
        self._batch_id = batch_id
        self._reader = BodyReader(gzipped=gzipped, limit=store.max_bytes)
        self._temporary = store.path(f".incoming-{secrets.token_hex(8)}.part")
        self._there = False
        self._file: int | None = None
        self._size = 0
        self._running = threading.Lock()

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the body. Raises RefusedError, or OSError when they cannot be written."""
        with self._running:
            self._write(self._reader.feed(data))

    def finish(self) -> Stored:
        """Take the body for complete and make the batch durable.

        Raises RefusedError or OSError; then nothing is stored.
        """
        with self._running:
            self._write(self._reader.finish())
            written = self._reader.created_ns
            if written is not None and not _CREATED_NS.fullmatch(written):
                raise RefusedError(
                    400, "created_ns must be a whole number with at most 20 digits, not negative."
                )
            created_ns = time.time_ns() if written is None else int(written)
            file = self._opened()
            os.fsync(file)
            self._file = None
            os.close(file)
            stored = self._store.commit(self._temporary, self._batch_id, created_ns, self._size)
            self._there = False
            return stored

    def discard(self) -> None:
        """Leave nothing half-written behind. After a successful ``finish`` there is nothing to do."""
        with self._running:
            if self._file is not None:
                with contextlib.suppress(OSError):
                    os.close(self._file)
                self._file = None
            if self._there:
                with contextlib.suppress(OSError):
                    os.unlink(self._temporary)
                self._there = False

    def run(self, body: bytes) -> Stored:
        """All of it in one call, for a body that is at hand."""
        try:
            self.feed(body)
            return self.finish()
        finally:
            self.discard()

    def _write(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            file = self._opened()
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(file, rest) :]
            self._size += len(piece)

    def _opened(self) -> int:
        # As late as possible: what is refused at its first piece never touches the disk.
        if self._file is None:
            self._file = os.open(self._temporary, _NEW_FILE, 0o600)
            self._there = True
        return self._file


def _make_folder(directory: Path) -> None:
    """Create the folder and what is missing above it, mode 0700, durably."""
    if directory.is_dir():
        return
    if directory.parent != directory:
        _make_folder(directory.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    if not directory.is_dir():
        raise NotADirectoryError(20, "it is not a folder")
    if os.name == "posix":
        _sync_file(directory.parent, os.O_RDONLY)


def _sync_file(path: str | Path, flags: int = _OLD_FILE) -> None:
    descriptor = os.open(path, flags, 0o600)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
