"""A connection as its transport sees it: the bytes of an answer, and the connection's end.

aiohttp tells neither. When its parser fails within a body, nothing may wake the coroutine that reads it. So a protocol
of our own stands between asyncio and aiohttp.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.trsock import TransportSocket
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from cirron_spool.http import aiohttp_compat
from cirron_spool.http.aiohttp_compat import Protocol

if TYPE_CHECKING:
    import aiohttp

if sys.platform == "win32":

    def ioctl(fd: int, request: int, argument: bytearray) -> int:
        """Windows cannot be asked; nothing waits, then."""
        del fd, request, argument
        return 0

    FIONREAD = TIOCOUTQ = 0
else:
    from fcntl import ioctl
    from termios import FIONREAD, TIOCOUTQ

# The longest body that is read, in chunks of one byte, and its head. What comes behind is not kept.
_LONGEST_RECEIVED = 512 * 1024


class Connection(asyncio.Protocol):
    """Passes all events of one connection on to aiohttp's protocol, and keeps what an exchange wants to know.

    ``received``: the bytes that have come since the request was begun; None where nobody began one here.
    ``lost``: the connection is gone; ``cut_short``: within the body of an answer; ``closed_in_order``: the peer said
    that it sends no more, and nothing failed.
    """

    __slots__ = (
        "_content",
        "_had_exchange",
        "_protocol",
        "_socket",
        "_tickets_read",
        "_transport",
        "closed_in_order",
        "cut_short",
        "lost",
        "received",
    )

    def __init__(self, protocol: Protocol, transport: asyncio.Transport) -> None:
        self._protocol = protocol
        self._transport = transport
        self._socket: Any = transport.get_extra_info("socket")
        self._content: aiohttp.StreamReader | None = None
        self._had_exchange = self._tickets_read = False
        self.received: bytearray | None = None
        self.lost = self.cut_short = self.closed_in_order = False

    @classmethod
    def of(cls, protocol: Protocol | None) -> Connection | None:
        """The connection of an aiohttp protocol; None when it is lost."""
        transport = None if protocol is None else aiohttp_compat.transport_of(protocol)
        if transport is None:
            return None
        known = transport.get_protocol()
        if not isinstance(known, Connection):
            known = cls(protocol, transport)
            transport.set_protocol(known)
        return known

    # -- one exchange after another --------------------------------------------------------------------------------

    def begin(self) -> bool:
        """Begin an exchange. Returns whether the connection had one before, and so may be dead by now."""
        self.received = bytearray()
        self._content = None
        reused = self._tickets_read = self._had_exchange
        self.note_use()
        return reused

    def note_use(self) -> None:
        """Remember that the connection had an exchange."""
        if not self._had_exchange:
            self._had_exchange = True
            _used.add(self._protocol)

    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody asked for: an answer to be taken for the next request's."""
        # Before its first answer a TLS connection may hold session tickets: unread bytes say nothing then.
        ask = self._tickets_read or self._transport.get_extra_info("ssl_object") is None
        return not aiohttp_compat.has_left_over(self._protocol) and not (ask and _has_unread(self._socket))

    def read_through(self, content: aiohttp.StreamReader) -> None:
        """From now on let reading ``content`` end when the connection does."""
        self._content = content
        if self.lost or aiohttp_compat.has_failed(self._protocol):
            aiohttp_compat.end_body(content, refused=not self.lost)

    @property
    def is_open(self) -> bool:
        """Whether bytes can be sent and received."""
        return not self.lost and not self._transport.is_closing()

    @property
    def has_failed(self) -> bool:
        """Whether no more of an answer can come."""
        return not self.is_open or aiohttp_compat.has_failed(self._protocol)

    def unsent(self) -> int:
        """Bytes that were written and have not left this process."""
        try:
            return self._transport.get_write_buffer_size()
        except AttributeError:  # asyncio's TLS transport that was closed twice
            return 0

    def untaken(self) -> int:
        """Bytes that were written and that the peer's kernel has not confirmed, where the system can be asked."""
        return self.unsent() + _unacknowledged(self._socket)

    def abort(self) -> None:
        """End the connection now, whatever is still to be sent."""
        self._transport.abort()

    # -- asyncio's side --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand on what came; end the reading of a body that the parser refused."""
        if self.received is not None and len(self.received) < _LONGEST_RECEIVED:
            self.received += data
        self._protocol.data_received(data)
        if self._content is not None and aiohttp_compat.has_failed(self._protocol):
            aiohttp_compat.end_body(self._content, refused=True)

    def eof_received(self) -> bool | None:
        """Hand on the end of what the peer sends. TLS has it only when the peer says goodbye."""
        self.closed_in_order = True
        keep_open: bool | None = self._protocol.eof_received()
        return keep_open

    def connection_lost(self, error: Exception | None) -> None:
        """Hand on the end, and let it be the end of what is still read."""
        if error is not None:
            self._read_rest()
        self.lost = True
        self.closed_in_order = self.closed_in_order and error is None
        self.cut_short = aiohttp_compat.has_unfinished_body(self._protocol)
        self._protocol.connection_lost(error)
        if self._content is not None:
            aiohttp_compat.end_body(self._content, refused=False)

    def _read_rest(self) -> None:
        """Hand on what had come before a write failed: a server that refuses a body answers, and closes."""
        # Behind TLS the socket is closed by now. A number that an event loop in C remembers may be another file's.
        if isinstance(self._socket, TransportSocket) and sys.platform != "win32":
            with suppress(OSError):
                while self.received is not None and len(self.received) < _LONGEST_RECEIVED:
                    data = os.read(self._socket.fileno(), 64 * 1024)
                    if not data:
                        break
                    self.data_received(data)

    def pause_writing(self) -> None:
        """Hand on that the transport holds enough."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Hand on that the transport wants more."""
        self._protocol.resume_writing()


# aiohttp's protocols of used connections: a lost one has no transport any more that would lead to its Connection.
_used: WeakSet[Protocol] = WeakSet()


def was_used(protocol: Protocol | None) -> bool:
    """Whether the connection of ``protocol``, lost or not, had an exchange."""
    return protocol is not None and protocol in _used


def _has_unread(sock: Any) -> bool:
    """Whether bytes wait unread in the kernel. The end of the connection is not seen: it shows by itself."""
    try:
        return sock is not None and _ask(sock, FIONREAD) > 0
    except (OSError, ValueError):  # closed meanwhile: its number is -1
        return True


def _unacknowledged(sock: Any) -> int:
    """Bytes in the kernel's send queue that the peer's kernel has not confirmed; 0 where that cannot be asked."""
    if sys.platform != "linux" or sock is None:
        return 0
    try:
        return _ask(sock, TIOCOUTQ)
    except (OSError, ValueError):  # closed meanwhile: its number is -1
        return 0


def _ask(sock: Any, request: int) -> int:
    """The number that the kernel answers ``request`` with. Raises OSError, or ValueError for a closed socket."""
    # Of bytes ioctl() finds out by an error, raised and dropped inside, that it cannot write into them.
    answer = bytearray(4)
    ioctl(sock.fileno(), request, answer)
    return int.from_bytes(answer, sys.byteorder)
