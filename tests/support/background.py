"""A socket server in a thread and an event loop of its own.

Its own loop, so that it serves tests in the same process without sharing (or being blocked by) the loop
under test, and real commands in other processes alike.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from .answers import Gate
from .wire import MAX_HEAD

SAFETY_NET = 300.0  # seconds; never waited for in a test that passes


class BackgroundServer:
    """Listens on `host`, port 0, from ``__enter__`` to ``__exit__``.

    Subclasses give `_converse`, one call per connection. `errors` collects what the clients did against the
    protocol and what went wrong in here; leaving the block raises ``AssertionError`` when it is not empty.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._host = host
        self.connections = 0  # accepted so far
        self.errors: list[str] = []
        self.changed = threading.Condition()  # held for every change of what tests may read
        self._tls = tls
        self._receive_buffer = receive_buffer  # bytes of SO_RCVBUF: small ones make a client feel a stall
        self._release = Gate()
        self._ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._main, name=type(self).__name__, daemon=True)
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        """The port that the kernel chose."""
        return self._port

    @property
    def url(self) -> str:
        """The origin, without a trailing slash."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._port = self._ready.result(SAFETY_NET)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._release.open()
        self._thread.join(SAFETY_NET)
        if kind is None:
            assert not self._thread.is_alive(), f"{self._thread.name} does not end"
            assert not self.errors, f"{self._thread.name}: {self.errors}"

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        """Block until `happened()`, looked at after every change; for threads without an event loop.

        Raises ``AssertionError`` that names `what` when the safety net is reached.
        """
        deadline = time.monotonic() + SAFETY_NET
        with self.changed:
            while not happened():
                left = deadline - time.monotonic()
                assert left > 0, f"{self._thread.name}: still no {what} after {SAFETY_NET:g} s; {self!r}"
                self.changed.wait(left)

    def _notify(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:  # noqa: BLE001 - a thread of its own: the test must hear of anything
            if not self._ready.done():
                self._ready.set_exception(exc)
            self.errors.append(f"server: {exc!r}")

    async def _serve(self) -> None:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        sock = socket.create_server((self._host, 0), family=family, backlog=512)
        if self._receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        server = await asyncio.start_server(self._accept, sock=sock, ssl=self._tls, limit=MAX_HEAD)
        self._ready.set_result(sock.getsockname()[1])
        await self.passes(self._release)
        # A connection that was accepted becomes a transport in asyncio's own task, and only while the server is open.
        asyncio.get_running_loop().remove_reader(sock.fileno())
        await asyncio.sleep(0)
        server.close()
        # All of this loop's: a connection that is being accepted is a task of asyncio's own.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # the aborted transports report their end
        # A client that never finished its TLS handshake must not keep the test.
        await asyncio.wait([asyncio.ensure_future(server.wait_closed())], timeout=5)

    @staticmethod
    async def passes(gate: Gate) -> None:
        """Wait for `gate` in this server's loop."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def opened() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(wake)

        gate.when_open(opened)
        await waiter

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self.changed:
            self.connections += 1
            number = self.connections
            self.changed.notify_all()
        self._writers.add(writer)
        # An empty write buffer must mean that the kernel has everything.
        writer.transport.set_write_buffer_limits(0)
        self._start(self._guarded(number, reader, writer))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(number, reader, writer)
        except (ConnectionError, ssl.SSLError):
            pass
        except Exception as exc:  # noqa: BLE001 - a fault of the helper itself must fail the test
            self.errors.append(f"connection {number}: {exc!r}")
        finally:
            writer.close()
            self._notify()
            try:
                await writer.wait_closed()
            except OSError:
                pass  # the client was faster, or ruder
            finally:
                writer.transport.abort()
                self._writers.discard(writer)

    async def _converse(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        raise NotImplementedError


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with RST."""
    if writer.is_closing():
        return
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def closed_port() -> int:
    """A port of the loopback that refuses connections, as far as one can be had without holding it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port
