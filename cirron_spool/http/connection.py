"""A protocol between asyncio's transport and aiohttp's protocol. It records the bytes and the end of a connection.

aiohttp reports neither. If its parser fails within a body, the reading coroutine would not wake up.
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
        """Leave ``argument`` at zero: Windows has no such request."""
        del fd, request, argument
        return 0

    FIONREAD = TIOCOUTQ = 0
else:
    from fcntl import ioctl
    from termios import FIONREAD, TIOCOUTQ

# Room for the head and the longest body, in chunks of one byte. Later bytes are not recorded.
_LONGEST_RECORD = 512 * 1024

# aiohttp's protocols of connections that had an exchange. After a loss, the Connection cannot be found.
_protocols_with_exchange: WeakSet[Protocol] = WeakSet()


def had_exchange(protocol: Protocol | None) -> bool:
    """Whether the connection of ``protocol`` had an exchange. It may be lost."""
    return protocol is not None and protocol in _protocols_with_exchange


class Connection(asyncio.Protocol):
    """Forwards all events of one connection to aiohttp's protocol, and records the state of the exchange.

    ``received`` has the bytes since the start of the request, or None before the first upload. ``lost`` is True after
    the end of the connection. ``cut_short`` is True if it ended within the body of an answer. ``closed_in_order`` is
    True if the peer closed the connection without an error.
    """

    __slots__ = (
        "_content",
        "_had_exchange",
        "_is_tls",
        "_protocol",
        "_reused",
        "_socket",
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
        self._is_tls = transport.get_extra_info("ssl_object") is not None
        self._content: aiohttp.StreamReader | None = None
        self._had_exchange = self._reused = False
        self.received: bytearray | None = None
        self.lost = self.cut_short = self.closed_in_order = False

    @classmethod
    def of(cls, protocol: Protocol | None) -> Connection | None:
        """The connection of an aiohttp protocol; None when it is lost."""
        transport = None if protocol is None else aiohttp_compat.transport_of(protocol)
        if transport is None:
            return None
        installed = transport.get_protocol()
        if not isinstance(installed, Connection):
            installed = cls(protocol, transport)
            transport.set_protocol(installed)
        return installed

    # -- for an exchange ---------------------------------------------------------------------------------------

    def begin_exchange(self) -> bool:
        """Start to record. True if the connection had an exchange before, and may be stale."""
        self.received = bytearray()
        self._content = None
        self._reused = self._had_exchange
        if not self._reused:
            self.mark_used()
        return self._reused

    def mark_used(self) -> None:
        """Record that the connection had an exchange."""
        self._had_exchange = True
        _protocols_with_exchange.add(self._protocol)

    def has_unsolicited_bytes(self) -> bool:
        """Whether bytes arrived before the request. They would be read as its answer."""
        if aiohttp_compat.has_left_over(self._protocol):
            return True
        # Unread bytes of a new TLS connection may be session tickets.
        return (self._reused or not self._is_tls) and _has_unread_bytes(self._socket)

    def end_reading_at_loss(self, content: aiohttp.StreamReader) -> None:
        """End reads of ``content`` when the connection ends."""
        self._content = content
        if self.lost or aiohttp_compat.has_failed(self._protocol):
            aiohttp_compat.end_body(content, refused=not self.lost)

    @property
    def is_open(self) -> bool:
        """Whether bytes can be sent and received."""
        return not self.lost and not self._transport.is_closing()

    @property
    def has_failed(self) -> bool:
        """Whether the answer cannot arrive any more."""
        return not self.is_open or aiohttp_compat.has_failed(self._protocol)

    def unsent_bytes(self) -> int:
        """Written bytes that are still in this process."""
        try:
            return self._transport.get_write_buffer_size()
        except AttributeError:  # asyncio's TLS transport after a second close
            return 0

    def unconfirmed_bytes(self) -> int:
        """Written bytes without a TCP acknowledgement of the peer, if the system reports it."""
        return self.unsent_bytes() + _unacknowledged_bytes(self._socket)

    def abort(self) -> None:
        """End the connection now, and drop unsent bytes."""
        self._transport.abort()

    # -- asyncio's events --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Record and forward ``data``. End the read of a body that the parser refused."""
        if self.received is not None and len(self.received) < _LONGEST_RECORD:
            self.received += data
        self._protocol.data_received(data)
        if self._content is not None and aiohttp_compat.has_failed(self._protocol):
            aiohttp_compat.end_body(self._content, refused=True)

    def eof_received(self) -> bool | None:
        """Forward the end of the stream. With TLS, it comes only after the peer closed its session."""
        self.closed_in_order = True
        keep_open: bool | None = self._protocol.eof_received()
        return keep_open

    def connection_lost(self, error: Exception | None) -> None:
        """Forward the loss of the connection, and end the read of an unfinished body."""
        if error is not None:
            self._read_rest()
        self.lost = True
        self.closed_in_order = self.closed_in_order and error is None
        self.cut_short = aiohttp_compat.has_unfinished_body(self._protocol)
        self._protocol.connection_lost(error)
        if self._content is not None:
            aiohttp_compat.end_body(self._content, refused=False)

    def _read_rest(self) -> None:
        """Forward the bytes before a failed write: a server that refuses a body answers, then closes."""
        # Not with TLS: the socket is closed, and another file may have its descriptor.
        if isinstance(self._socket, TransportSocket) and sys.platform != "win32":
            with suppress(OSError):
                while self.received is not None and len(self.received) < _LONGEST_RECORD:
                    data = os.read(self._socket.fileno(), 64 * 1024)
                    if not data:
                        break
                    self.data_received(data)

    def pause_writing(self) -> None:
        """Forward that the transport's buffer is full."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Forward that the transport's buffer has room."""
        self._protocol.resume_writing()


def _has_unread_bytes(sock: Any) -> bool:
    """Whether the kernel has unread bytes. The end of the stream does not count."""
    try:
        return sock is not None and _ask_kernel(sock, FIONREAD) > 0
    except (OSError, ValueError):  # the socket is closed, its number is -1
        return True


def _unacknowledged_bytes(sock: Any) -> int:
    """Bytes in the kernel's send queue without a TCP acknowledgement; 0 if the system has no count."""
    if sys.platform != "linux" or sock is None:
        return 0
    try:
        return _ask_kernel(sock, TIOCOUTQ)
    except (OSError, ValueError):  # the socket is closed, its number is -1
        return 0


def _ask_kernel(sock: Any, request: int) -> int:
    """The number that ``request`` returns. Raises OSError, or ValueError for a closed socket."""
    # ioctl() writes into a bytearray in place. With bytes it first fails internally.
    number = bytearray(4)
    ioctl(sock.fileno(), request, number)
    return int.from_bytes(number, sys.byteorder)
