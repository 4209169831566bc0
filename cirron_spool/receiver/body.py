"""Bytes off the wire become the batch's JSON: decompressed in bounded pieces, counted, checked. No disk, no network."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Protocol, cast

from cirron_spool.receiver.jsontext import JsonCheck, NotJsonError


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


_decompressobj: Callable[[int], _Decompressor] = zlib.decompressobj
_GZIP_ERRORS: tuple[type[Exception], ...] = (zlib.error,)
try:
    from isal import isal_zlib
except ImportError:
    pass  # no wheel for every platform; the standard library reads the same format, at half the speed
else:
    _decompressobj = isal_zlib.decompressobj
    _GZIP_ERRORS = (zlib.error, cast("type[Exception]", isal_zlib.error))  # its stub says it were an instance

# How much is decompressed, checked and written in one go. The check holds the GIL, about 1 ms for this much.
PIECE_BYTES = 128 << 10

# What a decompressor is handed at once: it copies the input that it has not used, so a large input of tiny gzip
# members, or one that swells, would be copied over and over.
_SLICE_BYTES = 32 << 10

_GZIP_FORMAT = 31


class RefusedError(Exception):
    """The request is answered with ``status`` and ``message``, and nothing of it is kept."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def is_gzip(content_encoding: str) -> bool:
    """Whether a Content-Encoding says gzip. Raises RefusedError (415) for any but gzip and none."""
    encoding = content_encoding.strip().lower()
    if encoding in ("", "identity"):
        return False
    if encoding in ("gzip", "x-gzip"):
        return True
    raise RefusedError(415, "Content-Encoding must be gzip or absent.")


class BodyReader:
    """One request's body: ``feed`` and ``finish`` yield the JSON in checked pieces of about ``PIECE_BYTES``.

    Both raise RefusedError: 413 as soon as the JSON is longer than ``limit`` bytes, 400 when it is not JSON or not
    the gzip that it is said to be. Several gzip members in a row are fine, as the format has it; anything else behind
    the last one is not. What has been yielded is part of a valid batch only when ``finish`` has come to its end.
    """

    def __init__(self, *, gzipped: bool, limit: int) -> None:
        self._gzipped = gzipped
        self._limit = limit
        self._length = 0
        self._member: _Decompressor | None = None
        self._begun = False
        self._check = JsonCheck()
        self._held: list[bytes] = []
        self._held_bytes = 0

    @property
    def created_ns(self) -> bytes | None:
        """The document's own ``created_ns`` as it is written there; None when it has none. Known after ``finish``."""
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
        """The last piece, after which the body is known to be complete and valid."""
        if self._gzipped and (self._member is not None or not self._begun):
            behind = ", or has something else behind its end" if self._begun else ""
            raise RefusedError(400, f"The gzip body ends too early{behind}.")
        # Checked to its end before the last piece goes out: of a short body that is wrong, nothing is ever written.
        yield from self._release(last=True)

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        more = False
        while data or more:
            if self._member is None:
                self._member = _decompressobj(_GZIP_FORMAT)
            # Never more than one byte over the limit, which is enough to know.
            room = min(PIECE_BYTES, self._limit - self._length + 1)
            try:
                inflated = self._member.decompress(data, room)
            except _GZIP_ERRORS:
                reason = "has something else behind its end" if self._begun else "is not valid gzip"
                raise RefusedError(400, f"The gzip body {reason}.") from None
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
        # Whatever the size of the members or chunks it came in: the check is slow on crumbs.
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
        except NotJsonError as error:
            raise RefusedError(400, f"The body is not JSON: {error}.") from None
        if piece:
            yield piece
