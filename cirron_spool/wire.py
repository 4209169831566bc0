"""A request body on its way out, and the watch over silence while it goes and its answer comes."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

if sys.platform == "win32":

    def ioctl(fd: int, request: int, argument: bytearray) -> int:
        """Windows cannot be asked; nothing waits, then."""
        del fd, request, argument
        return 0

    FIONREAD = TIOCOUTQ = 0
else:
    from fcntl import ioctl
    from termios import FIONREAD, TIOCOUTQ

# One write to the connection, and what is written before the other tasks of the loop have a turn: some 200 µs of
# copying, and enough to keep a fast link full. A raw body of 70 MB in one write stalled the loop for 35 ms.
_WRITE_BYTES = 256 * 1024
# The watch looks this many times per silence limit, so that a limit is overrun by an eighth at most; and often enough
# for a progress bar that moves.
_LOOKS_PER_LIMIT = 8
_SLOWEST_LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection that has been used: the future of its end, and its socket."""

    closed: asyncio.Future[None]
    socket: Any


# Each until it is closed.
Connections = dict[asyncio.WriteTransport, Connection]
Stream = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
# Called when a body held in memory is on its way: until its answer comes the event loop has nothing else to do for it.
Moment = Callable[[], None]
Progress = Callable[[int], None]


class Upload(NamedTuple):
    """A request body: ``parts`` held in memory, or a ``stream`` of parts to be opened anew for each attempt.

    ``length`` in bytes becomes Content-Length; None sends it chunked. ``meanwhile`` is told when ``parts`` have been
    written; it must not raise. ``progress`` is called at most four times a second with the bytes that the peer has
    taken in this attempt, when they have become more; it must not raise.
    """

    parts: tuple[bytes, ...] = ()
    length: int | None = 0
    stream: Stream | None = None
    meanwhile: Moment | None = None
    progress: Progress | None = None


class _StaleConnectionError(OSError):
    """Something had arrived on a kept-alive connection before we asked anything: not an answer to us."""


class Body:
    """An Upload on its way, once: written in bounded parts, and what the watch wants to know of it meanwhile.

    ``length`` is the upload's. ``written`` are the bytes that the connection has taken, in whole writes;
    ``last_progress`` is when that or the peer last took some, by time.monotonic().
    """

    # One is made for each batch, and looked at some thirty times.
    __slots__ = (
        "_acked",
        "_connections",
        "_since_turn",
        "_upload",
        "body_error",
        "closed",
        "last_progress",
        "length",
        "sent",
        "stale",
        "streaming",
        "timed_out",
        "transport",
        "written",
    )

    def __init__(self, upload: Upload, connections: Connections) -> None:
        self._upload = upload
        self._connections = connections
        self.length = upload.length
        self.transport: asyncio.WriteTransport | None = None
        self.closed: asyncio.Future[None] | None = None
        self.body_error: OSError | None = None
        self.streaming: asyncio.Future[None] | None = None
        self.sent = self.stale = self.timed_out = False
        self.written = self._since_turn = 0
        self._acked: int | None = None
        self.last_progress = 0.0

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body; raises _StaleConnectionError before the first byte when the connection is not quiet."""
        # From here on: how long the connection took has a limit of its own.
        self.last_progress = time.monotonic()
        self.transport = writer.transport
        self._refuse_stale(writer)
        parts, length, stream, meanwhile, _ = self._upload
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
        self.sent = True
        if meanwhile is not None:
            meanwhile()

    async def _write_stream(self, writer: AbstractStreamWriter, stream: Stream) -> None:
        self.streaming = asyncio.get_running_loop().create_future()
        try:
            async with stream() as parts:
                while (part := await self._next_part(parts)) is not None:
                    await self._write_part(writer, part)
        finally:
            self.streaming.set_result(None)
        if writer.transport is None or writer.transport.is_closing():
            # Else aiohttp finds it out when it writes the last chunk's end, in a task whose exception nobody retrieves.
            raise ConnectionResetError("the connection was closed while the body was sent")

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

    def _refuse_stale(self, writer: AbstractStreamWriter) -> None:
        transport = writer.transport
        protocol: Any = getattr(writer, "protocol", None)
        if transport is None or protocol is None:
            return  # aiohttp says so itself in a moment
        known = self._connections.get(transport)
        ask = True
        if known is None:
            known = self._connections[transport] = Connection(
                protocol.closed, transport.get_extra_info("socket")
            )
            known.closed.add_done_callback(partial(_forget, self._connections, transport))
            # A fresh TLS connection may hold session tickets: it is asked for unread bytes once it was used.
            ask = transport.get_extra_info("ssl_object") is None
        self.closed = known.closed
        # An answer left over from the request before, already parsed, which aiohttp would match to this one; or one
        # that the event loop has not read yet.
        if protocol.should_close or (ask and _unread(known.socket)):
            self.stale = True
            raise _StaleConnectionError("an answer was left over on the connection")

    # -- for the watch, and for who judges the answer ------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Notice bytes that the peer has taken since the last look."""
        if self.transport is not None:
            acked = self.written - self.transport.get_write_buffer_size() - _unacknowledged(self.transport)
            if acked != self._acked:
                # The first look only begins: until then the limit runs from the write itself. What is in the midst of
                # being written does not count yet, so this may be below zero.
                if self._acked is not None:
                    self.last_progress = now
                self._acked = acked
                if acked > 0 and self._upload.progress is not None:
                    self._upload.progress(acked)

    async def left(self) -> None:
        """Wait until the body's stream is closed: aiohttp cancels its writer, but does not wait for it."""
        if self.streaming is not None:
            await self.streaming

    @property
    def reset(self) -> bool:
        """Whether the connection ended with an error, which aiohttp takes for the orderly end of an answer."""
        return self.closed is not None and self.closed.done() and self.closed.exception() is not None

    @property
    def all_taken(self) -> bool:
        """Whether the whole body left this process before now."""
        return self.sent and (self.transport is None or self.transport.get_write_buffer_size() == 0)


