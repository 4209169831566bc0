"""A request body on its way out, and the watch over silence while it goes and its answer comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NamedTuple

from cirron_spool.errors import NoThreadError
from cirron_spool.http.aiohttp_compat import protocol_of_writer
from cirron_spool.http.connection import Connection, was_used

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

# One write to the connection, and what is written before the other tasks of the loop have a turn: some 200 µs of
# copying, and enough to keep a fast link full. A raw body of 70 MB in one write stalled the loop for 35 ms.
_WRITE_BYTES = 256 * 1024
# The watch looks this many times per silence limit, so that a limit is overrun by an eighth at most; and often enough
# for a progress bar that moves.
_LOOKS_PER_LIMIT = 8
_SLOWEST_LOOK_S = 0.25

Stream = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
Progress = Callable[[int], None]


class Upload(NamedTuple):
    """A request body: ``parts`` held in memory, or a ``stream`` of parts to be opened anew for each attempt.

    ``length`` in bytes becomes Content-Length; None sends the body chunked. ``on_sent`` is called when the body has
    been written to the connection. ``progress`` is called with the bytes that the peer has confirmed in this attempt,
    at most four times a second and when the number has grown. Neither may raise.
    """

    parts: tuple[bytes, ...] = ()
    length: int | None = 0
    stream: Stream | None = None
    on_sent: Callable[[], None] | None = None
    progress: Progress | None = None


class _UnusableConnectionError(OSError):
    """Nothing was sent on a connection: something had arrived on it unasked, or a fresh one is wanted."""


class Exchange:
    """One request and its answer, as the watch over silence sees it; without a body to send.

    ``connection`` is known once it has been had. ``written`` are the bytes of a body that it was given, in whole
    writes. ``last_progress`` is when the exchange began, or bytes last moved on
    their way out, by time.monotonic(). ``timed_out``: nothing moved for so long that the watch has ended it.
    """

    __slots__ = ("connection", "last_progress", "timed_out", "timeout", "written")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.last_progress = 0.0
        self.written = 0
        self.timed_out = False
        self.timeout: asyncio.Timeout | None = None

    @property
    def fully_sent(self) -> bool:
        """Whether the whole request left this process before now."""
        return True

    def update_progress(self, now: float) -> None:
        """Notice bytes that the peer has taken since the last look."""

    async def closed(self) -> None:
        """Wait until nothing of the request is in use any more."""


class Body(Exchange):
    """An Upload on its way, once: written in bounded parts.

    ``length`` is the upload's; with ``fresh`` it goes out on no connection that was used before. ``reused``: the
    connection had waited in a pool; ``refused``: nothing was sent on it. ``body_error`` is the upload's own.
    """

    # One is made for each batch, and looked at some thirty times.
    __slots__ = (
        "_acked",
        "_fresh",
        "_since_turn",
        "_upload",
        "body_error",
        "length",
        "refused",
        "reused",
        "sent",
        "streaming",
    )

    def __init__(self, upload: Upload, *, fresh: bool = False) -> None:
        super().__init__()
        self._upload = upload
        self._fresh = fresh
        self.length = upload.length
        self.body_error: OSError | None = None
        self.streaming: asyncio.Future[None] | None = None
        self.sent = self.reused = self.refused = False
        self._since_turn = 0
        self._acked: int | None = None

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body; raises OSError before the first byte when the connection is no use."""
        # From here on: how long the connection took has a limit of its own.
        self.last_progress = time.monotonic()
        self._take_connection(writer)
        try:
            await self._write_all(writer)
        except ConnectionError:
            # An early answer is read when the connection's end is told, which is the loop's next turn.
            await asyncio.sleep(0)
            raise
        self.sent = True
        if self._upload.on_sent is not None:
            self._upload.on_sent()

    async def _write_all(self, writer: AbstractStreamWriter) -> None:
        parts, length, stream, *_ = self._upload
        if stream is not None:
            await self._write_stream(writer, stream)
        elif length is not None and length <= _WRITE_BYTES:  # as most: nobody's turn has to come meanwhile
            for part in parts:
                await writer.write(part)
            self.written = length
            self.last_progress = time.monotonic()
        else:
            for part in parts:
                await self._write_part(writer, part)

    def _take_connection(self, writer: AbstractStreamWriter) -> None:
        protocol = protocol_of_writer(writer)
        connection = self.connection = Connection.of(protocol)
        self.reused = was_used(protocol) if connection is None else connection.begin()
        if connection is None or not connection.is_open:
            raise ConnectionResetError
        if (self._fresh and self.reused) or not connection.is_quiet():
            self.refused = True
            raise _UnusableConnectionError

    async def _write_stream(self, writer: AbstractStreamWriter, stream: Stream) -> None:
        self.streaming = asyncio.get_running_loop().create_future()
        try:
            async with stream() as parts:
                while (part := await self._next_part(parts)) is not None:
                    await self._write_part(writer, part)
        except NoThreadError as error:
            self.body_error = error
            raise
        finally:
            self.streaming.set_result(None)
        if self.connection is None or not self.connection.is_open:
            # Else aiohttp finds it out when it writes the last chunk's end, in a task whose exception nobody retrieves.
            raise ConnectionResetError

    async def _next_part(self, parts: AsyncIterator[bytes]) -> bytes | None:
        try:
            return await anext(parts)
        except StopAsyncIteration:
            return None
        except OSError as error:  # the disk's, not the network's: kept apart from what aiohttp makes of it
            self.body_error = error
            raise

    async def _write_part(self, writer: AbstractStreamWriter, part: bytes) -> None:
        for piece in (part,) if len(part) <= _WRITE_BYTES else _pieces(part):
            await writer.write(piece)
            size = len(piece)
            self.written += size
            self.last_progress = time.monotonic()
            self._since_turn += size
            if self._since_turn >= _WRITE_BYTES:
                # A kernel with room takes megabytes without ever making us wait: the others have their turn.
                self._since_turn = 0
                await asyncio.sleep(0)

    # -- for the watch, and for who judges the answer ------------------------------------------------------------------

    def update_progress(self, now: float) -> None:
        """Notice bytes that the peer has taken since the last look."""
        if self.connection is None or not self.connection.is_open:
            return
        acked = self.written - self.connection.untaken()
        if acked == self._acked:
            return
        # The first look only begins: until then the limit runs from the write itself. What is in the midst of being
        # written does not count yet, so this may be below zero.
        if self._acked is not None:
            self.last_progress = now
        self._acked = acked
        if acked > 0 and self._upload.progress is not None:
            self._upload.progress(acked)

    async def closed(self) -> None:
        """Wait until the body's stream is closed: aiohttp cancels its writer, but does not wait for it."""
        if self.streaming is not None:
            await self.streaming

    @property
    def fully_sent(self) -> bool:
        """Whether the whole request left this process before now."""
        return self.sent and self.connection is not None and self.connection.unsent() == 0

    @property
    def died_idle(self) -> bool:
        """Whether the connection had waited in a pool and gave no byte of an answer: the peer may have closed it."""
        return self.reused and (self.connection is None or not self.connection.received)


