"""Files on their way into the store: written under a hidden name, synced, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

# Hidden, and matched neither by a batch's name nor by the SDK's globs for *.json and *.json.tmp.
INCOMING_NAME = re.compile(r"\.incoming-[0-9a-f]{16}\.part")

# O_NOFOLLOW and O_CLOEXEC are not everywhere; where they are missing there is nothing to ask for.
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

_Stored = TypeVar("_Stored")


class IncomingFile(ABC, Generic[_Stored]):
    """One file on its way in: ``feed`` its body, then ``finish``; ``discard`` whatever happened.

    The calls may come from different threads, one after another; ``discard`` may come at any time, also while another
    call runs, and waits for it.
    """

    def __init__(self, directory: Path) -> None:
        self.size = 0
        self.temporary = os.path.join(directory, incoming_name())
        self._exists = False
        self._file: int | None = None
        self._running = threading.Lock()

    @abstractmethod
    def accept(self, data: bytes) -> Iterable[bytes]:
        """The pieces to write of the next bytes of the body. Raises RefusedError."""

    @abstractmethod
    def accept_end(self) -> Iterable[bytes]:
        """The last pieces to write, after which the body is known to be valid. Raises RefusedError."""

    @abstractmethod
    def commit(self) -> _Stored:
        """Give the synced temporary file its name, durably. Raises RefusedError or OSError; then nothing is stored."""

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the body. Raises RefusedError, or OSError when they cannot be written."""
        with self._running:
            self._write(self.accept(data))

    def finish(self) -> _Stored:
        """Take the body for complete and make the file durable. Raises the errors of ``accept_end`` and ``commit``."""
        with self._running:
            self._write(self.accept_end())
            file = self._opened()
            os.fsync(file)
            self._file = None
            os.close(file)
            stored = self.commit()
            self._exists = False
            return stored

    def discard(self) -> None:
        """Leave nothing half-written behind. After a successful ``finish`` there is nothing to do."""
        with self._running:
            if self._file is not None:
                with contextlib.suppress(OSError):
                    os.close(self._file)
                self._file = None
            if self._exists:
                with contextlib.suppress(OSError):
                    os.unlink(self.temporary)
                self._exists = False

    def store_all(self, data: bytes) -> _Stored:
        """Take in the last bytes of the body, or all of them, and finish."""
        try:
            self.feed(data)
            return self.finish()
        finally:
            self.discard()

    def _write(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            file = self._opened()
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(file, rest) :]
            self.size += len(piece)

    def _opened(self) -> int:
        # As late as possible: a body that is refused at its first piece never touches the disk.
        if self._file is None:
            self._file = os.open(self.temporary, NEW_FILE, 0o600)
            self._exists = True
        return self._file


def incoming_name() -> str:
    """A new name for a file that is being written."""
    return f".incoming-{secrets.token_hex(8)}.part"


def sync_file(path: str | Path, flags: int) -> None:
    """Open a file or folder with ``flags``, sync it and close it. Raises OSError."""
    descriptor = os.open(path, flags, 0o600)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(directory: Path) -> None:
    """Create the folder and the missing ones above it, mode 0700, durably. Raises OSError."""
    if directory.is_dir():
        return
    if directory.parent != directory:
        make_folder(directory.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is not a folder")
    if os.name == "posix":
        sync_file(directory.parent, os.O_RDONLY)
