"""The receipts file of a flush. Blocking.

Each receipt is appended in one write and synced before the batch's file is deleted. Several flushes and processes may
append to one file: each append takes the file's lock, and continues the chain.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cirron_spool.errors import ConfigError, resource_error
from cirron_spool.receipts.chain import Receipt, hash_of, is_torn, last_receipt
from cirron_spool.text import printable, reason

# The last receipt is searched in so many bytes at the end of the file.
_TAIL_BYTES = 1024 * 1024
# Longest wait for the lock. An append holds it for some milliseconds.
_LONGEST_WAIT_S = 10.0
_RETRY_S = 0.002
# An attempt fails if the file is moved away between open and lock.
_MOST_TRIES = 10
_sync = getattr(os, "fdatasync", os.fsync)
_FLAGS = (
    os.O_RDWR
    | os.O_APPEND
    | os.O_CREAT
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
)


class ReceiptError(OSError):
    """A receipt could not be written. ``hint`` has the next step."""

    hint = "Make room or correct the file, or flush without --receipts."


class ReceiptsFile:
    """The receipts file ``path``. A missing file is created."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.abspath(path)
        self.shown = printable(os.fspath(path))
        self._fd: int | None = None
        self._end = -1  # of the file, when this wrote or read it last
        self._previous: str | None = None
        self._is_torn = False

    def open(self) -> None:
        """Open the file and find its last receipt. Raises ConfigError for a file that cannot be continued."""
        if self.shown == "-":
            raise ConfigError("Receipts need a file, not - (standard output). Name a file.")
        try:
            with self._locked():
                pass
        except OSError as error:
            self.close()
            if lacking := resource_error(error):
                raise lacking from None
            raise ConfigError(
                f"Cannot write receipts to {self.shown}: {reason(error)}. Name another file for the receipts."
            ) from None

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def append(self, receipt: Receipt) -> None:
        """Append ``receipt`` durably, with its ``previous`` set. Raises ReceiptError.

        After an error the file ends as before, where the file system allows it.
        """
        try:
            with self._locked() as fd:
                line = receipt._replace(previous=self._previous).line()
                data = (b"\n" if self._is_torn else b"") + line + b"\n"
                try:
                    _write(fd, data)
                except OSError:
                    with suppress(OSError):
                        os.ftruncate(fd, self._end)
                    raise
                # Only after the write: a hash without its line would break the chain.
                self._end += len(data)
                self._previous = hash_of(line)
                self._is_torn = False
        except OSError as error:
            raise ReceiptError(error.errno, reason(error), self._path) from None

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Lock the file that now has the path, and find its end. Raises OSError."""
        fd = self._lock()
        try:
            self._find_end(fd)
            yield fd
        finally:
            _unlock(fd)

    def _lock(self) -> int:
        for _ in range(_MOST_TRIES):
            if self._fd is None:
                self._fd = _open(self._path)
                self._end = -1
            _lock(self._fd)
            if _is_in_place(self._fd, self._path):
                return self._fd
            self.close()  # which unlocks it
        raise OSError("it is replaced repeatedly")

    def _find_end(self, fd: int) -> None:
        """Find the last receipt, unless the file has not changed. Raises OSError for another kind of file."""
        size = os.fstat(fd).st_size
        if size == self._end:
            return
        begin = max(0, size - _TAIL_BYTES)
        # The read may start inside a line.
        lines = os.pread(fd, size - begin, begin).split(b"\n")
        last = last_receipt(lines)
        if last is not None:
            self._previous = hash_of(last)
        elif not all(is_torn(line) for line in lines):
            raise OSError("it has other content than receipts")
        # After a move of the file, the new file continues the chain.
        self._end = size
        self._is_torn = bool(lines[-1])


def check_writable(path: str | os.PathLike[str]) -> None:
    """Open the receipts file and close it. Raises ConfigError for a file that cannot be continued."""
    file = ReceiptsFile(path)
    file.open()
    file.close()


def _open(path: str) -> int:
    is_new = not os.path.lexists(path)
    fd = os.open(path, _FLAGS, 0o600)
    try:
        _check_regular(fd)
    except OSError:
        os.close(fd)
        raise
    if is_new:
        _sync_folder(os.path.dirname(path))
    return fd


def _check_regular(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError("it is not a regular file")


def _is_in_place(fd: int, path: str) -> bool:
    """Whether the open file still has the path."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _write(fd: int, data: bytes) -> None:
    """Write ``data`` durably. Raises OSError, also after a partial write."""
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    _sync(fd)


def _sync_folder(path: str) -> None:
    """Sync the folder of a new file, if the file system supports it."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


if sys.platform == "win32":

    def _lock(fd: int) -> None:
        del fd
        raise OSError("receipts need locks that this system lacks")

    def _unlock(fd: int) -> None:
        del fd

else:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock

    def _lock(fd: int) -> None:
        """Lock the file. Raises OSError without locks, or after the longest wait."""
        give_up_at = time.monotonic() + _LONGEST_WAIT_S
        while True:
            try:
                flock(fd, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= give_up_at:
                    raise OSError("another process holds its lock") from None
                time.sleep(_RETRY_S)
            else:
                return

    def _unlock(fd: int) -> None:
        with suppress(OSError):
            flock(fd, LOCK_UN)
