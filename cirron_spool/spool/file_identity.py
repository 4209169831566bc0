"""The identity of a batch's file: its fingerprint, its kind, and the result of its delete.

A file that replaced a sent file has another fingerprint.
"""

from __future__ import annotations

import errno
import os
import stat
from enum import Enum, auto
from typing import NamedTuple, Self

# The errors for a deleted file. A network file system reports ESTALE.
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

    Compare fingerprints with :meth:`SpoolDirectory.is_same`: some file systems have unstable inode numbers.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The fingerprint in a stat result."""
        # tuple.__new__ is the fastest constructor, and each batch needs two fingerprints.
        return tuple.__new__(cls, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


class Vanished(Exception):
    """The batch has vanished: the SDK evicted it, or another flush delivered it. No failure."""


class NotABatch(Exception):
    """The entry with a batch's name is not a regular file, and stays."""


class Removal(Enum):
    """The result of a delete."""

    DELETED = auto()
    GONE = auto()  # it had vanished before, which counts as deleted
    CHANGED = auto()  # another file has the name of the sent one, and stays


def kind_of_mode(mode: int) -> str:
    """The kind of an entry with this ``st_mode``, as text."""
    return next(
        (words for test, words in _KINDS if test(mode)), "a device" if not stat.S_ISREG(mode) else "a file"
    )


def close(fd: int) -> None:
    """Close a descriptor after reads. Late errors of network file systems are ignored."""
    try:  # noqa: SIM105  # called for each batch; suppress() takes as long as the call
        os.close(fd)
    except OSError:
        pass
