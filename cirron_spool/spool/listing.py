"""The listing of a spool directory: names, names with sizes, or only whether there is a batch.

``path`` names the directory. ``fd`` is its descriptor, or None on systems that list only by path.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain, count, islice
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from cirron_spool.errors import EXIT_ATTENTION, EXIT_USAGE, CirronSpoolError, SpoolError, resource_error
from cirron_spool.spool.file_identity import GONE, REGULAR, TYPE_BITS, close
from cirron_spool.spool.names import match_batch_name, oldest_first
from cirron_spool.text import printable, reason

# Errors of the path or its permissions: exit code 2. Other errors: exit code 1.
_WRONG_PATH = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG})

# Entries that are examined together: few enough for the CPU cache.
_PORTION = 64
# Entries between two yields of the interpreter lock, one to two milliseconds. A yield costs 70 µs.
_YIELD_EVERY = 1024


class Listing(NamedTuple):
    """``names`` of batches, oldest first. ``irregular`` entries have a batch's name, but are no regular files."""

    names: list[str]
    irregular: tuple[str, ...]


class Entry(NamedTuple):
    """A batch in the spool and its size in bytes."""

    name: str
    size: int


def list_names(path: Path, fd: int | None) -> Listing:
    """List the batches by name, without a stat if the directory entry has the type."""
    names: list[str] = []
    irregular: list[str] = []
    for entry, regular in _examined(path, fd):
        (names if regular else irregular).append(entry.name)
    return Listing(oldest_first(names), tuple(sorted(irregular)))


def list_sizes(path: Path, fd: int | None, unknown: list[tuple[str, OSError]] | None = None) -> list[Entry]:
    """List the batches with their sizes, oldest first, without vanished ones.

    A batch with an unreadable size counts 0 bytes, and is appended to ``unknown``. Raises SpoolError if all sizes are
    unreadable.
    """
    found: list[Entry] = []
    failed: list[tuple[str, OSError]] = []
    # A flat loop: with 100,000 batches each call in it costs a tenth of a second.
    make_entry = partial(tuple.__new__, Entry)
    for portion in _batch_entries(path, fd):
        for entry in portion:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                if error.errno not in GONE:
                    failed.append((entry.name, error))
                continue
            if status.st_mode & TYPE_BITS == REGULAR:
                found.append(make_entry((entry.name, status.st_size)))
    if failed:
        if not found:
            raise unusable("list", path, failed[0][1])
        found += [Entry(name, 0) for name, _ in failed]
        if unknown is not None:
            unknown += failed
    return oldest_first(found, itemgetter(0))


def has_batches(path: Path, fd: int | None) -> bool:
    """Whether there is a batch. Stops at the first."""
    return any(regular for _, regular in _examined(path, fd))


def _examined(path: Path, fd: int | None) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """Each entry with a batch's name, and whether it is a regular file."""
    for entry in chain.from_iterable(_batch_entries(path, fd)):
        try:
            regular = entry.is_file(follow_symlinks=False)
        except OSError as error:
            if error.errno in GONE:
                continue
            regular = True  # the open reports the error, without a delay of other batches
        yield entry, regular


def _batch_entries(path: Path, fd: int | None) -> Iterator[list[os.DirEntry[str]]]:
    try:
        # Listings with one descriptor would share its offset, so each opens "." again.
        place = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd) if fd is not None else None
        try:
            with os.scandir(path if place is None else place) as found:
                for examined in count(0, _PORTION):
                    if examined % _YIELD_EVERY == 0:
                        time.sleep(0)
                    if not (portion := list(islice(found, _PORTION))):
                        break
                    yield [entry for entry in portion if match_batch_name(entry.name)]
        finally:
            if place is not None:
                close(place)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return  # the directory itself was deleted
        raise unusable("list", path, error) from None


def unusable(operation: str, path: Path, error: OSError) -> CirronSpoolError:
    """The error for a directory after a failed ``operation`` (read, list)."""
    advice = "Check its permissions" if error.errno in _WRONG_PATH else "Check its file system"
    return resource_error(error) or SpoolError(
        f"Cannot {operation} {printable(str(path))}: {reason(error)}. {advice}, and run this again.",
        exit_code=EXIT_USAGE if error.errno in _WRONG_PATH else EXIT_ATTENTION,
    )
