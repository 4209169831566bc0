"""The kernel's lock on a file (flock): one process of this machine has it at a time.

It ends with the process that holds it, however that ends. A lock file that was left behind is never stale.
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

# Matches neither the SDK's ``*.json*`` nor a batch's name; hidden, because it holds no data.
LOCK_NAME = ".cirron-spool.lock"

# The errors of a file system for a lock that another process holds. Any other error says that it has no locks.
_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
# Each further try finds that another process has given its lock back in between.
_MOST_TRIES = 10
# A process that only looks holds a lock for microseconds: a second try comes after this many seconds.
_RETRY_S = 0.01


class HeldError(Exception):
    """Somebody else holds the lock."""


class FileLock:
    """A lock that this process holds, and that ``release`` gives back."""

    def __init__(self, release: Callable[[bool], None]) -> None:
        self._release = release
        self._process = os.getpid()

    def release(self, *, remove: bool = True) -> None:
        """Let others have it, leaving nothing behind; the file stays with ``remove`` False: another may hold it too."""
        if os.getpid() != self._process:
            return  # a fork of the process that holds it: not ours to give
        with suppress(OSError):  # the kernel gives it back with the process at the latest
            self._release(remove)


def is_held(directory: Path) -> bool:
    """Whether a process holds the lock on the spool in ``directory``. Creates nothing."""
    path = os.path.join(os.path.realpath(directory), LOCK_NAME)
    if not os.path.lexists(path):
        return False
    try:
        return _is_held(path)
    except OSError:  # there are no locks here
        return False


def lock_file(path: str) -> FileLock:
    """Take the lock whose file is ``path``, without waiting. The file need not exist.

    Raises HeldError when another process holds it, OSError where no lock is possible.
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
    # Not filelock: it refuses a file that this user cannot write, and one of another user in a sticky directory.

    # A link is not followed, a named pipe does not block, a terminal does not become ours.
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
                # Unlinked: its holder gave it back between our open and our lock. Some file systems count no links.
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
            # Shared, so that two that look do not see each other. The close gives it back.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in _HELD
        finally:
            os.close(fd)
        return False

    def _release_file(fd: int, path: str, remove: bool) -> None:
        # Removed while it is held: a waiter that has it open finds it unlinked and takes the new one.
        try:
            # A renamed directory's lock must not remove the lock of the directory that now has its path.
            if remove and os.fstat(fd).st_nlink and os.path.samestat(os.fstat(fd), os.lstat(path)):
                os.unlink(path)
        finally:
            os.close(fd)

    def _open(path: str) -> int:
        """A descriptor of the lock file of any process; of a new one where none can be opened."""
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
            with suppress(OSError):  # whoever may write to the directory may lock it, whatever the umask is
                os.fchmod(fd, os.stat(os.path.dirname(path)).st_mode & 0o666)
            return fd
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    def _open_existing(path: str) -> int:
        """A descriptor of the entry ``path``; writable if it can be, as network file systems want it."""
        try:
            return os.open(path, os.O_RDWR | _FLAGS)
        except FileNotFoundError:
            raise
        except OSError:
            return os.open(path, os.O_RDONLY | _FLAGS)

    def _remove_unopenable(path: str, error: OSError) -> None:
        """Remove the entry ``path`` that could not be opened, unless a process holds its lock.

        Raises HeldError, ``error`` where the file is not the reason, or OSError where it cannot be removed.
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
        """Whether anybody has locked a file that this process cannot open.

        Only Linux reports them, see proc_locks(5).
        """
        file = b"%02x:%02x:%d" % (os.major(status.st_dev), os.minor(status.st_dev), status.st_ino)
        try:
            with open("/proc/locks", "rb") as locks:
                return any(file in line.split() for line in locks)
        except OSError:
            return False
