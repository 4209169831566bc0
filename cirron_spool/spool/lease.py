"""The lease on a spool: a record that its owner renews, and that another process takes over after its expiry.

A lease excludes other machines on file systems whose locks exclude nobody. Records form a chain that starts at
``.cirron-spool.owner``. A record has at most one successor, whose name has the key of the record. The last record of
the chain names the owner. All ages are measured with the clock of the file system, not with the clocks of the
machines.
"""

from __future__ import annotations

import errno
import threading
import time
from contextlib import suppress

from cirron_spool.spool.owner import Owner, this_process
from cirron_spool.spool.record_files import GONE_FROM_SERVER, Record, RecordFiles

# Hidden, and matched by no glob of the SDK (``*.json*``).
RECORD_NAME = ".cirron-spool.owner"

# Age at which a record can be taken over.
LEASE_S = 60.0
# The owner trusts its record for less: clocks of machine and file server may run at different rates.
TRUSTED_S = 45.0
# Time between two renewals, also after a failed one.
RENEW_S = 15.0

# An attempt fails if another process releases or takes over a record at the same time.
_MOST_TRIES = 20


# An unknown owner that has already ended.
_NOBODY = Owner("")


class OwnedError(Exception):
    """Another process owns the spool. The lease of ``owner`` expires in ``left_s`` seconds without a renewal."""

    def __init__(self, owner: Owner, left_s: float) -> None:
        super().__init__(str(owner))
        self.owner = owner
        self.left_s = left_s


def clock() -> float:
    """A monotonic clock in seconds that also counts suspensions of the machine."""
    return time.clock_gettime(_CLOCK) if _CLOCK is not None else time.monotonic()


# Linux stops CLOCK_MONOTONIC in a suspension, macOS the clock behind time.monotonic().
_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


