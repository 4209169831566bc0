"""Connections: how many, and for how long one may keep us waiting.

aiohttp bounds an idle connection and the size of a request's head, but neither the time that the head takes nor the
number of connections. A ``Guard`` stands between the transport and aiohttp's own protocol and adds both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

_FULL = b'{"success": false, "error": "Too many connections."}'
_FULL_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_FULL), _FULL)
)

# How long a client that is turned away may take to read why.
_TURNED_AWAY_S = 1.0


class Door:
    """Makes the protocol of each new connection (it is what ``loop.create_server`` is given) and knows them all.

    ``inner`` makes the protocol that speaks HTTP. Times in seconds.
    """

    def __init__(
        self,
        inner: Callable[[], asyncio.Protocol],
        *,
        header_timeout_s: float,
        answer_timeout_s: float,
        max_connections: int,
    ) -> None:
        self.inner = inner
        self.header_timeout_s = header_timeout_s
        self.answer_timeout_s = answer_timeout_s
        self.max_connections = max_connections
        self.guards: dict[asyncio.BaseTransport, Guard] = {}
        self.draining = False
        self._busy = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a connection that is about to be made."""
        return Guard(self)

    def begin(self, transport: asyncio.BaseTransport | None) -> Guard | None:
        """A request's head has come in on this connection: its clock stops, until ``end``."""
        self._busy += 1
        self._quiet.clear()
        guard = self.guards.get(transport) if transport is not None else None
        if guard is not None:
            guard.busy = True
            guard.deadline = None
        return guard

    def end(self, guard: Guard | None) -> None:
        """The request that ``begin`` announced has its answer."""
        self._busy -= 1
        if not self._busy:
            self._quiet.set()
        if guard is not None:
            guard.busy = False

    async def drain(self, grace_s: float) -> None:
        """Close connections that carry no request; return when no request is left, or after ``grace_s``."""
        self.draining = True
        for guard in list(self.guards.values()):
            if not guard.busy:
                guard.close()
        try:
            async with asyncio.timeout(grace_s):
                await self._quiet.wait()
        except TimeoutError:
            pass


class Guard(asyncio.Protocol):
    """One connection, which is cut at ``deadline`` (loop time; None: never); ``busy`` while its request is handled."""

    def __init__(self, door: Door) -> None:
        self.busy = False
        self.deadline: float | None = None
        self._door = door
        self._inner: asyncio.Protocol | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in, or turn it away."""
        self._transport = cast("asyncio.Transport", transport)
        if len(self._door.guards) >= self._door.max_connections:
            # Say so and let the client read it: closing at once, with its request unread, would reset the connection.
            self._transport.write(_FULL_ANSWER)
            self._transport.write_eof()
            self._arm(_TURNED_AWAY_S)
            return
        self._door.guards[transport] = self
        self._inner = self._door.inner()
        self._inner.connection_made(transport)
        self._arm(self._door.header_timeout_s)

    def data_received(self, data: bytes) -> None:
        """Pass the bytes on and, when they begin a request, start the clock of its head."""
        if self._inner is None:
            return
        # Only the first bytes of a head start its clock: bytes that drip in do not wind it up again.
        if not self.busy and self.deadline is None:
            self._arm(self._door.header_timeout_s)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Leave it to aiohttp whether the connection stays half open."""
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        """Start the clock of a client that does not read its answers. They are short: it has a stack of them."""
        self._arm(self._door.answer_timeout_s)
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The answers are being read again."""
        self.deadline = None
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.deadline = None
        if self._timer is not None:
            self._timer.cancel()
        if self._inner is not None:
            self._door.guards.pop(cast("asyncio.Transport", self._transport), None)
            self._inner.connection_lost(exc)

    def close(self) -> None:
        """End the connection once what has been written to it is sent."""
        if self._transport is not None:
            self._transport.close()

    def _arm(self, seconds: float) -> None:
        # One timer for the connection's life, which looks at the deadline when it rings: setting and clearing the
        # deadline for each request costs nothing.
        self.deadline = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self.deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self.deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self.deadline is None:
            return
        if self._loop.time() < self.deadline:
            self._timer = self._loop.call_at(self.deadline, self._ring)
        elif self._transport is not None:
            self._transport.abort()
