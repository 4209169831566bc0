"""The spool directory: list it, open and delete its batches, hold the claim to it.

The directory is opened once. Later calls use the same directory even if its path is renamed. All calls block.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cirron_spool.errors import EXIT_ATTENTION, SpoolError
from cirron_spool.spool.file_identity import (
    GONE,
    REGULAR,
    TYPE_BITS,
    Fingerprint,
    NotABatch,
    Removal,
    Vanished,
    close,
    kind_of_mode,
)
from cirron_spool.spool.listing import (
    Entry,
    Listing,
    has_batches,
    list_names,
    list_sizes,
    unusable,
)
from cirron_spool.text import printable

if TYPE_CHECKING:
    from cirron_spool.spool.claim import Claim

# Refuse a symbolic link, do not block on a FIFO, acquire no terminal. Windows has none of these flags.
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_HAS_DIR_FD = {os.open, os.stat, os.unlink} <= os.supports_dir_fd


class SpoolDirectory:
    """A spool directory. A context manager that closes the directory. ``path`` is absolute, for messages.

    ``exists`` is False after :meth:`open` found no directory. ``remedy`` is the end of the error for another kind of
    file.
    """

    def __init__(self, path: Path, *, remedy: str = "Pass --dir the spool directory.") -> None:
        self.path = path
        self.exists = True
        self._remedy = remedy
        self._has_stable_inodes = True
        self._fd: int | None = None
        self._claim: Claim | None = None
        # A cancelled task does not wait for its thread. A descriptor or claim that comes after the close is released.
        self._guard = threading.Lock()
        self._closed = False

    def open(self) -> bool:
        """Open the directory. False if it does not exist.

        Raises SpoolError when ``path`` is not a directory or cannot be read.
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
            raise SpoolError(f"{printable(str(self.path))} is not a directory. {self._remedy}") from None
        except OSError as error:
            raise unusable("read", self.path, error) from None
        with self._guard:
            if self._closed:
                os.close(fd)
            else:
                self._fd = fd
        self.exists = True
        return True

    def reopen(self) -> bool:
        """Open the directory that now has the path, and release the old one. True if it was replaced.

        If no directory has the path, the old one stays open. Raises SpoolError.
        """
        if self.exists and (self._fd is None or not self._is_replaced(self._fd)):
            return False
        self.unlock()
        with self._guard:
            fd, self._fd = self._fd, None
        if fd is not None:
            close(fd)
        return self.open()

    def _is_replaced(self, fd: int) -> bool:
        """Whether the path names another directory than ``fd``."""
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(fd))
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ESTALE:  # removed on a network file system
                return True
            raise unusable("read", self.path, error) from None

    def close(self) -> None:
        """Close the directory, and release its claim."""
        with self._guard:
            self._closed = True
            if self._claim is not None:
                self._claim.release()
                self._claim = None
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
        """List the batches by name, without a stat if the directory entry has the type. Raises SpoolError."""
        return list_names(self.path, self._fd)

    def entries(self, unknown: list[tuple[str, OSError]] | None = None) -> list[Entry]:
        """The batches with their sizes, oldest first; see :func:`~cirron_spool.spool.listing.list_sizes`."""
        return list_sizes(self.path, self._fd, unknown)

    def has_batches(self) -> bool:
        """Whether there is a batch. Stops at the first. Raises SpoolError."""
        return has_batches(self.path, self._fd)

    # -- one batch -------------------------------------------------------------------------------------------------

    def open_batch(self, name: str) -> tuple[int, Fingerprint]:
        """Open the batch. Returns a descriptor, which the caller closes, and the fingerprint.

        Raises Vanished, NotABatch, or OSError when it cannot be read.
        """
        where, dir_fd = self._where(name)
        try:
            fd = os.open(where, _OPEN_FLAGS, dir_fd=dir_fd)
        except OSError as error:
            if error.errno in GONE:
                raise Vanished(name) from None
            # The errors for links and sockets differ between systems.
            if (mode := self._mode_of(name)) is not None and not stat.S_ISREG(mode):
                raise NotABatch(kind_of_mode(mode)) from None
            raise
        try:
            status = os.fstat(fd)
        except BaseException:
            close(fd)
            raise
        if status.st_mode & TYPE_BITS != REGULAR:
            close(fd)
            raise NotABatch(kind_of_mode(status.st_mode))
        return fd, Fingerprint.of(status)

    def delete(self, name: str, sent: Fingerprint | None) -> Removal:
        """Delete the batch if its fingerprint is still ``sent``. None deletes any regular file.

        Raises OSError when the file system refuses.
        """
        where, dir_fd = self._where(name)
        try:
            status = os.stat(where, dir_fd=dir_fd, follow_symlinks=False)
            if status.st_mode & TYPE_BITS != REGULAR:
                return Removal.CHANGED
            if sent is not None:
                named = Fingerprint.of(status)
                if named != sent and not self._is_unchanged(name, named, sent):
                    return Removal.CHANGED
            os.unlink(where, dir_fd=dir_fd)
        except OSError as error:
            if error.errno in GONE:
                return Removal.GONE
            raise
        return Removal.DELETED

    def is_same(self, name: str, opened: Fingerprint, sent: Fingerprint) -> bool:
        """Whether the file that was ``opened`` under ``name`` is the one with fingerprint ``sent``.

        Some network and union file systems have unstable inode numbers. There, size and mtime decide.
        """
        return opened == sent or (opened[2:] == sent[2:] and not self._are_inodes_stable(name))

    def _is_unchanged(self, name: str, named: Fingerprint, sent: Fingerprint) -> bool:
        """As :meth:`is_same`, for the present file. A stat by name gave the fingerprint ``named``.

        ``sent`` came from a descriptor. A stat by name may give other inode numbers or a rounded mtime.
        """
        if not self._has_stable_inodes and named[2:] == sent[2:]:
            return True
        try:
            fd, opened = self.open_batch(name)
        except Vanished:
            return True  # the delete then reports it
        except (NotABatch, OSError):
            return False
        close(fd)
        return self.is_same(name, opened, sent)

    def _are_inodes_stable(self, name: str) -> bool:
        """Whether a stat by descriptor and one by name give the same inode number. Checked until they differ."""
        if self._has_stable_inodes:
            # Twice, since the file may be replaced between the two calls.
            self._has_stable_inodes = self._do_inodes_agree(name) or self._do_inodes_agree(name)
        return self._has_stable_inodes

    def _do_inodes_agree(self, name: str) -> bool:
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
        return "gone" if mode is None else kind_of_mode(mode)

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
        fd = self._fd  # read once: a name without a descriptor means the working directory
        return (name, fd) if fd is not None else (os.path.join(self.path, name), None)

    # -- the directory as a whole ------------------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Raise SpoolError (exit code 1) if batches cannot be deleted. Called before the first upload."""
        where, dir_fd = self._where(".")
        if not os.access(where, os.W_OK | os.X_OK, dir_fd=dir_fd):
            raise SpoolError(
                f"No write permission on {printable(str(self.path))}: batches could not be deleted. "
                "Make the directory writable and run this again.",
                exit_code=EXIT_ATTENTION,
            )

    def lock(self) -> str:
        """Claim the spool until :meth:`unlock`. Returns a warning or an empty string.

        Raises SpoolBusyError when another process has claimed it, ResourceError when no further file can be opened.
        """
        from cirron_spool.spool.claim import Claim  # needed by a flush, not by inspect

        claim, warning = Claim.acquire(self.path)
        with self._guard:
            if self._closed:
                claim.release()
            else:
                self._claim = claim
        return warning

    @property
    def is_claim_due(self) -> bool:
        """Whether :meth:`ensure_claim` has something to do. Never blocks."""
        claim = self._claim
        return claim is not None and claim.is_due

    def ensure_claim(self) -> None:
        """Ensure the claim of :meth:`lock`, if there is one, before an operation that only the owner may do.

        Raises SpoolBusyError when another process took the spool over, or may have done so.
        """
        claim = self._claim
        if claim is not None:
            claim.ensure()

    def unlock(self) -> None:
        """Release the claim, and remove its files."""
        with self._guard:
            claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()
