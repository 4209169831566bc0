"""Read and compress batches ahead of their upload, in a thread, or in the loop: small ones on a quick disk.

An expected outcome is a value in its batch's place in the order (:class:`Prepared` or :class:`Unsendable`), so that
a bad next file never disturbs the upload in flight.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, TypeVar

from cirron_spool.errors import resource_error
from cirron_spool.pipeline.bridge import Ahead
from cirron_spool.pipeline.encoding import GZIP_ABOVE_BYTES, Encoder
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.directory import Fingerprint, NotABatch, SpoolDirectory, Vanished, close
from cirron_spool.text import reason

# A file of up to this is deleted in the event loop while the disk is quick: 8 to 20 µs on a local one. A file system
# takes its time to free a large one.
DELETED_IN_LOOP_BYTES = 128 * 1024
# A body up to this is held in memory compressed and goes out with a length; beyond it is streamed, chunked. 8 MiB of
# gzip are some 35 MB of JSON: with one in flight and as much ahead, a flush stays below 64 MB of memory.
HELD_BYTES = 8 * 1024 * 1024


# A file of up to so many chunks is read and compressed in one go, one to two milliseconds of work; a larger one in
# blocks of a chunk, beside each other.
WHOLE_CHUNKS = 4
# Compressed ahead of a streamed body's sending: enough that neither side waits for the other.
STREAM_AHEAD_BYTES = 1024 * 1024


class Prepared(NamedTuple):
    """A batch ready to be sent: its file's fingerprint and its body.

    ``parts`` are the body, held in memory, of ``length`` bytes together; ``length`` None says that the body is too
    large to hold and comes from :meth:`Prefetch.stream`. ``estimate`` is then what it may come to, in bytes.
    """

    name: str
    fingerprint: Fingerprint
    gzip: bool
    parts: tuple[bytes, ...]
    length: int | None
    estimate: int = 0

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return self.fingerprint.size

    def share_of_file(self, sent: int) -> int:
        """The bytes of the file that ``sent`` bytes of its body stand for; about so many where that is estimated."""
        whole = self.estimate if self.length is None else self.length
        return min(self.size, self.size * sent // whole) if whole else 0


class Cause(Enum):
    """Why a batch cannot be sent."""

    VANISHED = auto()
    EMPTY = auto()
    NOT_A_FILE = auto()
    UNREADABLE = auto()


@dataclass(frozen=True, slots=True)
class Unsendable:
    """A batch that cannot be sent, and why in words."""

    name: str
    cause: Cause
    message: str = ""


Ready = Prepared | Unsendable
R = TypeVar("R")


def _nothing() -> None:
    pass


class Prefetch:
    """Prepares the batches of one spool directory, in order, within the bounds of ``tuning``."""

    def __init__(self, spool: SpoolDirectory, tuning: Tuning) -> None:
        self._spool = spool
        self._tuning = tuning
        # A file of up to so many bytes is read in one go, and compressed so if it is at all.
        self._whole_bytes = max(min(WHOLE_CHUNKS * tuning.chunk_bytes, HELD_BYTES), GZIP_ABOVE_BYTES)
        self._encoder = Encoder(tuning.gzip_library, tuning.gzip_level)

    def close(self) -> None:
        """Let the threads go that compress large batches."""
        self._encoder.close()

    def ahead(
        self,
        names: Iterable[str],
        delete: Callable[[Prepared], R | None],
        *,
        at_once: int = 1,
        at_end: Callable[[], None] | None = None,
    ) -> Ahead[Ready, Prepared, R]:
        """An async iterator over ``names`` as they become ready, run ahead by a thread while its context is open.

        The thread asks for ``names``, too. ``at_once`` batches are taken together at first, and no more are prepared
        until one is. The errand ``delete`` is run for the batches that are ``put`` to it, and ``at_end`` at its end.
        """
        ahead: Ahead[Ready, Prepared, R] = Ahead(
            # The preparations run in the thread, after ahead is there.
            preparations := _Preparations(self, names, lambda: ahead.run_errands()),  # noqa: PLW0108  # not bound yet
            max_items=self._tuning.prefetch_batches,
            max_weight=self._tuning.prefetch_bytes,
            weigh=_weight,
            name="cirron-spool disk",
            head_start=at_once,
            errand=delete,
            at_end=at_end,
            brief=preparations.next_if_brief if self._tuning.in_loop_bytes else None,
            is_small=lambda ready: isinstance(ready, Unsendable) or ready.size <= self._tuning.in_loop_bytes,
            is_brief=lambda prepared: prepared.fingerprint.size <= DELETED_IN_LOOP_BYTES,
        )
        return ahead

    def stream(self, prepared: Prepared) -> Ahead[bytes, None, None]:
        """The body of a batch that is not held, compressed ahead of its sending. Opened anew for each attempt.

        Raises OSError (also when the file is not the one that was prepared any more) where the next part is taken.
        """
        return Ahead(
            self._encoder.gzip_parts(self._same_file(prepared)),
            max_items=64,
            max_weight=STREAM_AHEAD_BYTES,
            weigh=len,
            name="cirron-spool stream",
        )

    def prepare(self, name: str, between: Callable[[], None] = _nothing) -> Ready:
        """Open, read and compress one batch, calling ``between`` its chunks. Blocking: for the thread."""
        opened = self._open(name)
        return opened if isinstance(opened, Unsendable) else self._read(name, *opened, between)

    def prepare_if_brief(self, name: str) -> Ready | None:
        """As :meth:`prepare`, but None for a file too large to be read and compressed in the event loop."""
        opened = self._open(name)
        if isinstance(opened, Unsendable):
            return opened
        fd, fingerprint = opened
        if fingerprint.size > self._tuning.in_loop_bytes:
            close(fd)
            return None
        return self._read(name, fd, fingerprint, _nothing)

    def _open(self, name: str) -> tuple[int, Fingerprint] | Unsendable:
        try:
            return self._spool.open_batch(name)
        except Vanished:
            return Unsendable(name, Cause.VANISHED)
        except NotABatch as error:
            return Unsendable(name, Cause.NOT_A_FILE, str(error))
        except OSError as error:
            if lacking := resource_error(error):
                raise lacking from None
            return Unsendable(name, Cause.UNREADABLE, reason(error))

    def _read(self, name: str, fd: int, fingerprint: Fingerprint, between: Callable[[], None]) -> Ready:
        """What becomes of the file; closes ``fd``."""
        size = fingerprint.size
        try:
            try:
                if size == 0:
                    return Unsendable(name, Cause.EMPTY)
                if size > self._whole_bytes:
                    return self._encode(name, fd, fingerprint, between)
                # One read, one compression: each call less is one time less that the event loop has to wait for us.
                body = os.read(fd, size + 1)
            finally:
                close(fd)
        except OSError as error:
            return Unsendable(name, Cause.UNREADABLE, reason(error))
        if len(body) != size:
            return _changing(name)
        gzip = size > GZIP_ABOVE_BYTES
        if gzip:
            body = self._encoder.gzip(body)
        return Prepared(name, fingerprint, gzip, (body,), len(body))

    def _encode(self, name: str, fd: int, fingerprint: Fingerprint, between: Callable[[], None]) -> Ready:
        """A file compressed in blocks, and held if what comes of it is small enough to be."""
        size = fingerprint.size
        reading = _Reading(fd, size, self._tuning.chunk_bytes)
        parts: list[bytes] = []
        length = 0
        with closing(self._encoder.gzip_parts(reading)) as compressed:
            for part in compressed:
                between()
                parts.append(part)
                length += len(part)
                # What the whole will come to, as far as this much of it tells: no need to fill the memory to find out.
                estimate = int(length * (size / reading.read))
                if length > HELD_BYTES or (length > HELD_BYTES // 8 and estimate > HELD_BYTES * 1.25):
                    return Prepared(name, fingerprint, True, (), None, estimate)
        if reading.read != size:
            return _changing(name)
        return Prepared(name, fingerprint, True, tuple(parts), length)

    def _same_file(self, prepared: Prepared) -> Iterator[bytes]:
        try:
            fd, fingerprint = self._spool.open_batch(prepared.name)
        except Vanished:
            raise FileNotFoundError(f"{prepared.name} vanished while it was being sent") from None
        except NotABatch as error:
            raise OSError(f"{prepared.name} is {error} now") from None
        try:
            if not self._spool.is_same(prepared.name, fingerprint, prepared.fingerprint):
                raise OSError(f"{prepared.name} changed while it was being sent")
            reading = _Reading(fd, prepared.size, self._tuning.chunk_bytes)
            yield from reading
            if reading.read != prepared.size:
                raise OSError(f"{prepared.name} changed while it was being sent")
        finally:
            close(fd)


class _Reading(Iterator[bytes]):
    """A file of ``size`` bytes in chunks; ``read`` counts them, and comes to more where the file has grown."""

    def __init__(self, fd: int, size: int, chunk_bytes: int) -> None:
        self._fd = fd
        self._size = size
        self._chunk_bytes = chunk_bytes
        self.read = 0

    def __next__(self) -> bytes:
        # One byte beyond the size is asked for, never more: enough to see that there is more.
        chunk = os.read(self._fd, min(self._chunk_bytes, self._size + 1 - self.read))
        if not chunk:
            raise StopIteration
        self.read += len(chunk)
        return chunk


class _Preparations(Iterator[Ready]):
    """The batches of one flush as they are prepared, one after another."""

    def __init__(self, prefetch: Prefetch, names: Iterable[str], between: Callable[[], None]) -> None:
        self._prefetch = prefetch
        self._names = iter(names)
        self._between = between
        self._next: str | None = None

    def __next__(self) -> Ready:
        return self._prefetch.prepare(self._take(), self._between)

    def next_if_brief(self) -> Ready | None:
        """The next one, or None where it may take long: it stays the next."""
        name = self._take()
        ready = self._prefetch.prepare_if_brief(name)
        if ready is None:
            self._next = name
        return ready

    def _take(self) -> str:
        name, self._next = self._next, None
        return next(self._names) if name is None else name


def _changing(name: str) -> Unsendable:
    return Unsendable(name, Cause.UNREADABLE, "it changes while it is read")


def _weight(item: Ready) -> int:
    return (item.length or 0) if isinstance(item, Prepared) else 0
