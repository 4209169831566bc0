"""Connections: each is one task that reads a request, has it answered, and reads the next.

Every wait has a limit, so no state of a connection can last for ever:

* The first request: ``header_timeout_s``. Then the connection is closed.
* The next request: ``keepalive_s``. Then the connection is closed.
* The rest of a head: ``header_timeout_s``, also if bytes drip in. Then 408, and closed.
* More of a body: ``body_timeout_s``. Then 408, and closed.
* The store: only the disk limits it.
* The client's reading: ``body_timeout_s``. Then the connection is aborted.
* The end of the client's sending: ``_LINGER_S``. Then the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator

from cirron_spool.receiver import http1
from cirron_spool.receiver.answers import Answer, RefusedError
from cirron_spool.receiver.http1 import Framing, Head
from cirron_spool.receiver.options import ReceiverOptions
from cirron_spool.text import reason

_READ_BYTES = 64 << 10

# Seconds for a client that still sends to read a refusal. A reset would discard the answer.
_LINGER_S = 2.0

# Connections over the limit that get a 503 at the same time. Further ones wait in the system's queue.
_REJECTED_AT_ONCE = 32

_TOO_MANY = RefusedError(503, "Too many connections.", {"Retry-After": "1"})

# Descriptors for all but connections and uploads: the store, its threads, the event loop, the streams.
_OTHER_DESCRIPTORS = 32

# Pause after the system could not open a connection.
_RECOVERY_S = 1.0


class Request:
    """A request as it is read: its ``head``, and its body by ``read``.

    ``peer`` is the address and port of the client, ``address`` is without the port. ``local`` is the address and port
    that the client has connected to.
    """

    def __init__(self, connection: _Connection, head: Head) -> None:
        self.head = head
        self.peer = connection.peer
        self.address = connection.address
        self.local = connection.local
        self._connection = connection
        self._framing = Framing(head.length)
        self._waits_for_continue = head.waits_for_continue

    @property
    def is_read(self) -> bool:
        """Whether the body has been read to its end."""
        return self._framing.done

    async def read(self) -> bytes:
        """The next bytes of the body, empty at its end.

        Raises RefusedError: 408 for a stalled body, 400 for a cut body or invalid framing.
        """
        if self._waits_for_continue:
            self._waits_for_continue = False
            await self._connection.write(http1.CONTINUE)
        received = self._connection.received
        while not self._framing.done:
            body = self._framing.take(received)
            if body or self._framing.done:
                return body
            seconds = self._connection.options.body_timeout_s
            try:
                async with asyncio.timeout(seconds):
                    more = await self._connection.read()
            except TimeoutError:
                raise RefusedError(408, f"The body stalled for {seconds:g} seconds.") from None
            except OSError:
                more = b""
            if not more:
                raise RefusedError(400, "The body is cut off.")
        return b""

    async def read_all(self, limit: int) -> bytes:
        """The whole body. Raises RefusedError: 413 for more than ``limit`` bytes, and the errors of ``read``."""
        body = bytearray()
        while chunk := await self.read():
            body += chunk
            if len(body) > limit:
                raise RefusedError(413, f"The request is larger than {limit} bytes.")
        return bytes(body)


class Connections:
    """All connections of a receiver. ``accept`` takes them from a listening socket.

    ``handler`` answers a request. ``answered`` is called with each answer and its peer. ``trouble`` is called with a
    line about a fault outside requests.
    """

    def __init__(
        self,
        options: ReceiverOptions,
        handler: Callable[[Request], Awaitable[Answer]],
        answered: Callable[[Answer, str], None],
        trouble: Callable[[str], None],
    ) -> None:
        self.options = options
        self.handler = handler
        self.answered = answered
        self.draining = False
        self._trouble = trouble
        self._limit = _connection_limit(options.max_connections)
        self._slots = asyncio.Semaphore(self._limit + _REJECTED_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[_Connection] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._busy = 0

    async def accept(self, listening: socket.socket) -> None:
        """Serve the connections of ``listening``, a non-blocking socket, until cancelled.

        An asyncio server would accept more connections than it has descriptors for.
        """
        loop = asyncio.get_running_loop()
        waits = False
        while True:
            await self._slots.acquire()
            try:
                accepted, _ = await loop.sock_accept(listening)
            except ConnectionError:  # a client that has left already
                self._slots.release()
                continue
            except OSError as error:
                self._slots.release()
                if not waits:
                    waits = True
                    words = reason(error)
                    self._trouble(f"New connections wait: {words}. Raise the limit (ulimit -n).")
                await asyncio.sleep(_RECOVERY_S)
                continue
            waits = False
            task = loop.create_task(self._serve_connection(accepted))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def _serve_connection(self, accepted: socket.socket) -> None:
        """Serve one connection to its end."""
        reader, writer = await asyncio.open_connection(sock=accepted)
        connection = _Connection(self, reader, writer)
        over_limit = len(self._open) >= self._limit
        self._open.add(connection)
        try:
            with contextlib.suppress(OSError):
                await (connection.reject() if over_limit else connection.serve())
            await connection.close()
        finally:
            self._open.remove(connection)
            writer.transport.abort()  # nothing, when it is closed

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        self._slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._trouble(
                f"A connection failed with {type(error).__name__}. Its client sends the batch again."
            )

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as active while the block runs."""
        self._busy += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    async def drain(self, grace_s: float, cut_s: float) -> None:
        """End idle connections at once, active ones after their request, and all after ``grace_s``.

        A cancelled request has another ``cut_s`` to clean up.
        """
        self.draining = True
        for connection in self._open:
            if not connection.busy:
                connection.close_after_write()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        for seconds in (cut_s, cut_s):
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=seconds)
            for task in self._tasks:
                task.cancel()