def _pieces(part: bytes) -> Iterator[memoryview]:
    view = memoryview(part)
    for start in range(0, len(part), _WRITE_BYTES):
        yield view[start : start + _WRITE_BYTES]


def _forget(
    connections: Connections, transport: asyncio.WriteTransport, closed: asyncio.Future[None]
) -> None:
    """A connection was closed. Retrieves how it ended, so that nobody is told it never was."""
    connections.pop(transport, None)
    if not closed.cancelled():
        closed.exception()


class Watch:
    """Cuts uploads that are silent for ``limit_s`` seconds: SPEC section 4's ``timeout``."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._watched: set[Body] = set()
        self._next_look: asyncio.TimerHandle | None = None

    def begin(self, body: Body) -> None:
        """Watch ``body`` until :meth:`end`."""
        self._watched.add(body)
        if self._next_look is None:
            self._look()

    def end(self, body: Body) -> None:
        """Watch ``body`` no longer."""
        self._watched.discard(body)

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
        for body in self._watched:
            body.look(now)
            if body.transport is not None and now - body.last_progress >= self._limit_s:
                body.timed_out = True
                body.transport.abort()


def _unread(sock: Any) -> bool:
    """Whether bytes wait unread in the kernel. The end of the connection is not seen: it shows by itself."""
    try:
        return sock is not None and _ask(sock, FIONREAD) > 0
    except (OSError, ValueError):  # closed meanwhile: its number is -1
        return True


def _unacknowledged(transport: asyncio.WriteTransport) -> int:
    """Bytes in the kernel's send queue that the peer's kernel has not confirmed; 0 where that cannot be asked."""
    if sys.platform != "linux":
        return 0
    sock = transport.get_extra_info("socket")
    try:
        return _ask(sock, TIOCOUTQ)
    except (OSError, ValueError, AttributeError):  # closed meanwhile: its number is -1
        return 0


def _ask(sock: Any, request: int) -> int:
    """The number that the kernel answers ``request`` with. Raises OSError, or ValueError for a closed socket."""
    # Of bytes ioctl() finds out by an error, raised and dropped inside, that it cannot write into them.
    answer = bytearray(4)
    ioctl(sock.fileno(), request, answer)
    return int.from_bytes(answer, sys.byteorder)
