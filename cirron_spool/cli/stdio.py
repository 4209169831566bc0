"""The standard streams of a command. A closed, full or blocked stream does not crash it.

:func:`prepare` is the first step of a command. It opens missing streams, so that no other file gets their
descriptors.
"""

from __future__ import annotations

import io
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

# Longest wait for a reader of the last lines of a process.
_PATIENCE_S = 0.2


def prepare() -> None:
    """Make the standard streams safe.

    A closed stream becomes the null device. Otherwise the next file or socket would get its descriptor.
    Output is UTF-8 in every locale. Writes wait for a non-blocking stream.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        with suppress(OSError):
            while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
                pass
            os.close(fd)
    if os.name == "nt":  # has consoles that are no files
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, ValueError, OSError):
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]  # another object than a file is left alone
        return
    sys.stdin, sys.stdout, sys.stderr = _text(0, "r"), _text(1, "w"), _text(2, "w")


def write_now(stream: TextIO, text: str) -> None:
    """Write ``text`` without buffers, and only the part that the stream accepts at once. Never raises.

    A signal handler needs it, since it may have interrupted a write of the stream's object.
    """
    import select

    with suppress(OSError, ValueError, AttributeError):
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        rest = text.encode("utf-8", "backslashreplace")
        give_up = time.monotonic() + _PATIENCE_S
        while rest and poll.poll(max(0, (give_up - time.monotonic()) * 1000)):
            # A ready pipe accepts this many bytes without a wait.
            rest = rest[os.write(stream.fileno(), rest[: select.PIPE_BUF]) :]


class _Stream(io.FileIO):
    """A standard stream that waits if it is non-blocking. After an error it drops the output.

    Otherwise a failed flush of the stream would end Python with exit code 120.
    """

    _failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        if self._failed:
            return memoryview(data).nbytes
        try:
            while (written := self._write(data)) is None:
                self._wait()
        except OSError:
            self._failed = True
            raise
        return written

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        while (read := self._readinto(buffer)) is None:
            self._wait()
        return read

    # None means that a non-blocking file is not ready. The declared types do not have it.

    def _write(self, data: ReadableBuffer) -> int | None:
        return super().write(data)

    def _readinto(self, buffer: WriteableBuffer) -> int | None:
        return super().readinto(buffer)

    def _wait(self) -> None:
        import select

        poll = select.poll()
        poll.register(self, select.POLLIN if self.readable() else select.POLLOUT)
        poll.poll()


def _text(fd: int, mode: str) -> TextIO:
    try:
        raw = _Stream(fd, mode, closefd=False)
    except OSError:  # closed, and there is no null device
        return io.StringIO()
    if mode == "r":
        return io.TextIOWrapper(io.BufferedReader(raw), encoding="utf-8")
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
