"""The body of an upload, written in bounded pieces to a checked connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NamedTuple

import aiohttp

from cirron_spool.errors import NoThreadError
from cirron_spool.http.aiohttp_compat import protocol_of_writer
from cirron_spool.http.bandwidth import Bandwidth
from cirron_spool.http.connection import Connection, had_exchange
from cirron_spool.http.watchdog import Exchange

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

# The largest single write, and the bytes between two yields to the event loop.
# Larger writes delay the event loop, smaller ones do not fill a fast link.
_WRITE_BYTES = 256 * 1024

Stream = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
Progress = Callable[[int], None]


class Upload(NamedTuple):
    """A request body: ``parts`` in memory, or a ``stream`` that each attempt opens again.

    ``length`` in bytes becomes Content-Length; None sends the body chunked. ``on_sent`` is called after the write of
    the body. ``progress`` gets the bytes that the peer confirmed in this attempt, up to four times a second, when the
    number changes. Neither may raise. ``before_repeat`` is called before the body is sent again on another connection,
    and may raise.
    """

    parts: tuple[bytes, ...] = ()
    length: int | None = 0
    stream: Stream | None = None
    on_sent: Callable[[], None] | None = None
    progress: Progress | None = None
    before_repeat: Callable[[], Awaitable[None]] | None = None


class _UnusableConnectionError(OSError):
    """The connection has unsolicited bytes, or is not new as required. Nothing was sent."""


class UploadBody(Exchange, aiohttp.Payload):
    """The exchange of one Upload, and the payload that aiohttp writes.

    ``require_new`` rejects a connection that had an exchange. ``once`` allows only one write: aiohttp repeats a PUT on
    its own, outside the retry schedule. ``connection_reused`` is True if the connection had an exchange before.
    ``connection_rejected`` is True if nothing was sent on it. ``stream_error`` is the error of the upload's stream.
    ``bandwidth`` limits the rate of the pieces.
    """

    connection_reused = False
    connection_rejected = False
    stream_error: OSError | None = None
    _begun = False
    _sent = False
    _stream_closed: asyncio.Future[None] | None = None
    _written_since_yield = 0
    _confirmed: int | None = None
    _is_held_back = False  # by the bandwidth limit, not by the peer
    _may_pass = 0  # granted bytes that are not written yet

    def __init__(
        self,
        upload: Upload,
        *,
        require_new: bool = False,
        once: bool = False,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        super().__init__(None, content_type="application/json")
        self._upload = upload
        self._bandwidth = bandwidth
        self._piece_bytes = _WRITE_BYTES if bandwidth is None else min(_WRITE_BYTES, bandwidth.piece_bytes)
        self._require_new = require_new
        self._once = once

    # -- the payload -------------------------------------------------------------------------------------------

    @property
    def size(self) -> int | None:
        """The length in bytes, which becomes Content-Length; None makes aiohttp send chunks."""
        return self._upload.length

    @property
    def autoclose(self) -> bool:
        """True: aiohttp need not close the payload."""
        return True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002  # aiohttp's signature
        """Not supported: a body may be a stream."""
        raise TypeError("an upload has no text form")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body; see :meth:`write_with_length`."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self,
        writer: AbstractStreamWriter,
        content_length: int | None,  # noqa: ARG002  # aiohttp's signature
    ) -> None:
        """Write the body. Raises OSError before the first byte if the connection or the body cannot be used."""
        if self._begun and self._once:
            raise ConnectionResetError
        self._begun = True
        self._sent = False
        # The connection set-up does not count as a stall of the upload.
        self.last_progress = time.monotonic()
        self.written = 0
        if self._bandwidth is not None:
            # Before the check of the connection: its state may change during the wait.
            length = self._upload.length
            await self._hold_back(
                self._bandwidth, self._piece_bytes if length is None else min(self._piece_bytes, length)
            )
        self._claim_connection(writer)
        try:
            await self._write_all(writer)
        except ConnectionError:
            # The next iteration of the event loop reads an early answer that arrived before the end.
            await asyncio.sleep(0)
            raise
        self._sent = True
        if self._upload.on_sent is not None:
            self._upload.on_sent()

    def _claim_connection(self, writer: AbstractStreamWriter) -> None:
        protocol = protocol_of_writer(writer)
        connection = self.connection = Connection.of(protocol)
        self.connection_reused = had_exchange(protocol) if connection is None else connection.begin_exchange()
        if connection is None or not connection.is_open:
            raise ConnectionResetError
        if (self._require_new and self.connection_reused) or connection.has_unsolicited_bytes():
            self.connection_rejected = True
            raise _UnusableConnectionError

    async def _write_all(self, writer: AbstractStreamWriter) -> None:
        parts, length, stream, *_ = self._upload
        if stream is not None:
            await self._write_stream(writer, stream)
        elif length is not None and length <= self._piece_bytes:  # too short to delay other tasks
            for part in parts:
                await writer.write(part)
            self.written = length
            self.last_progress = time.monotonic()
        else:
            for part in parts:
                await self._write_part(writer, part)

    async def _write_stream(self, writer: AbstractStreamWriter, stream: Stream) -> None:
        self._stream_closed = asyncio.get_running_loop().create_future()
        try:
            async with stream() as parts:
                while not self._sent and (part := await self._next_part(parts)) is not None:
                    await self._write_part(writer, part)
        except NoThreadError as error:
            self.stream_error = error
            raise
        finally:
            self._stream_closed.set_result(None)
        if self.connection is None or not self.connection.is_open:
            # Otherwise aiohttp fails on the last chunk, in a task whose exception nobody retrieves.
            raise ConnectionResetError

    async def _next_part(self, parts: AsyncIterator[bytes]) -> bytes | None:
        try:
            return await anext(parts)
        except StopAsyncIteration:
            return None
        except OSError as error:  # an error of the disk, which aiohttp would report as one of the network
            self.stream_error = error
            raise

    async def _write_part(self, writer: AbstractStreamWriter, part: bytes) -> None:
        for piece in (part,) if len(part) <= self._piece_bytes else _pieces(part, self._piece_bytes):
            size = len(piece)
            if self._bandwidth is not None:
                if size > self._may_pass:
                    await self._hold_back(self._bandwidth, size - self._may_pass)
                self._may_pass -= size
            # The answer to a body of known length may arrive before this task runs again.
            self._sent = self.written + size == self._upload.length
            await writer.write(piece)
            self.written += size
            # With a limit, the kernel can buffer many small pieces. Only the peer's confirmation counts as progress.
            if self._bandwidth is None:
                self.last_progress = time.monotonic()
            self._written_since_yield += size
            if self._written_since_yield >= _WRITE_BYTES:
                # A kernel with free buffers accepts megabytes without a wait.
                self._written_since_yield = 0
                await asyncio.sleep(0)

    async def _hold_back(self, bandwidth: Bandwidth, size: int) -> None:
        """Wait until the bandwidth limit grants ``size`` more bytes."""
        self._is_held_back = True
        try:
            await bandwidth.take(size)
        finally:
            self._is_held_back = False
        self._may_pass += size
        self._excuse_silence(time.monotonic())

    def _excuse_silence(self, now: float) -> None:
        """Restart the stall timeout if the peer had nothing to confirm."""
        if self.connection is None or self.connection.unconfirmed_bytes() == 0:
            self.last_progress = now

    # -- the exchange ------------------------------------------------------------------------------------------

    def update_progress(self, now: float) -> None:
        """Record the bytes that the peer has confirmed since the last call."""
        if self._is_held_back:
            self._excuse_silence(now)
        if self.connection is None or not self.connection.is_open:
            return
        # Negative during a write, since `written` does not count it yet.
        confirmed = self.written - self.connection.unconfirmed_bytes()
        if confirmed == self._confirmed:
            return
        # The first call only sets the starting point. Until then the timeout runs from the write.
        if self._confirmed is not None:
            self.last_progress = now
        self._confirmed = confirmed
        if confirmed > 0 and self._upload.progress is not None:
            self._upload.progress(confirmed)

    async def wait_until_stream_closed(self) -> None:
        """Wait until the upload's stream is closed. aiohttp cancels the writer, but does not wait for it."""
        if self._stream_closed is not None:
            await self._stream_closed

    @property
    def has_open_stream(self) -> bool:
        """Whether the upload's stream was opened and is not closed."""
        return self._stream_closed is not None and not self._stream_closed.done()

    @property
    def fully_sent(self) -> bool:
        """Whether the whole request has left this process."""
        return self._sent and self.connection is not None and self.connection.unsent_bytes() == 0

    @property
    def connection_was_stale(self) -> bool:
        """Whether no byte of an answer arrived on a reused connection. The peer may have closed it earlier."""
        return self.connection_reused and (self.connection is None or not self.connection.received)


def _pieces(part: bytes, size: int) -> Iterator[memoryview]:
    view = memoryview(part)
    for start in range(0, len(part), size):
        yield view[start : start + size]
