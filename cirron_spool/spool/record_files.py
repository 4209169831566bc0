"""The files of the owner records in a spool directory. Each call bypasses caches of the file system."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import NamedTuple

from cirron_spool.spool.owner import Owner, owner_of

_FLAGS = sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY")
)
_HAS_DIR_FD = {os.open, os.stat, os.unlink, os.link, os.rename, os.utime} <= os.supports_dir_fd
# NFS reports ESTALE for a file that another machine removed and this one has cached.
GONE_FROM_SERVER = frozenset({errno.ENOENT, errno.ESTALE})
# A record has about 300 bytes.
_LONGEST_RECORD = 4096


class Record(NamedTuple):
    """An owner, and the time of its last renewal by the clock of the file system, in nanoseconds."""

    owner: Owner
    renewed_ns: int


class RecordFiles:
    """The records in ``directory``. It stays open, so a rename does not matter. Raises OSError."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if _HAS_DIR_FD else None

    def close(self) -> None:
        """Close the directory."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                os.close(fd)

    def create(self, name: str, content: bytes) -> None:
        """Create a complete file or none. Raises FileExistsError if the name exists."""
        fd = os.open(self._at(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666, dir_fd=self._fd)
        try:
            try:
                with suppress(
                    OSError, AttributeError
                ):  # every user who can write to the directory can read its owner
                    os.fchmod(fd, os.stat(self._at("."), dir_fd=self._fd).st_mode & 0o666)
                if os.write(fd, content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(fd)
        except BaseException:
            self.remove(name)
            raise

    def link(self, name: str, other: str, content: bytes) -> bool:
        """Link the file ``name`` to ``other``; False if ``other`` exists. Atomic on the server."""
        try:
            os.link(self._at(name), self._at(other), src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except FileExistsError:
            return self._is_linked(name)
        except OSError:
            if self._is_linked(name):
                return True
            try:  # a file system without hard links
                self.create(other, content)
            except FileExistsError:
                return False
        return True

    def read(self, name: str) -> Record | None:
        """Read the record ``name``; None without one. The open bypasses the stat cache of a network file system."""
        try:
            return self._read(name)
        except OSError as error:
            if error.errno in GONE_FROM_SERVER:
                return None
            raise

    def _read(self, name: str) -> Record | None:
        content = b""
        try:
            fd = os.open(self._at(name), os.O_RDONLY | _FLAGS, dir_fd=self._fd)
        except OSError as error:  # another user's file, a link or a socket: only its time is known
            status = None if error.errno in GONE_FROM_SERVER else self._status(name)
            return None if status is None else _record(b"", status)
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode):
                content = os.read(fd, _LONGEST_RECORD)
        finally:
            os.close(fd)
        if not status.st_nlink:  # removed after the open, or a file system without link counts
            named = self._status(name)
            if named is None or not os.path.samestat(named, status):
                return None
        return _record(content, status)

    def time_of(self, name: str) -> int:
        """Set the time of ``name`` to the present by the clock of the file system; returns it in nanoseconds."""
        self.renew(name)
        return os.stat(self._at(name), dir_fd=self._fd).st_mtime_ns

    def renew(self, name: str) -> None:
        """Set the time of ``name`` to the present of the file system. Needs no space on the disk."""
        if os.utime in os.supports_follow_symlinks:  # do not change the target of a link
            os.utime(self._at(name), dir_fd=self._fd, follow_symlinks=False)
        else:
            os.utime(self._at(name))

    def rename(self, name: str, other: str) -> None:
        """Rename the file ``name`` to ``other``."""
        if self._fd is None:
            os.replace(self._at(name), self._at(other))
        else:
            os.rename(name, other, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Remove the file, if that is possible."""
        with suppress(OSError):
            os.unlink(self._at(name), dir_fd=self._fd)

    def names(self, prefix: str) -> list[str]:
        """The names in the directory that begin with ``prefix``."""
        with suppress(OSError):
            found = os.listdir(self._directory if self._fd is None else self._fd)
            return [name for name in found if name.startswith(prefix)]
        return []

    def _is_linked(self, name: str) -> bool:
        """Whether the file has a second link. The answer of the server to a link may have been lost."""
        status = self._status(name)
        return status is not None and status.st_nlink > 1

    def _status(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(self._at(name), dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _at(self, name: str) -> str:
        return name if self._fd is not None else os.path.join(self._directory, name)


def _record(content: bytes, status: os.stat_result) -> Record:
    return Record(owner_of(content, status.st_mtime_ns), status.st_mtime_ns)
