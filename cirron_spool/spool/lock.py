"""The kernel's lock on a file (flock): one process of this machine holds it at a time.

It always ends with its process, so a left lock file is never stale.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

# Hidden, and matched by no glob of the SDK (``*.json*``).
LOCK_NAME = ".cirron-spool.lock"

# Errors for a lock that another process holds. Any other error means a file system without locks.
_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
# An attempt fails if another process releases its lock at the same time.
_MOST_TRIES = 10
# Delay of a second attempt: is_held() in another process takes the lock for microseconds.
_RETRY_S = 0.01


class HeldError(Exception):
    """Another process holds the lock."""


class FileLock:
    """A lock that this process holds. The function ``release`` releases it."""

    def __init__(self, release: Callable[[bool], None]) -> None:
        self._release = release
        self._process = os.getpid()

    def release(self, *, remove: bool = True) -> None:
        """Release the lock and remove its file. Without ``remove`` the file stays."""
        if os.getpid() != self._process:
            return  # a fork must not release the lock of its parent
        with suppress(OSError):  # the kernel releases it at the end of the process
            self._release(remove)


def is_held(directory: Path) -> bool:
    """Whether a process holds the lock on the spool in ``directory``. Creates nothing."""
    path = os.path.join(os.path.realpath(directory), LOCK_NAME)
    if not os.path.lexists(path):
        return False
    try:
        return _is_held(path)
    except OSError:  # a file system without locks
        return False


def lock_file(path: str) -> FileLock:
    """Acquire the lock with the file ``path``, without a wait. The file need not exist.

    Raises HeldError when another process holds the lock, OSError when no lock is possible.
    """
    return FileLock(_acquire(path))


if sys.platform == "win32":

    def _acquire(path: str) -> Callable[[bool], None]:
        import filelock  # needed only here

        lock = filelock.FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise HeldError from None
        return lambda _: lock.release()

    def _is_held(path: str) -> bool:
        try:
            _acquire(path)(True)
        except HeldError:
            return True
        return False

else:
    # filelock fails on a file that this user cannot write, and on another user's file in a sticky directory.

    # Follow no link, do not block on a FIFO, acquire no terminal.
    _FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

    def _acquire(path: str) -> Callable[[bool], None]:
        import fcntl  # needed by a flush, not by inspect

        tries = _MOST_TRIES
        looked = False
        while True:
            fd = _open(path)
            tries -= 1
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # No link: the holder removed the file between open and lock. Some file systems count no links.
                if os.fstat(fd).st_nlink or not tries:
                    return partial(_release_file, fd, path)
            except OSError as error:
                os.close(fd)
                if error.errno not in _HELD:
                    raise
                if looked:
                    raise HeldError from None
                looked = True
                time.sleep(_RETRY_S)
                continue
            os.close(fd)

    def _is_held(path: str) -> bool:
        import fcntl

        try:
            fd = _open_existing(path)
        except OSError:
            return _is_locked(os.lstat(path))
        try:
            # Shared, so that two checks do not exclude each other. The close releases it.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in _HELD
        finally:
            os.close(fd)
        return False

    def _release_file(fd: int, path: str, remove: bool) -> None:
        # Removed while locked: another process that has it open sees no link, and opens the new file.
        try:
            # After a rename, the path may be the lock file of another directory.
            if remove and os.fstat(fd).st_nlink and os.path.samestat(os.fstat(fd), os.lstat(path)):
                os.unlink(path)
        finally:
            os.close(fd)

    def _open(path: str) -> int:
        """Open the lock file, or create it."""
        for _ in range(_MOST_TRIES):
            try:
                return _open_existing(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                _remove_unopenable(path, error)
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666)
            except FileExistsError:
                continue
            with suppress(OSError):  # every user who can write to the directory can lock it
                os.fchmod(fd, os.stat(os.path.dirname(path)).st_mode & 0o666)
            return fd
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    def _open_existing(path: str) -> int:
        """Open ``path``, for writing if possible: network file systems need that for a lock."""
        try:
            return os.open(path, os.O_RDWR | _FLAGS)
        except FileNotFoundError:
            raise
        except OSError:
            return os.open(path, os.O_RDONLY | _FLAGS)

    def _remove_unopenable(path: str, error: OSError) -> None:
        """Remove ``path``, which could not be opened, unless a process holds its lock.

        Raises HeldError. Raises ``error`` if the file is not its cause, and OSError if the removal fails.
        """
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if stat.S_ISREG(status.st_mode):
            if not isinstance(error, PermissionError):
                raise error
            if _is_locked(status):
                raise HeldError
        os.unlink(path)

    def _is_locked(status: os.stat_result) -> bool:
        """Whether a process has locked a file that this process cannot open.

        Only Linux reports it, see proc_locks(5).
        """
        file = b"%02x:%02x:%d" % (os.major(status.st_dev), os.minor(status.st_dev), status.st_ino)
        try:
            with open("/proc/locks", "rb") as locks:
                return any(file in line.split() for line in locks)
        except OSError:
            return False
