"""The folder of a run's snapshots: list, open complete ones, delete sent ones. Blocking."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from cirron_spool.errors import SpoolError
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.file_identity import (
    REGULAR,
    TYPE_BITS,
    Fingerprint,
    NotABatch,
    Removal,
    Vanished,
    close,
    kind_of_mode,
)
from cirron_spool.spool.snapshots import FILES, FOLDER

# A span's identifier in a key: safe in a URL, a header and a path.
_SPAN = re.compile(r"[0-9A-Za-z_-]{1,128}")
# Format: 8 bytes with the length of the header, a JSON header, the tensors. Large models have headers of 1 MB.
_LENGTH_BYTES = 8
_LONGEST_HEADER = 16 * 1024 * 1024


class SnapshotFile(NamedTuple):
    """One snapshot file: its span's identifier, its name in the span's folder, size in bytes, mtime in ns."""

    span: str
    file: str
    size: int
    mtime_ns: int

    @property
    def key(self) -> str:
        """The key under which the platform looks the snapshot up."""
        return f"{FOLDER}/{self.span}/{self.file}"


class Found(NamedTuple):
    """The snapshots of a folder, oldest first. ``ignored`` has a text about each other entry."""

    files: list[SnapshotFile]
    ignored: list[str]


class Incomplete(Exception):
    """The snapshot is empty or shorter than its header says. The run may still write it."""


class SnapshotFolder:
    """The snapshots in ``path``, one folder a span. Links below ``path`` are not followed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self) -> Found:
        """Find the snapshots. Raises OSError when the folder itself cannot be read."""
        files: list[SnapshotFile] = []
        ignored: list[str] = []
        with os.scandir(self.path) as spans:
            for span in spans:
                if span.name.startswith("."):
                    continue
                if not span.is_dir(follow_symlinks=False):
                    if span.is_symlink():
                        ignored.append(f"{span.name} (a symbolic link)")
                elif not _SPAN.fullmatch(span.name):
                    ignored.append(f"{span.name} (no key can have this name)")
                else:
                    self._list_span(span, files, ignored)
        files.sort(key=lambda file: (file.mtime_ns, file.key))
        return Found(files, ignored)

    def open(self, snapshot: SnapshotFile) -> tuple[int, Fingerprint]:
        """Open a complete snapshot. Returns a descriptor, which the caller closes, and the fingerprint.

        Raises Vanished, NotABatch, Incomplete, or OSError when it cannot be read.
        """
        with self._span(snapshot) as folder:
            fd, fingerprint = folder.open_batch(snapshot.file)
        try:
            _check_whole(fd, fingerprint.size)
            os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            close(fd)
            raise
        return fd, fingerprint

    def fingerprint(self, snapshot: SnapshotFile) -> Fingerprint:
        """The fingerprint of a complete snapshot. Raises the errors of :meth:`open`."""
        fd, fingerprint = self.open(snapshot)
        close(fd)
        return fingerprint

    def chunks(
        self, snapshot: SnapshotFile, sent: Fingerprint, chunk_bytes: int
    ) -> Generator[bytes, None, None]:
        """The bytes of the file with fingerprint ``sent``. Raises OSError if the file was replaced or changes."""
        try:
            fd, opened = self.open(snapshot)
        except Vanished:
            raise FileNotFoundError(f"{snapshot.key} vanished while it was being sent") from None
        except (NotABatch, Incomplete):
            raise _changed(snapshot) from None
        try:
            with self._span(snapshot) as folder:
                if not folder.is_same(snapshot.file, opened, sent):
                    raise _changed(snapshot)
            left = sent.size
            while left:
                chunk = os.read(fd, min(chunk_bytes, left))
                left -= len(chunk)
                # Check the file before the last bytes: a mix of two files must not be acknowledged.
                if not chunk or (not left and Fingerprint.of(os.fstat(fd)) != opened):
                    raise _changed(snapshot)
                yield chunk
        finally:
            close(fd)

    def delete(self, snapshot: SnapshotFile, sent: Fingerprint) -> Removal:
        """Delete the snapshot if it still is the file with fingerprint ``sent``. Raises OSError.

        The span's folder stays, since the run may write to it.
        """
        try:
            with self._span(snapshot) as folder:
                return folder.delete(snapshot.file, sent)
        except Vanished:
            return Removal.GONE

    def _list_span(self, span: os.DirEntry[str], files: list[SnapshotFile], ignored: list[str]) -> None:
        for name in FILES:
            try:
                status = os.lstat(os.path.join(span.path, name))
            except FileNotFoundError:
                continue
            except OSError as error:
                ignored.append(f"{span.name}/{name} ({error.strerror})")
                continue
            if status.st_mode & TYPE_BITS != REGULAR:
                ignored.append(f"{span.name}/{name} ({kind_of_mode(status.st_mode)})")
            else:
                files.append(SnapshotFile(span.name, name, status.st_size, status.st_mtime_ns))

    def _span(self, snapshot: SnapshotFile) -> SpoolDirectory:
        """The folder of the snapshot's span, open. Raises Vanished or OSError."""
        path = self.path / snapshot.span
        folder = SpoolDirectory(path)
        try:
            if not os.path.islink(path) and folder.open():
                return folder
        except SpoolError as error:
            raise OSError(str(error)) from None
        raise Vanished(snapshot.key)


def _changed(snapshot: SnapshotFile) -> OSError:
    return OSError(f"{snapshot.key} changed while it was being sent")


def _check_whole(fd: int, size: int) -> None:
    """Raise Incomplete for a file that is shorter than its header says. Other formats pass."""
    start = os.read(fd, _LENGTH_BYTES + 1)
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if not start:
        raise Incomplete
    if start[_LENGTH_BYTES:] != b"{" or length > _LONGEST_HEADER:
        return
    try:
        tensors = json.loads(b"{" + os.read(fd, length - 1)) if size >= _LENGTH_BYTES + length else None
        if tensors is not None:
            ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
            length += max(ends, default=0)
    except (ValueError, RecursionError, TypeError, KeyError, IndexError, AttributeError):
        return
    if size < _LENGTH_BYTES + length:
        raise Incomplete
