"""HTTP/1.1 requests, read by hand and strictly.

A peer that forgives hides the uploader's mistakes, so everything that RFC 9112 calls malformed is a
``ProtocolError`` here: bare line feeds, folded headers, two lengths, a length beside chunks, no Host.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

MAX_HEAD = 64 * 1024
READ_SIZE = 64 * 1024

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/1\.([01])")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_CHUNK_SIZE = re.compile(r"([0-9a-fA-F]{1,15})(?:;[ -~]*)?")


class ProtocolError(Exception):
    """The client sent something that is not HTTP/1.1."""


class ClientGoneError(Exception):
    """The client closed or reset the connection in the middle of a request."""


class Headers:
    """Header fields in the order of the wire; names compare without case.

    ``raw`` is the list of (name, value) as sent. ``headers["x"]`` is the only value of ``x``:
    it raises ``KeyError`` when there is none and ``ValueError`` when there are several.
    """

    def __init__(self, raw: list[tuple[str, str]]) -> None:
        self.raw = raw

    def all(self, name: str) -> list[str]:
        """Every value of `name`, in order."""
        return [value for key, value in self.raw if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The only value of `name`, or None."""
        return self[name] if self.all(name) else None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.all(name))

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        if not values:
            raise KeyError(name)
        if len(values) > 1:
            raise ValueError(f"{name} was sent {len(values)} times: {values}")
        return values[0]

    def __repr__(self) -> str:
        return f"Headers({self.raw!r})"


@dataclass(eq=False)
class Request:
    """One request as a server saw it.

    It is recorded when its head has arrived, so `body` may still grow and `complete` may still be False;
    both are final once the server goes on to the next request or the connection has ended.
    """

    method: str
    target: str  # as on the wire, with the query
    headers: Headers
    connection: int  # 1 is the first connection that the server accepted
    head: bytes  # the request line and the fields, as on the wire
    http10: bool = False
    arrived: float = field(default_factory=time.monotonic)  # when the head was there, seconds
    body: bytes = b""  # without the chunks' framing, still compressed
    received: int = 0  # body bytes so far; `body` itself is set when reading ends
    complete: bool = False  # the whole promised body was received
    answered: bool = False  # the whole answer was handed to the kernel

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The query without its question mark, or the empty text."""
        return self.target.partition("?")[2]

    @property
    def chunked(self) -> bool:
        """Whether the body came in chunks instead of with a length."""
        return "transfer-encoding" in self.headers

    @property
    def batch_id(self) -> str | None:
        """The idempotency key, ``X-Cirron-Batch-Id``."""
        return self.headers.get("x-cirron-batch-id")

    @property
    def token(self) -> str | None:
        """What follows ``Bearer`` in Authorization."""
        value = self.headers.get("authorization")
        return value.removeprefix("Bearer ") if value is not None and value.startswith("Bearer ") else None

    @property
    def decoded(self) -> bytes:
        """The body with its Content-Encoding undone.

        Raises ``OSError``, ``EOFError`` or ``zlib.error`` when it is not the gzip that it claims to be, and
        ``ValueError`` for another encoding.
        """
        encoding = self.headers.get("content-encoding")
        if encoding is None:
            return self.body
        if encoding != "gzip":
            raise ValueError(f"Content-Encoding: {encoding}")
        return gzip.decompress(self.body)


async def read_head(reader: asyncio.StreamReader, connection: int) -> Request | None:
    """The next request without its body, or None when the client closed between two requests.

    Raises ``ProtocolError``, and ``ClientGoneError`` when the head is cut. `reader`'s limit must be `MAX_HEAD`.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as cut:
        if cut.partial:
            raise ClientGoneError(f"head cut after {len(cut.partial)} bytes") from None
        return None
    except asyncio.LimitOverrunError:
        raise ProtocolError(f"head larger than {MAX_HEAD} bytes") from None
    lines = head[:-4].decode("latin-1").split("\r\n")
    start = _REQUEST_LINE.fullmatch(lines[0])
    if start is None:
        raise ProtocolError(f"request line {lines[0]!r}")
    headers = Headers([_parse_field(line) for line in lines[1:]])
    http10 = start[3] == "0"  # which knows no Host
    if len(headers.all("host")) != 1 and not (http10 and "host" not in headers):
        raise ProtocolError(f"{len(headers.all('host'))} Host fields")
    request = Request(start[1], start[2], headers, connection, head, http10=http10)
    _promised(request)
    return request


