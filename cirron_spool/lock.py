"""The lock on a spool: one flush or ``clear`` works on it at a time.

It is the kernel's (flock), so it ends with the process that holds it, however that ends, and is never stale.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cirron_spool.errors import SpoolBusyError, SpoolError
from cirron_spool.exits import EXIT_LOOK
from cirron_spool.naming import printable, reason

if TYPE_CHECKING:
    import filelock

# Matches neither the SDK's ``*.json*`` nor a batch's name; hidden, because it is nobody's data.
LOCK_NAME = ".cirron-spool.lock"

# Locks that this file system cannot give; what the lock prevents is only work done twice, never a loss.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK})
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class SpoolLock:
    """A lock that this process holds."""

    def __init__(self, lock: filelock.BaseFileLock) -> None:
        self._lock = lock
        self._process = os.getpid()

    def give_back(self) -> None:
        """Let others have it, leaving nothing behind."""
        if os.getpid() != self._process:
            return  # a fork of the process that holds it: not ours to give
        # Removed while it is held: a waiter that has it open finds it unlinked and takes the new one.
        with suppress(OSError):
            os.unlink(self._lock.lock_file)
        with suppress(OSError):  # the kernel gives it back with the process at the latest
            self._lock.release()


def take_lock(directory: Path) -> tuple[SpoolLock | None, str]:
    """The lock on the spool in ``directory``; or None, and a warning for a person, where there can be none.

    Raises SpoolBusyError when another process holds it, SpoolError when the lock file cannot be made.
    """
    import filelock  # here, because inspect does not need it and starts faster without

    shown = printable(str(directory))
    path = os.path.join(os.path.realpath(directory), LOCK_NAME)
    lock = filelock.FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise SpoolBusyError(
            f"Another cirron-spool is working on {shown}. Wait for it to end, then run this again."
        ) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None, f"{shown} is on a file system without locks; do not flush it twice at once."
        if error.errno in _NO_SPACE:
            # A flush is what frees the disk: refusing to would keep it full.
            return None, f"No space for a lock file in {shown}; do not flush it twice at once."
        raise SpoolError(
            f"Cannot lock {shown}: {reason(error)}. Check the directory's permissions.", exit_code=EXIT_LOOK
        ) from None
    return SpoolLock(lock), ""
