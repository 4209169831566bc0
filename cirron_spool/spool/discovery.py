"""Discovery: the spools below a folder. Blocking.

A spool is a folder ``.cirron/spool``, or another folder whose batches all have names of the SDK. Other names, such as
``2024-12.json``, may be files of other programs. A quarantine is not a spool.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cirron_spool.errors import SpoolError
from cirron_spool.settings.paths import SPOOL_NAME, is_quarantine_name
from cirron_spool.spool.file_identity import GONE
from cirron_spool.spool.listing import unusable
from cirron_spool.spool.names import created_ns_of, is_sdk_name, match_batch_name
from cirron_spool.spool.quarantine import NOTE_SUFFIX
from cirron_spool.text import printable, reason

_HOME = ".cirron"  # the SDK's folder: its ``spool`` is a spool before its first batch
_HOME_SUFFIX = f"{os.sep}{_HOME}{os.sep}{SPOOL_NAME}"


class FoundSpool(NamedTuple):
    """A spool: its absolute path, the number of its batches, and the time of the oldest (ns) or None."""

    path: Path
    batches: int
    oldest_ns: int | None


class SkippedFolder(NamedTuple):
    """A folder that the discovery did not enter or did not accept as a spool, and the reason."""

    path: Path
    reason: str


class _Folder(NamedTuple):
    """The contents of a folder: its batches, the time of the oldest, and its folders (name, path)."""

    batches: int
    oldest_ns: int | None
    has_sdk_names: bool
    is_quarantine: bool
    has_linked_spool: bool
    folders: list[tuple[str, str]]


def discover(
    roots: Iterable[Path],
    *,
    cross_file_systems: bool = False,
    on_skip: Callable[[SkippedFolder], object] = lambda _: None,
    exclude: Iterable[Path] = (),
) -> Iterator[FoundSpool]:
    """Find the spools in and below ``roots``, without those in ``exclude``, ordered by path.

    Links below a root are not followed. Another file system is entered only with ``cross_file_systems``. Folders inside
    a spool are not searched. ``on_skip`` is called for each unreadable folder, and for each folder that a person may
    expect in the search. Raises SpoolError, before the first spool, for a root that does not exist, is not a
    directory, or cannot be read.
    """
    places = [Path(os.path.abspath(root)) for root in roots]
    for place in places:
        check_root(place)
    seen = {identity for path in exclude if (identity := identity_of(path)) is not None}
    for place in places:
        yield from _search(place, cross_file_systems, seen, on_skip)


def check_root(root: Path) -> None:
    """Raise SpoolError if ``root`` does not exist, is not a directory, or cannot be read."""
    try:
        os.scandir(root).close()
    except FileNotFoundError:
        raise SpoolError(
            f"{printable(str(root))} does not exist. Pass --discover an existing folder."
        ) from None
    except NotADirectoryError:
        raise SpoolError(f"{printable(str(root))} is not a folder. Pass --discover a folder.") from None
    except OSError as error:
        raise unusable("read", root, error) from None


def identity_of(path: Path) -> tuple[int, int] | None:
    """The device and the inode of a folder; None if a stat fails. Links are followed."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def distinct(directories: Iterable[Path]) -> list[Path]:
    """The directories without duplicates under another path."""
    found: dict[object, Path] = {}
    for directory in directories:
        found.setdefault(identity_of(directory) or directory, directory)
    return list(found.values())


def _search(
    root: Path,
    cross_file_systems: bool,
    seen: set[tuple[int, int]],
    on_skip: Callable[[SkippedFolder], object],
) -> Iterator[FoundSpool]:
    pending = [(root.name, os.fspath(root))]
    try:
        # The root itself may be a link, since a person named it.
        top = os.stat(root)
    except OSError as error:
        on_skip(SkippedFolder(root, reason(error)))
        return
    device = top.st_dev
    status: os.stat_result | None = top
    while pending:
        name, path = pending.pop()
        try:
            if status is None:
                status = os.lstat(path)
            identity = status.st_dev, status.st_ino
            if status.st_dev != device and not cross_file_systems:
                on_skip(SkippedFolder(Path(path), "another file system"))
                continue
            if not stat.S_ISDIR(status.st_mode):
                continue  # replaced since its parent was listed
            folder = _list(path)
        except OSError as error:
            if error.errno not in GONE:
                on_skip(SkippedFolder(Path(path), reason(error)))
            continue
        finally:
            status = None
        is_home = name == SPOOL_NAME and path.endswith(_HOME_SUFFIX)
        if is_home or (folder.batches and not folder.is_quarantine and not is_quarantine_name(name)):
            if is_home or folder.has_sdk_names:
                # Roots may overlap, and a mount may repeat a folder.
                if identity not in seen:
                    seen.add(identity)
                    yield FoundSpool(Path(path), folder.batches, folder.oldest_ns)
                continue
            on_skip(
                SkippedFolder(
                    Path(path), "names of batches that are not the SDK's; --dir takes it as a spool"
                )
            )
        if folder.has_linked_spool and name == _HOME:
            on_skip(SkippedFolder(Path(path, SPOOL_NAME), "a symbolic link"))
        folder.folders.sort(reverse=True)
        pending += folder.folders


def _list(path: str) -> _Folder:
    """The contents of the folder at ``path``. Raises OSError."""
    batches, has_sdk_names, is_quarantine, has_linked_spool = 0, True, False, False
    # Names of the SDK are compared as text, which is faster.
    oldest_name, oldest_ns = "", None
    folders: list[tuple[str, str]] = []
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if name.endswith(".json"):
                if (match := match_batch_name(name)) and entry.is_file(follow_symlinks=False):
                    batches += 1
                    if is_sdk_name(name):
                        if not oldest_name or name < oldest_name:
                            oldest_name = name
                    else:
                        has_sdk_names = False
                        created_ns = int(match[1])
                        oldest_ns = created_ns if oldest_ns is None else min(oldest_ns, created_ns)
                    continue
                is_quarantine = is_quarantine or name.endswith(NOTE_SUFFIX)
            if entry.is_dir(follow_symlinks=False):
                folders.append((name, entry.path))
            elif name == SPOOL_NAME and entry.is_symlink():
                has_linked_spool = True
    if oldest_name:
        created_ns = created_ns_of(oldest_name)
        oldest_ns = created_ns if oldest_ns is None else min(oldest_ns, created_ns)
    return _Folder(batches, oldest_ns, has_sdk_names, is_quarantine, has_linked_spool, folders)
