"""The ledger of sent snapshots and their destinations. One JSON object on each line; blocking.

The ledger is in the folder of the snapshots. Each line is one synced write, so a crash leaves at most one incomplete
line. The snapshot of an unreadable line is sent again.
"""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

LEDGER_NAME = ".cirron-spool-sent.jsonl"

_LONGEST_LINE = 64 * 1024
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class SentFile(NamedTuple):
    """A file as it was sent: its size in bytes, and its mtime in ns."""

    size: int
    mtime_ns: int


class SentLedger:
    """The snapshots in ``folder`` that ``destination``, a URL, has acknowledged."""

    def __init__(self, folder: Path, destination: str) -> None:
        self.path = folder / LEDGER_NAME
        self._destination = destination
        self._sent: dict[str, SentFile] = {}

    def load(self) -> None:
        """Read the ledger. Raises OSError; a ledger that is absent is empty."""
        try:
            fd = os.open(self.path, os.O_RDONLY | _FLAGS)
        except FileNotFoundError:
            return
        with os.fdopen(fd, "rb") as file:
            _check_regular(fd)
            for line in iter(partial(file.readline, _LONGEST_LINE), b""):
                self._note(line)

    def has(self, key: str, file: SentFile) -> bool:
        """Whether the destination has acknowledged ``key`` with this ``file``."""
        return self._sent.get(key) == file

    def record(self, key: str, file: SentFile, uri: str) -> None:
        """Append the acknowledgement of ``key``; ``uri`` is the platform's address of it. Raises OSError."""
        self._sent[key] = file
        entry = {
            "key": key,
            "size": file.size,
            "mtimeNs": file.mtime_ns,
            "destination": self._destination,
            "sentAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "uri": uri or None,
        }
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _FLAGS, 0o600)
        try:
            _check_regular(fd)
            line = json.dumps(entry).encode() + b"\n"
            # After an incomplete line of an earlier crash, start a new line.
            size = os.fstat(fd).st_size
            if size and os.lseek(fd, -1, os.SEEK_END) >= 0 and os.read(fd, 1) != b"\n":
                line = b"\n" + line
            if os.write(fd, line) != len(line):
                raise OSError("the disk is full")
            os.fsync(fd)
        finally:
            os.close(fd)

    def _note(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(entry, dict) or entry.get("destination") != self._destination:
            return
        key, size, mtime_ns = entry.get("key"), entry.get("size"), entry.get("mtimeNs")
        if isinstance(key, str) and isinstance(size, int) and isinstance(mtime_ns, int):
            self._sent[key] = SentFile(size, mtime_ns)


def _check_regular(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError("it is not a regular file")