class _Connection:
    def __init__(
        self, connections: Connections, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.options = connections.options
        self.received = bytearray()
        self.busy = False
        self.peer = _endpoint(writer, "peername")
        self.local = _endpoint(writer, "sockname")
        self.address = self.peer.rpartition(":")[0].strip("[]")
        self._connections = connections
        self._reader = reader
        self._writer = writer
        self._loop = asyncio.get_running_loop()

    async def serve(self) -> None:
        """Answer requests until one side ends the connection."""
        limit = self.options.header_timeout_s
        while True:
            try:
                head = await self._head(limit)
            except RefusedError as refused:
                await self._answer(refused.answer, close=True)
                await self._linger()
                return
            if head is None:
                return
            request = Request(self, head)
            with self._connections.request():
                self.busy = True
                answer = await self._handled(request)
                # It is cheaper to close the connection than to read the rest of a refused body.
                close = not head.keep_alive or not request.is_read or self._connections.draining
                await self._answer(answer, close=close, with_body=head.method != "HEAD")
                self.busy = False
            if not request.is_read:
                await self._linger()
            if close:
                return
            limit = self.options.keepalive_s

    async def reject(self) -> None:
        """Answer that there are too many connections."""
        await self._answer(_TOO_MANY.answer, close=True)
        await self._linger()

    async def read(self) -> bytes:
        """Append the client's next bytes to ``received``. Empty bytes are the end."""
        data = await self._reader.read(_READ_BYTES)
        self.received += data
        return data

    async def write(self, data: bytes) -> None:
        """Send, and return when most bytes are in the kernel.

        Raises ConnectionError, also for a client that does not read.
        """
        self._writer.write(data)
        try:
            async with asyncio.timeout(self.options.body_timeout_s):
                await self._writer.drain()
        except TimeoutError:
            self._writer.transport.abort()
            raise ConnectionAbortedError from None

    def close_after_write(self) -> None:
        """Close the connection once its written bytes are sent."""
        self._writer.close()

    async def close(self) -> None:
        """End the connection, at the latest after the client's time to read the last answer."""
        self._writer.close()
        with contextlib.suppress(OSError):  # TimeoutError is one
            async with asyncio.timeout(self.options.body_timeout_s):
                await self._writer.wait_closed()

    async def _head(self, limit: float) -> Head | None:
        """The next request's head; None if none comes within ``limit`` seconds, or if the client has left.

        Raises RefusedError for an invalid or a slow head.
        """
        deadline = self._loop.time() + limit
        started = False
        while True:
            while self.received.startswith(b"\r\n"):
                del self.received[:2]  # some clients end a body with an empty line too many
            if self.received and not started:
                started = True
                deadline = self._loop.time() + self.options.header_timeout_s
            if (length := http1.head_length(self.received)) is not None:
                head = bytes(self.received[:length])
                del self.received[:length]
                return http1.parse_head(head)
            try:
                async with asyncio.timeout_at(deadline):
                    more = await self.read()
            except TimeoutError:
                if not self.received:
                    return None
                seconds = self.options.header_timeout_s
                raise RefusedError(408, f"The request's head took longer than {seconds:g} seconds.") from None
            if not more:
                if not self.received or self._connections.draining:
                    return None
                raise RefusedError(400, "The request is cut off.")

    async def _handled(self, request: Request) -> Answer:
        try:
            return await self._connections.handler(request)
        except RefusedError as refused:
            return refused.answer
        except Exception as error:  # noqa: BLE001  # other requests continue
            return RefusedError(500, f"The receiver failed at this request: {type(error).__name__}.").answer

    async def _answer(self, answer: Answer, *, close: bool, with_body: bool = True) -> None:
        self._connections.answered(answer, self.peer)
        await self.write(http1.encode(answer, close=close, with_body=with_body))

    async def _linger(self) -> None:
        """Let the client read the answer before its unread request makes the system reset the connection."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while await self.read():
                    self.received.clear()


def _endpoint(writer: asyncio.StreamWriter, side: str) -> str:
    """The address and port of one side of a connection: ``peername`` or ``sockname``."""
    address = writer.get_extra_info(side)
    if not address:
        return "a client that has left"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _connection_limit(wanted: int) -> int:
    """``wanted``, or fewer if the limit of descriptors is low. An upload takes two: its socket and its file."""
    if sys.platform == "win32":  # sockets are not descriptors there
        return wanted
    import resource  # not on Windows

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, (most - _REJECTED_AT_ONCE - _OTHER_DESCRIPTORS) // 2))