def _parse_field(line: str) -> tuple[str, str]:
    match = _FIELD.fullmatch(line)
    if match is None or any((ord(c) < 32 and c != "\t") or c == "\x7f" for c in match[2]):
        raise ProtocolError(f"header line {line!r}")
    return match[1], match[2]


def _promised(request: Request) -> int | None:
    """The body's length in bytes, or None when it comes in chunks."""
    lengths, codings = request.headers.all("content-length"), request.headers.all("transfer-encoding")
    if codings:
        if lengths or codings != ["chunked"] or request.http10:
            raise ProtocolError(f"Transfer-Encoding {codings} with Content-Length {lengths}")
        return None
    if len(lengths) > 1 or (lengths and not re.fullmatch("[0-9]{1,18}", lengths[0])):
        raise ProtocolError(f"Content-Length {lengths}")
    return int(lengths[0]) if lengths else 0


class _Body:
    """The body of `request` as it comes in."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        request: Request,
        progress: Callable[[], None],
        pause_at: int | None,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self._reader = reader
        self._request = request
        self._progress = progress
        self._pause_at = pause_at
        self._pause = pause
        self.pieces: list[bytes] = []

    async def read(self) -> None:
        """All of it."""
        length = _promised(self._request)
        if length is not None:
            await self._take(length)
            return
        while size := _chunk_size(await _line(self._reader)):
            await self._take(size)
            if await _line(self._reader):
                raise ProtocolError("a chunk longer than it said")
        while await _line(self._reader):  # trailer fields
            pass

    async def _take(self, count: int) -> None:
        while True:
            want = min(count, READ_SIZE)
            if self._pause_at is not None:
                if self._request.received >= self._pause_at:
                    self._pause_at = None
                    await self._pause()
                    continue
                want = min(want, self._pause_at - self._request.received)
            if not count:
                return
            piece = await self._reader.read(want)
            if not piece:
                raise ClientGoneError(f"body cut after {self._request.received} bytes")
            self.pieces.append(piece)
            count -= len(piece)
            self._request.received += len(piece)
            self._progress()


async def _no_pause() -> None:
    pass


async def read_body(
    reader: asyncio.StreamReader,
    request: Request,
    *,
    progress: Callable[[], None],
    pause_at: int | None = None,
    pause: Callable[[], Awaitable[None]] = _no_pause,
) -> None:
    """Read the body into `request`, calling `progress` after each piece.

    After exactly `pause_at` bytes of it, `pause` is awaited once, and nothing is read meanwhile, so that the
    client's own sending comes to a halt. Raises ``ClientGoneError`` and ``ProtocolError``; what had come is kept.
    """
    body = _Body(reader, request, progress, pause_at, pause)
    try:
        await body.read()
        request.complete = True
    finally:
        request.body = b"".join(body.pieces)
        progress()


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return (await reader.readuntil(b"\r\n"))[:-2]
    except asyncio.IncompleteReadError:
        raise ClientGoneError("cut between two chunks") from None
    except asyncio.LimitOverrunError:
        raise ProtocolError("endless line between chunks") from None


def _chunk_size(line: bytes) -> int:
    match = _CHUNK_SIZE.fullmatch(line.decode("latin-1"))
    if match is None:
        raise ProtocolError(f"chunk size {line!r}")
    return int(match[1], 16)
