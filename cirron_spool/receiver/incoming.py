"""The write of a file into the store: under a hidden name, then a sync and a rename."""

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

# A hidden name that is not a batch's, and that the SDK's globs *.json and *.json.tmp do not match.
INCOMING_NAME = re.compile(r"\.incoming-[0-9a-f]{16}\.part")

# Some systems have no O_NOFOLLOW and O_CLOEXEC.
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

_Stored = TypeVar("_Stored")


class IncomingFile(ABC, Generic[_Stored]):
    """The write of one file. Call ``feed`` with its body, then ``finish``, and always ``discard`` at the end.

    The calls may come from different threads, one after another. ``discard`` may come at any time, and waits for a
    running call.
    """

    def __init__(self, directory: Path) -> None:
        self.size = 0
        self.temporary = os.path.join(directory, incoming_name())
        self._exists = False
        self._file: int | None = None
        self._running = threading.Lock()

    @abstractmethod
    def accept(self, data: bytes) -> Iterable[bytes]:
        """The pieces to write for the next bytes of the body. Raises RefusedError."""

    @abstractmethod
    def accept_end(self) -> Iterable[bytes]:
        """The last pieces to write. After them, the body is valid. Raises RefusedError."""

    @abstractmethod
    def commit(self) -> _Stored:
        """Rename the synced temporary file durably. After a RefusedError or OSError nothing is stored."""

    def feed(self, data: bytes) -> None:
        """Write the next bytes of the body. Raises RefusedError and OSError."""
        with self._running:
            self._write(self.accept(data))

    def finish(self) -> _Stored:
        """End the body, and make the file durable. Raises the errors of ``accept_end`` and ``commit``."""
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
        """Remove an unfinished file. After a successful ``finish`` there is none."""
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
        """Write the last bytes of the body, or all of them, and finish."""
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
        # The file is opened late, so a body that is refused at its first piece needs no disk.
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
    """Create the folder and its missing parents durably, with mode 0700. Raises OSError."""
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
