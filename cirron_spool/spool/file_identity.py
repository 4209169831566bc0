"""The identity of a batch's file: its fingerprint, its kind, and the result of its delete.

A file that took the place of a sent one has another fingerprint.
"""

from __future__ import annotations

import errno
import os
import stat
from enum import Enum, auto
from typing import NamedTuple, Self

# The errors for a file that is gone. A network file system says ESTALE.
GONE = frozenset({errno.ENOENT, errno.ESTALE})
TYPE_BITS = stat.S_IFMT(0xFFFF)
REGULAR = stat.S_IFREG

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)


class Fingerprint(NamedTuple):
    """The identity of a file: device, inode, bytes, mtime in ns.

    Compare two with :meth:`SpoolDirectory.is_same`: inode numbers are not stable on every file system.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The fingerprint in a stat result."""
        # The tuple's own constructor is the fastest: a batch has two of them.
        return tuple.__new__(cls, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


class Vanished(Exception):
    """The batch is not there any more: evicted by the SDK, or delivered by another flush. No failure."""


class NotABatch(Exception):
    """The entry under a batch's name is no regular file; it is left alone."""


class Removal(Enum):
    """The result of a delete."""

    DELETED = auto()
    GONE = auto()  # already gone counts as deleted
    CHANGED = auto()  # another file has the name of the sent one: kept


def kind_of_mode(mode: int) -> str:
    """The kind of an entry with this ``st_mode``, in words."""
    return next(
        (words for test, words in _KINDS if test(mode)), "a device" if not stat.S_ISREG(mode) else "a file"
    )


def close(fd: int) -> None:
    """Close a descriptor that was read from. A network file system's late error is no reason to stop."""
    try:  # noqa: SIM105  # once a batch, and suppress() takes as long as the call itself
        os.close(fd)
    except OSError:
        pass