def _pieces(part: bytes) -> Iterator[memoryview]:
    view = memoryview(part)
    for start in range(0, len(part), _WRITE_BYTES):
        yield view[start : start + _WRITE_BYTES]


class Watch:
    """Ends exchanges that are silent for ``limit_s`` seconds: SPEC section 4's ``timeout``."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._watched: set[Exchange] = set()
        self._next_look: asyncio.TimerHandle | None = None

    def begin(self, exchange: Exchange, timeout: asyncio.Timeout) -> None:
        """Watch ``exchange`` until :meth:`end`, which must come before ``timeout``, around all of it, is left."""
        exchange.timeout = timeout
        exchange.last_progress = time.monotonic()
        self._watched.add(exchange)
        if self._next_look is None:
            self._look()

    def end(self, exchange: Exchange) -> None:
        """Watch ``exchange`` no longer."""
        self._watched.discard(exchange)

    def close(self) -> None:
        """Look no more."""
        if self._next_look is not None:
            self._next_look.cancel()

    def _look(self) -> None:
        # One timer for all of them: one each would cost a fast link more than the watching does. It is set first, so
        # that the watch goes on whatever a look meets.
        pause = min(self._limit_s / _LOOKS_PER_LIMIT, _SLOWEST_LOOK_S)
        self._next_look = self._loop.call_later(pause, self._look)
        now = time.monotonic()
        for exchange in tuple(self._watched):
            exchange.update_progress(now)
            connection = exchange.connection
            if now - exchange.last_progress >= self._limit_s and not exchange.timed_out:
                exchange.timed_out = True
                # It ends the coroutine itself, so that there is no state of a connection in which it would not.
                if exchange.timeout is not None:
                    exchange.timeout.reschedule(self._loop.time())
            if connection is not None and (exchange.timed_out or connection.has_failed):
                # Closing in order would wait for the peer to take what was written, and for its TLS goodbye.
                connection.abort()
