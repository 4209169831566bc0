"""Run a receiver: ``running`` in the event loop of a program, ``serve`` as a command until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TextIO

from cirron_spool.concurrency import event_loop
from cirron_spool.concurrency.threads import in_thread
from cirron_spool.errors import CirronSpoolError, ConfigError, no_thread, resource_error, resource_errors
from cirron_spool.receiver.connections import Connections
from cirron_spool.receiver.journal import Journal
from cirron_spool.receiver.options import ReceiverOptions
from cirron_spool.receiver.routes import Routes
from cirron_spool.receiver.store import Store
from cirron_spool.text import printable

__all__ = ["Receiver", "ReceiverOptions", "running", "serve"]

# Threads help only while the disk is slow. Decompression and checks keep two cores busy.
_THREADS = 8

# Connections that the system queues. It refuses any more.
_BACKLOG = 512

# Seconds for cancelled requests to clean up.
_CUT_S = 0.5

# For a program that runs a receiver without ``report``.
_log = logging.getLogger("cirron_spool.receiver")
_log.addHandler(logging.NullHandler())
_log.propagate = False


class Receiver:
    """A running receiver.

    ``url`` is its origin, with the actual port; ``store`` holds the batches; ``journal`` counts them and the
    refusals.
    """

    def __init__(self, url: str, store: Store, journal: Journal, *, loopback: bool) -> None:
        self.url = url
        self.store = store
        self.journal = journal
        self.loopback = loopback


@contextlib.asynccontextmanager
async def running(
    options: ReceiverOptions, report: Callable[[str], None] | None = None
) -> AsyncIterator[Receiver]:
    """A receiver for as long as the block runs.

    At the end, requests in flight get ``options.grace_s`` seconds to finish, then they are cancelled. Acknowledged
    batches are durable in any case. ``report`` is given lines for the operator, by default the logger
    ``cirron_spool.receiver``: failures to store, and each batch and refusal when ``options.verbose``.

    Raises ConfigError (options, address), SpoolError (folder), SpoolBusyError (another receiver has the folder),
    ResourceError (no thread can be started).
    """
    options.check()
    loop = asyncio.get_running_loop()
    threads = _started_threads(_THREADS)
    try:
        store = await loop.run_in_executor(threads, lambda: Store(options.store, max_bytes=options.max_bytes))
        try:
            journal = Journal(report or _log.info, verbose=options.verbose)
            routes = Routes(options, store, threads, journal)
            connections = Connections(options, routes, journal.answered, journal.trouble)
            listening = await loop.run_in_executor(threads, _listen, options)
            accepting = [loop.create_task(connections.accept(each)) for each in listening]
            try:
                host, port = listening[0].getsockname()[:2]
                url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
                loopback = all(_is_loopback(each) for each in listening)
                yield Receiver(url, store, journal, loopback=loopback)
            finally:
                for task in accepting:
                    task.cancel()
                await asyncio.wait(accepting)
                _close(listening)
                await connections.drain(options.grace_s, _CUT_S)
                # Running store calls end before the lock of the folder is released.
                await in_thread(threads.shutdown)
        finally:
            store.close()
    finally:
        threads.shutdown()


def serve(options: ReceiverOptions) -> int:
    """Run a receiver until SIGINT or SIGTERM; the exit code: 0, 2 for unusable options, 4 when the store is taken.

    Prints ``Receiving on URL, storing in DIR`` on standard output when it is ready. Standard error gets all else,
    with the totals in the last line. ``CIRRON_RECEIVE_TOKEN`` stands in for a token that the options do not have.
    """
    if options.token is None:
        options = replace(options, token=os.environ.get("CIRRON_RECEIVE_TOKEN") or None)
    try:
        with resource_errors():
            event_loop.run(partial(_serve_until_signal, options))
    except CirronSpoolError as error:
        _say(f"Error: {error}", sys.stderr)
        return error.exit_code
    return 0


async def _serve_until_signal(options: ReceiverOptions) -> None:
    stop = asyncio.Event()
    with _signals(asyncio.get_running_loop(), stop):
        await serve_until(stop, options)


async def serve_until(stop: asyncio.Event, options: ReceiverOptions) -> None:
    """Run a receiver until ``stop`` is set, and print as :func:`serve` does. Raises the errors of :func:`running`."""
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
    _say(receiver.journal.totals(), sys.stderr)


def _started_threads(wanted: int) -> ThreadPoolExecutor:
    """A pool of up to ``wanted`` started threads, so that no request starts one. Raises ResourceError."""
    threads = ThreadPoolExecutor(wanted, thread_name_prefix="cirron-spool-receive")
    all_started = threading.Event()
    started = 0
    try:
        # The pool starts a thread for each call without an idle thread.
        for started in range(wanted):  # noqa: B007  # read below
            threads.submit(all_started.wait)
    except (RuntimeError, MemoryError):
        all_started.set()
        threads.shutdown(cancel_futures=True)
        if not started:
            raise no_thread() from None
        return _started_threads(started)
    finally:
        all_started.set()
    return threads


def _listen(options: ReceiverOptions) -> list[socket.socket]:
    """Sockets that listen on the addresses of the host, at least one. Raises ConfigError, ResourceError."""
    listening: list[socket.socket] = []
    absent: OSError | None = None
    try:
        found = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                listening.append(socket.create_server(address, family=family, backlog=_BACKLOG))
            except OSError as error:
                # A machine without IPv6 can still resolve a name to ::1.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                absent = error
        if absent and not listening:
            raise absent
    except (OSError, UnicodeError) as error:
        _close(listening)
        if isinstance(error, OSError) and (lacking := resource_error(error)):
            raise lacking from None
        # Python's text for a failed bind repeats the address.
        number = (isinstance(error, OSError) and error.errno) or 0
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or str(error)
        where = printable(f"{options.host}:{options.port}")
        raise ConfigError(f"Cannot listen on {where}: {reason}. Choose another --host or --port.") from None
    for each in listening:
        each.setblocking(False)
    return listening


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _is_loopback(listening: socket.socket) -> bool:
    host = listening.getsockname()[0]
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set ``stop`` while the block runs. A second signal has no effect."""
    # Windows has no loop.add_signal_handler(). An ignored signal stays ignored, as for a shell's background job.
    previous = {
        number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say(line: str, stream: TextIO | None) -> None:
    if stream is None:  # closed before the start; print would choose another one
        return
    # The receiver continues without a reader of its lines.
    try:
        print(printable(line), file=stream, flush=True)
    except (OSError, ValueError):
        _silence(stream)


def _silence(stream: TextIO) -> None:
    """Send the rest of a stream to the null device.

    Python flushes its streams at the end, and exits with 120 if a flush fails.
    """
    with suppress(OSError, ValueError, AttributeError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)