class Lease:
    """The lease of this process on the spool in ``directory``. Thread-safe.

    Each method that works on the disk raises OSError, and OwnedError when another process owns the spool.
    """

    def __init__(self, directory: str) -> None:
        self._files = RecordFiles(directory)
        self._guard = threading.Lock()
        self._owner: Owner | None = None
        self._name = RECORD_NAME
        self._renewed = self._tried = clock()
        self._closed = False

    @property
    def is_trusted(self) -> bool:
        """Whether no other process can have taken the lease over."""
        return self._owner is not None and clock() - self._renewed < TRUSTED_S

    @property
    def is_acquired(self) -> bool:
        """Whether the lease was ever acquired."""
        return self._owner is not None

    @property
    def is_due(self) -> bool:
        """Whether the lease must be renewed before further work. Reads only the clock."""
        now = clock()
        return now - self._tried >= RENEW_S or (self._owner is not None and now - self._renewed >= TRUSTED_S)

    def acquire(self) -> None:
        """Acquire the lease."""
        with self._guard:
            self._acquire()

    def renew(self) -> None:
        """Renew the lease. Acquire it again if it has expired, or its record has vanished."""
        with self._guard:
            if self._closed:
                return
            began = self._tried = clock()
            if self._owner is not None and self.is_trusted and self._renew_record(self._owner):
                self._renewed = began
                return
            try:
                self._acquire()
            except OSError as error:
                if self._owner is None or error.errno not in GONE_FROM_SERVER:
                    raise
                # The directory was deleted, so nobody else can own it.
                self._renewed = began

    def release(self) -> None:
        """Remove the record, unless another process has taken it over."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            with suppress(OSError, OwnedError):
                if self._owner is not None and not self.is_trusted:
                    self._acquire()  # renewed, so that nobody takes it over during the removal
                record = self._own_record(self._owner) if self._owner is not None else None
                if record is not None:
                    self._files.remove(self._name)
                    self._remove_leftovers(record.renewed_ns)
            self._files.close()

    # -- the chain of records ------------------------------------------------------------------------------------------

    def _acquire(self) -> None:
        # After the expiry, only the old record proves that no other owner came and went.
        left = self._owner if self._owner is not None and not self.is_trusted else None
        began = self._tried = clock()
        owner = this_process()
        candidate = f"{RECORD_NAME}.{owner.key}"
        self._files.create(candidate, owner.to_json())
        try:
            self._name = self._install(candidate, owner, left)
        finally:
            self._files.remove(candidate)
        self._owner, self._renewed = owner, began

    def _install(self, candidate: str, owner: Owner, left: Owner | None) -> str:
        """Append the record ``candidate`` to the chain, after ``left`` if given. Returns its new name."""
        content = owner.to_json()
        for _ in range(_MOST_TRIES):
            if left is None and self._files.link(candidate, RECORD_NAME, content):
                return RECORD_NAME
            last = _last_of(self._files)
            if last is None:
                if left is not None:
                    raise OwnedError(_NOBODY, 0.0)
                continue
            name, record = last
            if left is not None and record.owner.key != left.key:
                raise OwnedError(record.owner, 0.0)
            self._check_over(record, self._files.time_of(candidate), name)
            successor = _successor(record.owner)
            if not self._files.link(candidate, successor, content):
                continue
            # If the chain moved on since the read, the new successor is not part of it.
            now_last = _last_of(self._files)
            if now_last is not None and now_last[1].owner.key == owner.key:
                return self._move_up(successor, name)
            self._files.remove(successor)
        raise OSError(errno.EBUSY, "its owner record changes constantly")

    def _move_up(self, name: str, former: str) -> str:
        """Rename the last record to the first one, which removes the older ones. Returns its new name."""
        try:
            self._files.rename(name, RECORD_NAME)
        except OSError:  # the first record belongs to another user in a sticky directory
            return name
        if former != RECORD_NAME:
            self._files.remove(former)
        return RECORD_NAME

    def _check_over(self, record: Record, now_ns: int, name: str) -> None:
        """Raise OwnedError if ``record`` cannot be taken over yet."""
        if self._owner is not None and record.owner.key == self._owner.key:
            return  # this expired lease
        if record.owner.has_ended():
            return
        age_s = (now_ns - record.renewed_ns) / 1e9
        if age_s < -LEASE_S:
            # The clock of the file system was set back. The record gets the present time.
            try:
                self._files.renew(name)
            except OSError:
                return
            age_s = 0.0
        if age_s < LEASE_S:
            raise OwnedError(record.owner, LEASE_S - max(0.0, age_s))

    def _renew_record(self, owner: Owner) -> bool:
        """Renew the record if it still belongs to ``owner``."""
        if self._own_record(owner) is None:
            return False
        self._files.renew(self._name)
        return True

    def _own_record(self, owner: Owner) -> Record | None:
        record = self._files.read(self._name)
        return record if record is not None and record.owner.key == owner.key else None

    def _remove_leftovers(self, now_ns: int) -> None:
        """Remove records of killed processes that are not in the chain."""
        for name in self._files.names(f"{RECORD_NAME}."):
            record = self._files.read(name)
            if record is None:
                continue
            if record.owner.has_ended() or now_ns - record.renewed_ns > LEASE_S * 1e9:
                self._files.remove(name)


def present_owner(directory: str, now_ns: int) -> Owner | None:
    """The owner with a valid lease at ``now_ns`` on the spool in ``directory``, or None. Changes nothing.

    Raises OSError.
    """
    files = RecordFiles(directory)
    try:
        last = _last_of(files)
    finally:
        files.close()
    if last is None:
        return None
    owner, renewed_ns = last[1]
    is_over = owner.has_ended() or abs(now_ns - renewed_ns) >= LEASE_S * 1e9
    return None if is_over else owner


def _last_of(files: RecordFiles) -> tuple[str, Record] | None:
    """The name and the content of the last record in the chain; None without a chain."""
    name = RECORD_NAME
    record = files.read(name)
    if record is None:
        return None
    for _ in range(_MOST_TRIES):
        further = _successor(record.owner)
        following = files.read(further)
        if following is None:
            break
        name, record = further, following
    return name, record


def _successor(owner: Owner) -> str:
    """The name of the successor of ``owner``'s record."""
    return f"{RECORD_NAME}.{owner.key}.next"
