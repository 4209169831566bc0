"""The claim to a spool: one flush or ``clear`` works on it at a time, on one or several machines.

A claim has two parts. The kernel's lock excludes the processes of this machine, and ends with its process. The lease
excludes other machines, and processes on file systems whose locks exclude nobody.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from cirron_spool.errors import SpoolBusyError, out_of_files
from cirron_spool.spool.lease import LEASE_S, Lease, OwnedError, present_owner
from cirron_spool.spool.lock import LOCK_NAME, FileLock, HeldError, is_held, lock_file
from cirron_spool.spool.owner import Owner
from cirron_spool.text import printable, reason, time_span

_WAIT = "Wait for it to end, then run this again."


class Claim:
    """The claim of this process to the spool in ``directory``; :meth:`acquire` returns it."""

    def __init__(self, directory: Path, lock: FileLock | None, lease: Lease | None) -> None:
        self._shown = printable(str(directory))
        self._lock = lock
        self._lease = lease
        self._process = os.getpid()

    @classmethod
    def acquire(cls, directory: Path) -> tuple[Claim, str]:
        """Acquire the claim. Returns a warning, too, if one part is missing; else an empty string.

        Raises SpoolBusyError when another process has the claim, ResourceError when no further file can be opened.
        Without a part, work may be done twice, but nothing is lost.
        """
        shown = printable(str(directory))
        place = os.path.realpath(directory)
        lock, trouble = None, None
        try:
            lock = lock_file(os.path.join(place, LOCK_NAME))
        except HeldError:
            raise SpoolBusyError(_busy(shown, _owner_of(place), _WAIT)) from None
        except OSError as error:
            trouble = error
        claim = cls(directory, lock, None)
        try:
            claim._lease = Lease(place)
            claim._lease.acquire()
        except OwnedError as error:
            claim.release(remove=False)  # the lock excludes nobody here, and its file belongs to the owner
            wait = f"Wait for it to end, or {time_span(LEASE_S)} if it was killed, then run this again."
            raise SpoolBusyError(_busy(shown, error.owner, wait)) from None
        except OSError as error:
            # Too few descriptors are no property of the file system.
            if lacking := out_of_files(trouble) or out_of_files(error):
                claim.release()
                raise lacking from None
            if trouble is not None:
                return (
                    claim,
                    f"{shown} cannot be locked: {reason(trouble)}. Do not run two flushes on it at the same time.",
                )
            return (
                claim,
                f"{shown} has no owner record: {reason(error)}. Do not flush it from two machines at the same time.",
            )
        except BaseException:
            claim.release()
            raise
        return claim, ""

    @property
    def is_due(self) -> bool:
        """Whether :meth:`ensure` has something to do."""
        return self._lease is not None and self._lease.is_due

    def ensure(self) -> None:
        """Renew the lease if that is due. Call this before each operation that only the owner may do.

        Raises SpoolBusyError when another process took the spool over, or may have done so.
        """
        lease = self._lease
        if lease is None or not lease.is_due:
            return
        try:
            lease.renew()
        except OwnedError as error:
            raise SpoolBusyError(
                f"{self._shown} was taken over by {error.owner if error.owner.process else 'another cirron-spool'}: "
                "this process had not renewed its lease. Nothing is lost. Run this again after the end of that process."
            ) from None
        except OSError as error:
            if lease.is_acquired and not lease.is_trusted:
                raise SpoolBusyError(
                    f"The lease on {self._shown} cannot be renewed: {reason(error)}. Another machine may work on it. "
                    "Nothing is lost. Run this again when the file system works."
                ) from None

    def release(self, *, remove: bool = True) -> None:
        """Release the claim and remove its files. Without ``remove``, the file of the lock stays."""
        if os.getpid() != self._process:
            return  # a fork must not release the claim of its parent
        if self._lease is not None:
            self._lease.release()
        if self._lock is not None:
            self._lock.release(remove=remove)


def is_claimed(directory: Path) -> bool:
    """Whether a process works on the spool in ``directory``. Changes nothing.

    The age of a lease is measured with the clock of this machine: the clock of the file system needs a write.
    """
    return is_held(directory) or _owner_of(os.path.realpath(directory)) is not None


def _owner_of(place: str) -> Owner | None:
    try:
        return present_owner(place, time.time_ns())
    except OSError:
        return None


def _busy(shown: str, owner: Owner | None, wait: str) -> str:
    named = f" It is {owner}." if owner is not None and owner.process else ""
    return f"Another cirron-spool is working on {shown}.{named} {wait}"
