"""The folder of the batches. Each file with a batch's name is complete, valid and durable."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import re
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cirron_spool.errors import CirronSpoolError, SpoolBusyError, SpoolError, resource_error
from cirron_spool.receiver.answers import RefusedError
from cirron_spool.receiver.body import BodyReader
from cirron_spool.receiver.incoming import (
    INCOMING_NAME,
    NEW_FILE,
    IncomingFile,
    incoming_name,
    make_folder,
    sync_file,
)
from cirron_spool.spool.lock import HeldError, lock_file
from cirron_spool.spool.names import format_batch_name, parse_batch_name
from cirron_spool.text import printable, reason

_LOCK_NAME = ".cirron-spool-receive.lock"

# Most digits of an identifier, so that a file name fits into 255 bytes. The SDK's identifiers have 32.
_BATCH_ID = re.compile(r"[0-9a-f]{1,128}")

# The SDK pads to 20 digits. With at most 20, names sort by time.
_CREATED_NS = re.compile(r"0|[1-9][0-9]{0,19}")


@dataclass(frozen=True, slots=True)
class Stored:
    """A durable batch: its file name, its size in bytes (0 for a duplicate), and whether it is a duplicate."""

    name: str
    size: int
    duplicate: bool


class Store:
    """An open store. All methods may be called from any thread; none may be called on an event loop's.

    Only one store can be open on a folder at a time. An index finds a batch by its identifier. It is made once from
    the file names, and kept up to date. A batch that was flushed or cleared since then counts as absent. A folder
    that was removed or replaced is an OSError at the next batch.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        """Open or create ``directory``. Raises SpoolError for an unusable folder, SpoolBusyError for a used one."""
        self.directory = directory.absolute()
        self.max_bytes = max_bytes
        self._changed = threading.Condition()
        # The file names by identifier. Only files from before the start can share an identifier.
        self._names: dict[str, tuple[str, ...]] = {}
        self._locked_keys: set[str] = set()
        self._folder: int | None = None
        try:
            make_folder(self.directory)
            self._lock = lock_file(self.path(_LOCK_NAME))
        except HeldError:
            advice = "Stop it or choose another --store."
            raise SpoolBusyError(f"Another receiver stores in {self._shown}. {advice}") from None
        except OSError as error:
            raise self._unusable(error) from None
        try:
            self._prepare()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise self._unusable(error) from None
            raise

    def _prepare(self) -> None:
        """Index the folder, and check a durable write. Raises OSError."""
        self._clean_and_index()
        if os.name == "posix":
            self._folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._try_to_write()
        self._sync_folder()

    def close(self) -> None:
        """Close the folder and release its lock. Then the store is unusable."""
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None
        self._lock.release()

    def upload(self, batch_id: str, *, gzipped: bool) -> Upload:
        """Begin the upload of a batch. Raises RefusedError (400) unless the id is 1 to 128 lower-case hex digits."""
        if not _BATCH_ID.fullmatch(batch_id):
            raise RefusedError(400, "X-Cirron-Batch-Id must be 1 to 128 lower-case hexadecimal digits.")
        return Upload(self, batch_id, gzipped=gzipped)

    def holds(self, batch_id: str) -> tuple[str, ...]:
        """The names of the batches with this identifier."""
        with self.exclusive(batch_id):
            return self._find(batch_id)

    def count(self) -> int:
        """The number of batches. Raises OSError if the folder was removed or replaced."""
        self.check_directory()
        with os.scandir(self.directory) as entries:
            return sum(
                bool(parse_batch_name(entry.name)) and entry.is_file(follow_symlinks=False)
                for entry in entries
            )

    def check_directory(self) -> None:
        """Raise OSError if the folder was removed or replaced."""
        if self._folder is not None and not os.path.samestat(os.fstat(self._folder), os.stat(self.directory)):
            raise FileNotFoundError(errno.ENOENT, "the folder was replaced by another one")

    def path(self, name: str) -> str:
        """The path of a file with this name."""
        return os.path.join(self.directory, name)

    def commit(self, temporary: str, batch_id: str, created_ns: int, size: int) -> Stored:
        """Rename a synced temporary file durably to its batch's name, unless the batch exists.

        Raises OSError, or RefusedError (409) if another batch has the identifier. Then nothing is stored. Of two
        concurrent uploads with one identifier, the second waits until the first is durable.
        """
        with self.exclusive(batch_id):
            name = format_batch_name(created_ns, batch_id)
            self._index_existing(batch_id, name)
            there = self._find(batch_id)
            for same in there:
                if filecmp.cmp(temporary, self.path(same), shallow=False):
                    # Only the new file is known to be durable. Also, a sender that flushes this store to itself
                    # keeps a replaced file, so it does not delete the only copy.
                    os.replace(temporary, self.path(same))
                    self._sync_folder()
                    return Stored(same, 0, duplicate=True)
            if there:
                # An acknowledgement would make the sender delete the only copy of its batch.
                raise RefusedError(409, f"A different batch with this identifier is stored as {there[0]}.")
            os.replace(temporary, self.path(name))
            try:
                self._sync_folder()
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(self.path(name))
                raise
            self._names[batch_id] = (name,)
        return Stored(name, size, duplicate=False)

    @contextlib.contextmanager
    def exclusive(self, key: str) -> Iterator[None]:
        """Exclude other uploads with this batch identifier or snapshot key while the block runs."""
        with self._changed:
            while key in self._locked_keys:
                self._changed.wait()
            self._locked_keys.add(key)
        try:
            yield
        finally:
            with self._changed:
                self._locked_keys.remove(key)
                self._changed.notify_all()

    def _index_existing(self, batch_id: str, name: str) -> None:
        """Add a file of another process to the index, so that it is not overwritten."""
        names = self._names.get(batch_id, ())
        if name not in names and os.path.lexists(self.path(name)):
            self._names[batch_id] = (*names, name)

    def _find(self, batch_id: str) -> tuple[str, ...]:
        names = tuple(name for name in self._names.get(batch_id, ()) if self._is_there(name))
        if names:
            self._names[batch_id] = names
        else:
            self._names.pop(batch_id, None)
        return names

    def _is_there(self, name: str) -> bool:
        """Whether a batch with this name is stored. Raises OSError if that is unknown."""
        try:
            found = os.lstat(self.path(name))
        except FileNotFoundError:
            return False
        # The SDK does not sync its files: after a power cut, a copied file can be empty.
        return stat.S_ISREG(found.st_mode) and found.st_size > 0

    def _clean_and_index(self) -> None:
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    continue
                if (batch := parse_batch_name(entry.name)) is not None:
                    self._names[batch.batch_id] = (*self._names.get(batch.batch_id, ()), entry.name)
                elif INCOMING_NAME.fullmatch(entry.name):
                    # Never acknowledged. No other process writes here during the lock.
                    os.unlink(entry.path)

    def _try_to_write(self) -> None:
        path = self.path(incoming_name())
        sync_file(path, NEW_FILE)
        os.unlink(path)

    def _sync_folder(self) -> None:
        # Windows has no such call, and journals renames itself.
        if self._folder is not None:
            os.fsync(self._folder)
            self.check_directory()

    @property
    def _shown(self) -> str:
        return printable(str(self.directory))

    def _unusable(self, error: OSError) -> CirronSpoolError:
        return resource_error(error) or SpoolError(
            f"Cannot store in {self._shown}: {reason(error)}. Choose another folder with --store."
        )


class Upload(IncomingFile[Stored]):
    """The upload of one batch."""

    def __init__(self, store: Store, batch_id: str, *, gzipped: bool) -> None:
        super().__init__(store.directory)
        self._store = store
        self._batch_id = batch_id
        self._reader = BodyReader(gzipped=gzipped, limit=store.max_bytes)

    def accept(self, data: bytes) -> Iterable[bytes]:
        """The pieces of JSON that ``data`` completes. Raises RefusedError."""
        return self._reader.feed(data)

    def accept_end(self) -> Iterable[bytes]:
        """The last piece of JSON. Raises RefusedError."""
        yield from self._reader.finish()
        written = self._reader.created_ns
        if written is not None and not _CREATED_NS.fullmatch(written):
            raise RefusedError(
                400, "created_ns must be a whole number with at most 20 digits, and not negative."
            )

    def commit(self) -> Stored:
        """Name the batch. Raises RefusedError (409: another batch has this identifier) or OSError."""
        written = self._reader.created_ns
        created_ns = time.time_ns() if written is None else int(written)
        return self._store.commit(self.temporary, self._batch_id, created_ns, self.size)
