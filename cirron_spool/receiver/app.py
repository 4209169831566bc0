"""A receiver's life: ``running`` inside a program's own event loop, ``serve`` as a command until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TextIO

from aiohttp import web

from cirron_spool import naming
from cirron_spool.errors import CirronSpoolError, ConfigError
from cirron_spool.receiver.guard import Door
from cirron_spool.receiver.options import ReceiverOptions
from cirron_spool.receiver.routes import Routes
from cirron_spool.receiver.store import Store
from cirron_spool.streams import silence

__all__ = ["Receiver", "ReceiverOptions", "running", "serve"]

# Where threads pay is in waiting for the disk: decompression and the check keep two cores busy by themselves.
_THREADS = 8

# Connections that the system holds for us while we are busy; more are refused by it.
_BACKLOG = 512

# For requests that are cut at the end, once the grace is over.
_CUT_S = 0.5

# What aiohttp has to say (a client's broken HTTP, mostly) goes to whoever listens to this logger, by default nobody.
_log = logging.getLogger("cirron_spool.receiver")
_log.addHandler(logging.NullHandler())
_log.propagate = False


class Receiver:
    """A receiver that takes requests. ``url`` is its origin, with the port it got; ``store`` is what it has stored."""

    def __init__(self, url: str, store: Store, *, loopback: bool) -> None:
        self.url = url
        self.store = store
        self.loopback = loopback


@contextlib.asynccontextmanager
async def running(
    options: ReceiverOptions, report: Callable[[str], None] | None = None
) -> AsyncIterator[Receiver]:
    """A receiver for as long as the block runs.

    At the end, requests in flight get ``options.grace_s`` seconds to finish, then they are cut; what has been
    acknowledged is durable in any case. ``report`` is given lines for the operator: failures to store, and each batch
    when ``options.verbose``.

    Raises ConfigError (options, address), SpoolError (folder), SpoolBusyError (another receiver has the folder).
    """
    options.check()
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cirron-spool-receive")
    try:
        store = await loop.run_in_executor(threads, lambda: Store(options.store, max_bytes=options.max_bytes))
        try:
            routes = Routes(options, store, threads, report or _log.info)
            # aiohttp must leave bodies compressed: what it decompresses by itself has no bound.
            server = web.Server(
                routes,
                auto_decompress=False,
                access_log=None,
                logger=_log,
                keepalive_timeout=options.keepalive_s,
            )
            door = routes.door = Door(
                server,
                header_timeout_s=options.header_timeout_s,
                answer_timeout_s=options.body_timeout_s,
                max_connections=options.max_connections,
            )
            listener = await _listen(loop, door, options)
            try:
                host, port = listener.sockets[0].getsockname()[:2]
                url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
                yield Receiver(url, store, loopback=all(_is_loopback(found) for found in listener.sockets))
            finally:
                listener.close()
                await door.drain(options.grace_s)
                server.pre_shutdown()
                await server.shutdown(_CUT_S)
                await door.drain(_CUT_S)
                # A hop that its request no longer waits for still ends before the folder is let go.
                await asyncio.to_thread(threads.shutdown)
        finally:
            store.close()
    finally:
        threads.shutdown()


def serve(options: ReceiverOptions) -> int:
    """Run a receiver until SIGINT or SIGTERM; the exit code: 0, 2 for what cannot be used, 4 when the store is taken.

    Prints ``Receiving on URL, storing in DIR`` on standard output when it is ready, and everything else on standard
    error. ``CIRRON_RECEIVE_TOKEN`` stands in for a token that the options do not have.
    """
    if options.token is None:
        options = replace(options, token=os.environ.get("CIRRON_RECEIVE_TOKEN") or None)
    try:
        asyncio.run(_serve(options))
    except CirronSpoolError as error:
        _say(f"Error: {error}", sys.stderr)
        return error.exit_code
    return 0


async def _serve(options: ReceiverOptions) -> None:
    stop = asyncio.Event()
    with _signals(asyncio.get_running_loop(), stop):
        async with running(options, report=lambda line: _say(line, sys.stderr)) as receiver:
            if options.token is None and options.refresh_token is None:
                if receiver.loopback:
                    _say("No token is set: every request is accepted.", sys.stderr)
                else:
                    _say(
                        "Warning: No token is set and other machines can connect: every request is accepted. "
                        "Set one with --token or CIRRON_RECEIVE_TOKEN.",
                        sys.stderr,
                    )
            _say(f"Receiving on {receiver.url}, storing in {receiver.store.directory}", sys.stdout)
            await stop.wait()


async def _listen(loop: asyncio.AbstractEventLoop, door: Door, options: ReceiverOptions) -> asyncio.Server:
    try:
        return await loop.create_server(door, options.host, options.port, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        # asyncio's own text for a failed bind repeats the address.
        number = (isinstance(error, OSError) and error.errno) or 0
        reason = os.strerror(number) if number > 0 else str(error)
        where = naming.printable(f"{options.host}:{options.port}")
        raise ConfigError(f"Cannot listen on {where}: {reason}. Choose another --host or --port.") from None


def _is_loopback(listening: socket.socket) -> bool:
    host = listening.getsockname()[0]
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set ``stop`` while the block runs. A second one changes nothing: the grace is short."""
    # signal.signal and not the loop's own handlers, which Windows does not have.
    previous = {
        number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say(line: str, stream: TextIO) -> None:
    # Whoever reads our lines may be gone; the batches still come.
    try:
        print(naming.printable(line), file=stream, flush=True)
    except OSError:
        silence(stream)
