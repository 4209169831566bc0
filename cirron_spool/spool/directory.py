"""The spool directory: list it, open its batches, delete them; hold its lock.

The directory is opened once, so every later call means the same directory, even when its path is renamed. All calls
block.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Iterator
from enum import Enum, auto
from functools import partial
from itertools import chain, count, islice
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from cirron_spool.errors import EXIT_ATTENTION, EXIT_USAGE, CirronSpoolError, SpoolError, resource_error
from cirron_spool.spool.lock import FileLock, take_lock
from cirron_spool.spool.names import match_batch_name, oldest_first
from cirron_spool.text import printable, reason

# A final symbolic link is refused, a FIFO does not block, no terminal is acquired. Windows has none of them.
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_HAS_DIR_FD = {os.open, os.stat, os.unlink} <= os.supports_dir_fd

# The file is not there any more, also as a network file system says it (ESTALE: deleted on the server).
_GONE = frozenset({errno.ENOENT, errno.ESTALE})
# The path or its permissions are wrong. Any other error is the file system's: a person must look.
_WRONG_PATH = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG})

_TYPE_BITS = stat.S_IFMT(0xFFFF)
_REGULAR = stat.S_IFREG

# Entries of a listing that are examined together: few enough for the processor's cache.
_PORTION = 64
# A listing yields the interpreter lock after so many entries, one to two milliseconds of work. A yield costs 70 µs.
_YIELD_EVERY = 1024

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)


class Fingerprint(NamedTuple):
    """The identity of a file: device, inode, bytes, mtime in ns.

    Two of them are compared by :meth:`SpoolDirectory.is_same`: not every file system has inode numbers that last.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The fingerprint in a stat result."""
        # As entries() makes its tuples: two for each batch.
        return tuple.__new__(cls, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


class Vanished(Exception):
    """The batch is not there any more: evicted by the SDK, or delivered by another flush. No failure."""


class NotABatch(Exception):
    """The entry under a batch's name is no regular file; it is left alone."""


class Removal(Enum):
    """The result of a delete."""

    DELETED = auto()
    GONE = auto()  # already gone counts as deleted
    CHANGED = auto()  # another file stands there than the one that was sent: kept


class Listing(NamedTuple):
    """``names`` of batches, oldest first; ``strangers`` are named like batches but are no regular files."""

    names: list[str]
    strangers: tuple[str, ...]


class Entry(NamedTuple):
    """A batch in the spool and its size in bytes."""

    name: str
    size: int


