"""The lease on a spool: an owner record that its owner renews, and that another takes over once its time is past.

It excludes two machines whose lock calls succeed for both. Records form a chain: ``.cirron-spool.owner`` is the first,
and a record has at most one successor, which is named after its key. The last of the chain is the owner. All ages are
by the clock of the file system, so the clocks of the machines do not count.
"""

from __future__ import annotations

import errno
import threading
import time
from contextlib import suppress

from cirron_spool.spool.owner import Owner, this_process
from cirron_spool.spool.record_files import GONE_FROM_SERVER, Record, RecordFiles

# Matches neither the SDK's ``*.json*`` nor a batch's name; hidden, because it holds no data.
RECORD_NAME = ".cirron-spool.owner"

# A record that was not renewed for so long is taken over.
LEASE_S = 60.0
# Its owner trusts it for so long only: the clocks of a machine and of a file server may run at different rates.
TRUSTED_S = 45.0
# The owner renews it so often, and tries so often again where that failed.
RENEW_S = 15.0

# A try fails where another process gave its record back, or took one over, in between.
_MOST_TRIES = 20


# The owner that has gone already.
_NOBODY = Owner("")


class OwnedError(Exception):
    """Somebody else owns the spool: ``owner``, whose lease ends in ``left_s`` seconds if it is not renewed."""

    def __init__(self, owner: Owner, left_s: float) -> None:
        super().__init__(str(owner))
        self.owner = owner
        self.left_s = left_s


def clock() -> float:
    """Seconds that also pass while this machine is suspended."""
    return time.clock_gettime(_CLOCK) if _CLOCK is not None else time.monotonic()


# Linux stops CLOCK_MONOTONIC in a suspension, macOS the clock behind time.monotonic().
_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


class Lease:
    """The lease of this process on the spool in ``directory``, once it is taken. For several threads.

    Each method that works on the disk raises OSError, and OwnedError where another process owns the spool.
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
        """Whether nobody can have taken it over yet."""
        return self._owner is not None and clock() - self._renewed < TRUSTED_S

    @property
    def is_acquired(self) -> bool:
        """Whether it was ever taken."""
        return self._owner is not None

    @property
    def is_due(self) -> bool:
        """Whether it must be renewed before any further work. Costs no system call but the clock's."""
        now = clock()
        return now - self._tried >= RENEW_S or (self._owner is not None and now - self._renewed >= TRUSTED_S)

    def acquire(self) -> None:
        """Take the lease."""
        with self._guard:
            self._acquire()

    def renew(self) -> None:
        """Renew the lease; take it again where its time is past, or its record is gone."""
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
                # The directory is gone: nobody else can own it.
                self._renewed = began

    def release(self) -> None:
        """Remove the record, unless another process has taken it over."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            with suppress(OSError, OwnedError):
                if self._owner is not None and not self.is_trusted:
                    self._acquire()  # nobody takes it over while it is removed
                record = self._own_record(self._owner) if self._owner is not None else None
                if record is not None:
                    self._files.remove(self._name)
                    self._remove_leftovers(record.renewed_ns)
            self._files.close()

    # -- the chain of records ------------------------------------------------------------------------------------------

    def _acquire(self) -> None:
        # After its time only the record that it left shows that nobody came, did the work, and went.
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
        """Make the record ``candidate`` the last of the chain, behind ``left`` if given; the name that it has there."""
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
            # A record that was read late has left the chain: its successor is none, then.
            now_last = _last_of(self._files)
            if now_last is not None and now_last[1].owner.key == owner.key:
                return self._move_up(successor, name)
            self._files.remove(successor)
        raise OSError(errno.EBUSY, "its owner record changes all the time")

    def _move_up(self, name: str, former: str) -> str:
        """Put the last record in the place of the first, and so end the chain before it; the name that it has then."""
        try:
            self._files.rename(name, RECORD_NAME)
        except OSError:  # the first one is another user's in a sticky directory
            return name
        if former != RECORD_NAME:
            self._files.remove(former)
        return RECORD_NAME

    def _check_over(self, record: Record, now_ns: int, name: str) -> None:
        """Raise OwnedError unless ``record`` may be taken over."""
        if self._owner is not None and record.owner.key == self._owner.key:
            return  # this lease, whose time is past
        if record.owner.has_ended():
            return
        age_s = (now_ns - record.renewed_ns) / 1e9
        if age_s < -LEASE_S:
            # The file system's clock was set back. Its owner, or else this process, brings the record to the present.
            try:
                self._files.renew(name)
            except OSError:
                return
            age_s = 0.0
        if age_s < LEASE_S:
            raise OwnedError(record.owner, LEASE_S - max(0.0, age_s))

    def _renew_record(self, owner: Owner) -> bool:
        """Renew the record if it still is ``owner``'s."""
        if self._own_record(owner) is None:
            return False
        self._files.renew(self._name)
        return True

    def _own_record(self, owner: Owner) -> Record | None:
        record = self._files.read(self._name)
        return record if record is not None and record.owner.key == owner.key else None

    def _remove_leftovers(self, now_ns: int) -> None:
        """Remove the records that killed processes left beside the chain."""
        for name in self._files.names(f"{RECORD_NAME}."):
            record = self._files.read(name)
            if record is None:
                continue
            if record.owner.has_ended() or now_ns - record.renewed_ns > LEASE_S * 1e9:
                self._files.remove(name)


def present_owner(directory: str, now_ns: int) -> Owner | None:
    """The owner of the spool in ``directory`` while its lease lasts at ``now_ns``, or None. Changes nothing.

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
    """The name and the record at the end of the chain; None without a chain."""
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
    """The name of the record that takes over from ``owner``."""
    return f"{RECORD_NAME}.{owner.key}.next"
