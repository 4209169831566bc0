"""Read and compress one batch, or stream a batch that is too large for memory. Only the stream does not block.

A file that cannot be read becomes an Unsendable, so it does not disturb the upload in flight.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256

from cirron_spool.errors import resource_error
from cirron_spool.pipeline.batch import Cause, Digest, Prepared, Ready, Unsendable
from cirron_spool.pipeline.encoding import GZIP_ABOVE_BYTES, Encoder
from cirron_spool.pipeline.part_stream import PartStream
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.file_identity import Fingerprint, NotABatch, Vanished, close
from cirron_spool.text import reason

# The largest compressed body that is held in memory. A larger one is streamed in chunks.
# 8 MiB of gzip are about 35 MB of JSON. Two such bodies keep a flush below 64 MB of memory.
HELD_BYTES = 8 * 1024 * 1024
# The largest file, in chunks, that one call reads and compresses: one to two milliseconds of work.
WHOLE_CHUNKS = 4
# Compressed bytes of a streamed body that may wait for their upload.
STREAM_AHEAD_BYTES = 1024 * 1024


def _nothing() -> None:
    pass


class BatchReader:
    """Reads the batches of one spool directory with the chunks and the compression of ``tuning``.

    ``digests`` hashes each file while it is read.
    """

    def __init__(self, spool: SpoolDirectory, tuning: Tuning, *, digests: bool = False) -> None:
        self._spool = spool
        self._digests = digests
        self._chunk_bytes = tuning.chunk_bytes
        self._whole_bytes = max(min(WHOLE_CHUNKS * tuning.chunk_bytes, HELD_BYTES), GZIP_ABOVE_BYTES)
        self._encoder = Encoder(tuning.gzip_library, tuning.gzip_level)

    def close(self) -> None:
        """End the threads that compress large batches."""
        self._encoder.close()

    def read(self, name: str, between: Callable[[], None] = _nothing) -> Ready:
        """Open, read and compress one batch. ``between`` is called between the chunks of a large file.

        Raises ResourceError when the system lacks a descriptor or memory.
        """
        opened = self._open(name)
        return opened if isinstance(opened, Unsendable) else self._read(name, *opened, between)

    def read_if_small(self, name: str, limit: int) -> Ready | None:
        """As :meth:`read`; None for a file of more than ``limit`` bytes, which stays unread."""
        opened = self._open(name)
        if isinstance(opened, Unsendable):
            return opened
        fd, fingerprint = opened
        if fingerprint.size > limit:
            close(fd)
            return None
        return self._read(name, fd, fingerprint, _nothing)

    def stream(self, prepared: Prepared) -> PartStream:
        """The compressed body of a streamed batch. Each attempt opens a new stream.

        The iteration raises OSError for a file that cannot be read, or that was replaced.
        """
        return PartStream(self._encoder.gzip_parts(self._same_file(prepared)), STREAM_AHEAD_BYTES)

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
        """Read the batch from ``fd``, and close ``fd``."""
        size = fingerprint.size
        try:
            try:
                if size == 0:
                    return Unsendable(name, Cause.EMPTY)
                if size > self._whole_bytes:
                    return self._encode(name, fd, fingerprint, between)
                # One more byte than the size detects a file that grew.
                body = os.read(fd, size + 1)
            finally:
                close(fd)
        except OSError as error:
            return Unsendable(name, Cause.UNREADABLE, reason(error))
        if len(body) != size:
            return _changing(name)
        digest = Digest(sha256(body).hexdigest()) if self._digests else None
        gzip = size > GZIP_ABOVE_BYTES
        if gzip:
            body = self._encoder.gzip(body)
        return Prepared(name, fingerprint, gzip, (body,), len(body), 0, digest)

    def _encode(self, name: str, fd: int, fingerprint: Fingerprint, between: Callable[[], None]) -> Ready:
        """Compress a file in blocks. A body that is too large for memory is streamed later."""
        size = fingerprint.size
        digest = Digest() if self._digests else None
        chunks = _Chunks(fd, size, self._chunk_bytes, digest)
        parts: list[bytes] = []
        length = 0
        with closing(self._encoder.gzip_parts(chunks)) as compressed:
            for part in compressed:
                between()
                parts.append(part)
                length += len(part)
                # The ratio so far shows early that the body will be too large for memory. One part is one chunk:
                # the chunks that were read ahead would make the decision depend on the helper thread.
                estimate = int(length * (size / min(size, len(parts) * self._chunk_bytes)))
                if length > HELD_BYTES or (length > HELD_BYTES // 8 and estimate > HELD_BYTES * 1.25):
                    return Prepared(name, fingerprint, True, (), None, estimate, digest)
        if chunks.read != size:
            return _changing(name)
        return Prepared(name, fingerprint, True, tuple(parts), length, 0, digest)

    def _same_file(self, prepared: Prepared) -> Iterator[bytes]:
        """The chunks of the prepared file. Raises OSError if another file has its name."""
        try:
            fd, fingerprint = self._spool.open_batch(prepared.name)
        except Vanished:
            raise FileNotFoundError(f"{prepared.name} vanished while it was being sent") from None
        except NotABatch as error:
            raise OSError(f"{prepared.name} is {error} now") from None
        try:
            if not self._spool.is_same(prepared.name, fingerprint, prepared.fingerprint):
                raise OSError(f"{prepared.name} changed while it was being sent")
            chunks = _Chunks(fd, prepared.size, self._chunk_bytes, prepared.digest)
            yield from chunks
            if chunks.read != prepared.size:
                raise OSError(f"{prepared.name} changed while it was being sent")
        finally:
            close(fd)


class _Chunks(Iterator[bytes]):
    """The chunks of a file of ``size`` bytes. ``read`` counts the bytes, and exceeds ``size`` if the file grew.

    ``digest`` gets the hash at the end of the file.
    """

    def __init__(self, fd: int, size: int, chunk_bytes: int, digest: Digest | None) -> None:
        self._fd = fd
        self._digest = digest
        self._hash = sha256() if digest is not None else None
        self._size = size
        self._chunk_bytes = chunk_bytes
        self.read = 0

    def __next__(self) -> bytes:
        # One byte beyond the size detects a file that grew.
        chunk = os.read(self._fd, min(self._chunk_bytes, self._size + 1 - self.read))
        if not chunk:
            if self._digest is not None and self._hash is not None:
                self._digest.hex = self._hash.hexdigest()
            raise StopIteration
        if self._hash is not None:
            self._hash.update(chunk)
        self.read += len(chunk)
        return chunk


def _changing(name: str) -> Unsendable:
    return Unsendable(name, Cause.UNREADABLE, "it changes while it is read")