class SpoolDirectory:
    """A spool directory. A context manager that closes what was opened; ``path`` is absolute, as people see it.

    ``exists`` is False once :meth:`open` has found no such directory. ``remedy`` ends the error for a path that is no
    directory.
    """

    def __init__(self, path: Path, *, remedy: str = "Pass --dir the spool directory.") -> None:
        self.path = path
        self.exists = True
        self._remedy = remedy
        self._numbers_last = True
        self._fd: int | None = None
        self._lock: FileLock | None = None
        # A cancelled task does not wait for its thread: a descriptor or lock that comes after the close is released
        # at once.
        self._guard = threading.Lock()
        self._closed = False

    def open(self) -> bool:
        """Hold the directory open; False where there is none.

        Raises SpoolError when ``path`` is not a directory or may not be read.
        """
        try:
            if not _HAS_DIR_FD:
                os.scandir(self.path).close()
                return True
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            self.exists = False
            return False
        except NotADirectoryError:
            raise SpoolError(f"{_shown(self.path)} is not a directory. {self._remedy}") from None
        except OSError as error:
            raise _unusable("read", self.path, error) from None
        with self._guard:
            if self._closed:
                os.close(fd)
            else:
                self._fd = fd
        return True

    def close(self) -> None:
        """Let go of the directory, and of its lock if that is still held."""
        with self._guard:
            self._closed = True
            if self._lock is not None:
                self._lock.give_back()
                self._lock = None
            if self._fd is not None:
                close(self._fd)
                self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- listing ---------------------------------------------------------------------------------------------------

    def listing(self) -> Listing:
        """The batches by name, without a stat where the directory entry holds the type."""
        names: list[str] = []
        strangers: list[str] = []
        for entry, regular in self._looked_at():
            (names if regular else strangers).append(entry.name)
        return Listing(oldest_first(names), tuple(sorted(strangers)))

    def entries(self, unknown: list[tuple[str, OSError]] | None = None) -> list[Entry]:
        """The batches with their sizes, oldest first. One that vanishes meanwhile is not in it.

        A batch whose size cannot be read counts 0 bytes, and is appended to ``unknown``. Raises SpoolError where no
        size can be read at all.
        """
        found: list[Entry] = []
        failed: list[tuple[str, OSError]] = []
        # One flat loop: at 100,000 batches each call in it costs a tenth of a second.
        make_entry = partial(tuple.__new__, Entry)
        for portion in self._named_like_batches():
            for entry in portion:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as error:
                    if error.errno not in _GONE:
                        failed.append((entry.name, error))
                    continue
                if status.st_mode & _TYPE_BITS == _REGULAR:
                    found.append(make_entry((entry.name, status.st_size)))
        if failed:
            if not found:
                raise _unusable("list", self.path, failed[0][1])
            found += [Entry(name, 0) for name, _ in failed]
            if unknown is not None:
                unknown += failed
        return oldest_first(found, itemgetter(0))

    def has_batches(self) -> bool:
        """Whether there is any batch at all; stops at the first."""
        return any(regular for _, regular in self._looked_at())

    def _looked_at(self) -> Iterator[tuple[os.DirEntry[str], bool]]:
        """Each entry with a batch's name, and whether it is a regular file."""
        for entry in chain.from_iterable(self._named_like_batches()):
            try:
                regular = entry.is_file(follow_symlinks=False)
            except OSError as error:
                if error.errno in _GONE:
                    continue
                regular = (
                    True  # whoever opens it learns what is wrong with it, and the others are not held up
                )
            yield entry, regular

    def _named_like_batches(self) -> Iterator[list[os.DirEntry[str]]]:
        try:
            # The descriptor's own offset would be shared between listings; a duplicate by path "." is not.
            place = (
                os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._fd) if self._fd is not None else None
            )
            try:
                with os.scandir(self.path if place is None else place) as found:
                    for looked_at in count(0, _PORTION):
                        if looked_at % _YIELD_EVERY == 0:
                            time.sleep(0)
                        if not (portion := list(islice(found, _PORTION))):
                            break
                        yield [entry for entry in portion if match_batch_name(entry.name)]
            finally:
                if place is not None:
                    close(place)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return  # the directory itself was deleted: then nothing is in it
            raise _unusable("list", self.path, error) from None

    # -- one batch -------------------------------------------------------------------------------------------------

    def open_batch(self, name: str) -> tuple[int, Fingerprint]:
        """A descriptor to read the batch from, and its fingerprint. The caller closes the descriptor.

        Raises Vanished, NotABatch, or OSError when it cannot be read.
        """
        where, dir_fd = self._where(name)
        try:
            fd = os.open(where, _OPEN_FLAGS, dir_fd=dir_fd)
        except OSError as error:
            if error.errno in _GONE:
                raise Vanished(name) from None
            # Each system refuses links and sockets with other errors.
            if (mode := self._mode_of(name)) is not None and not stat.S_ISREG(mode):
                raise NotABatch(_kind(mode)) from None
            raise
        try:
            status = os.fstat(fd)
        except BaseException:
            close(fd)
            raise
        if status.st_mode & _TYPE_BITS != _REGULAR:
            close(fd)
            raise NotABatch(_kind(status.st_mode))
        return fd, Fingerprint.of(status)

    def delete(self, name: str, sent: Fingerprint | None) -> Removal:
        """Delete the batch if it still is the file with fingerprint ``sent``; with None, whatever regular file it is.

        Raises OSError when the file system refuses.
        """
        where, dir_fd = self._where(name)
        try:
            status = os.stat(where, dir_fd=dir_fd, follow_symlinks=False)
            if status.st_mode & _TYPE_BITS != _REGULAR:
                return Removal.CHANGED
            if sent is not None:
                named = Fingerprint.of(status)
                if named != sent and not self._is_still(name, named, sent):
                    return Removal.CHANGED
            os.unlink(where, dir_fd=dir_fd)
        except OSError as error:
            if error.errno in _GONE:
                return Removal.GONE
            raise
        return Removal.DELETED

    def is_same(self, name: str, opened: Fingerprint, sent: Fingerprint) -> bool:
        """Whether the file that was just ``opened`` under ``name`` is the one with fingerprint ``sent``.

        Some network and union file systems have unstable inode numbers: there size and mtime decide.
        """
        return opened == sent or (opened[2:] == sent[2:] and not self._do_numbers_last(name))

    def _is_still(self, name: str, named: Fingerprint, sent: Fingerprint) -> bool:
        """As :meth:`is_same`, for the file that stands there now, whose name has the fingerprint ``named``.

        ``sent`` came from a descriptor. A file system may say other numbers by name, or a rounded mtime.
        """
        if not self._numbers_last and named[2:] == sent[2:]:
            return True
        try:
            fd, opened = self.open_batch(name)
        except Vanished:
            return True  # its delete finds that out
        except (NotABatch, OSError):
            return False
        close(fd)
        return self.is_same(name, opened, sent)

    def _do_numbers_last(self, name: str) -> bool:
        """Whether a descriptor and the name of one file have the same numbers at once; asked until they have not."""
        if self._numbers_last:
            # Twice: once, the file may have been replaced in between.
            self._numbers_last = self._do_numbers_agree(name) or self._do_numbers_agree(name)
        return self._numbers_last

    def _do_numbers_agree(self, name: str) -> bool:
        where, dir_fd = self._where(name)
        try:
            fd, opened = self.open_batch(name)
            close(fd)
            named = Fingerprint.of(os.stat(where, dir_fd=dir_fd, follow_symlinks=False))
        except (Vanished, NotABatch, OSError):
            return True
        return opened[:2] == named[:2] or opened[2:] != named[2:]

    def kind_of(self, name: str) -> str:
        """The kind of the entry ``name``, in words."""
        mode = self._mode_of(name)
        return "gone" if mode is None else _kind(mode)

    def _mode_of(self, name: str) -> int | None:
        where, dir_fd = self._where(name)
        try:
            return os.stat(where, dir_fd=dir_fd, follow_symlinks=False).st_mode
        except OSError:
            return None

    def size_of(self, name: str) -> int:
        """The batch's size in bytes, 0 when it has vanished."""
        where, dir_fd = self._where(name)
        try:
            return os.stat(where, dir_fd=dir_fd, follow_symlinks=False).st_size
        except OSError:
            return 0

    def path_of(self, name: str) -> Path:
        """The batch's absolute path, for messages."""
        return self.path / name

    def _where(self, name: str) -> tuple[str, int | None]:
        fd = self._fd  # once: without it a bare name would speak of the working directory
        return (name, fd) if fd is not None else (os.path.join(self.path, name), None)

    # -- the directory as a whole ------------------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Raise SpoolError (exit code 1) when batches could not be deleted, before anything is sent."""
        where, dir_fd = self._where(".")
        if not os.access(where, os.W_OK | os.X_OK, dir_fd=dir_fd):
            raise SpoolError(
                f"No write permission on {_shown(self.path)}: batches could not be deleted. "
                "Make the directory writable and run this again.",
                exit_code=EXIT_ATTENTION,
            )

    def lock(self) -> str:
        """Take the spool's lock until :meth:`unlock`; returns a warning for a person, or an empty string.

        Raises SpoolBusyError when another process holds it.
        """
        lock, warning = take_lock(self.path)
        with self._guard:
            if lock is not None and self._closed:
                lock.give_back()
            else:
                self._lock = lock
        return warning

    def unlock(self) -> None:
        """Give the lock back, leaving nothing behind."""
        with self._guard:
            lock, self._lock = self._lock, None
        if lock is not None:
            lock.give_back()


def close(fd: int) -> None:
    """Close a descriptor that was read from. A network file system's late error is no reason to stop."""
    try:  # noqa: SIM105  # once a batch, and suppress() takes as long as the call itself
        os.close(fd)
    except OSError:
        pass


def _unusable(what: str, path: Path, error: OSError) -> CirronSpoolError:
    advice = "Check its permissions" if error.errno in _WRONG_PATH else "Check its file system"
    return resource_error(error) or SpoolError(
        f"Cannot {what} {_shown(path)}: {reason(error)}. {advice}, and run this again.",
        exit_code=EXIT_USAGE if error.errno in _WRONG_PATH else EXIT_ATTENTION,
    )


def _kind(mode: int) -> str:
    return next(
        (words for test, words in _KINDS if test(mode)), "a device" if not stat.S_ISREG(mode) else "a file"
    )


def _shown(path: Path) -> str:
    return printable(str(path))
