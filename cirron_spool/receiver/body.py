"""Turn a request's body into the batch's JSON: decompress it in bounded pieces, count and check it. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from cirron_spool.receiver.answers import RefusedError
from cirron_spool.receiver.jsontext import JsonCheck, NotABatchError

# Bytes that are decompressed, checked and written together. The check holds the GIL for about 1 ms.
PIECE_BYTES = 128 << 10

# Input of one decompressor call. zlib copies unused input, so small slices bound the copy.
_SLICE_BYTES = 32 << 10

# Faster libraries than zlib fail on optional gzip header fields. The JSON check takes longer than zlib.
_GZIP_FORMAT = 16 + zlib.MAX_WBITS


def is_gzip(content_encoding: str) -> bool:
    """Whether a Content-Encoding is gzip. Raises RefusedError (415) for other encodings."""
    encoding = content_encoding.strip().lower()
    if encoding in ("", "identity"):
        return False
    if encoding in ("gzip", "x-gzip"):
        return True
    raise RefusedError(415, "Content-Encoding must be gzip or absent.")


class BodyReader:
    """One request's body: ``feed`` and ``finish`` yield the JSON in checked pieces of about ``PIECE_BYTES``.

    Both raise RefusedError: 413 as soon as the JSON is longer than ``limit`` bytes, 400 for invalid JSON or gzip. A
    gzip body may have several members. Zeros after a member are padding, and other bytes there are refused. The
    pieces are a valid batch only after the end of ``finish``.
    """

    def __init__(self, *, gzipped: bool, limit: int) -> None:
        self._gzipped = gzipped
        self._limit = limit
        self._length = 0
        self._member: zlib._Decompress | None = None
        self._begun = False
        self._check = JsonCheck()
        self._held: list[bytes] = []
        self._held_bytes = 0

    @property
    def created_ns(self) -> str | None:
        """The ``created_ns`` of the document as text, or None. Known after ``finish``."""
        return self._check.created_ns

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The pieces of JSON that ``data``, the next bytes of the body, completes."""
        if self._gzipped:
            for start in range(0, len(data), _SLICE_BYTES):
                yield from self._inflate(data[start : start + _SLICE_BYTES])
        else:
            for start in range(0, len(data), PIECE_BYTES):
                yield from self._collect(data[start : start + PIECE_BYTES])

    def finish(self) -> Iterator[bytes]:
        """The last piece. After it, the body is complete and valid."""
        if self._gzipped and (self._member is not None or not self._begun):
            behind = ", or has something else behind its end" if self._begun else ""
            raise RefusedError(400, f"The gzip body ends too early{behind}.")
        # Check the end before the last piece is returned, so nothing of a short invalid body is written.
        yield from self._release(last=True)

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        more = False
        while data or more:
            if self._member is None:
                # Zeros after a member are padding. No member begins with a zero.
                data = data.lstrip(b"\0") if self._begun else data
                if not data:
                    return
                self._member = zlib.decompressobj(_GZIP_FORMAT)
            # One byte over the limit is enough to detect a longer body.
            room = min(PIECE_BYTES, self._limit - self._length + 1)
            try:
                inflated = self._member.decompress(data, room)
            except zlib.error:
                behind = ", or has something else behind its end" if self._begun else ""
                raise RefusedError(400, f"The body is not valid gzip{behind}.") from None
            if self._member.eof:
                data, more = self._member.unused_data, False
                self._member = None
                self._begun = True
            else:
                # A full piece can leave output behind in the decompressor even when all input is used.
                data, more = self._member.unconsumed_tail, len(inflated) == room
            yield from self._collect(inflated)

    def _collect(self, piece: bytes) -> Iterator[bytes]:
        self._length += len(piece)
        if self._length > self._limit:
            raise RefusedError(413, f"The batch is larger than {self._limit} bytes.")
        self._held.append(piece)
        self._held_bytes += len(piece)
        # Pieces have a fixed size, since the check is slow on small ones.
        if self._held_bytes >= PIECE_BYTES:
            yield from self._release()

    def _release(self, *, last: bool = False) -> Iterator[bytes]:
        piece = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        try:
            self._check.feed(piece)
            if last:
                self._check.finish()
        except NotABatchError as error:
            raise RefusedError(400, f"{error}.") from None
        if piece:
            yield piece
