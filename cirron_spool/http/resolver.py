"""Resolves host names in daemon threads.

``getaddrinfo`` cannot be interrupted, and takes up to 20 s without a name server. The event loop and the interpreter
join the threads of asyncio's default executor, which would delay their end.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult

from cirron_spool.concurrency.threads import in_daemon_thread

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
_Key = tuple[str, int, int]


@dataclass(slots=True)
class _Lookup:
    """One lookup, and the number of waiting coroutines."""

    task: asyncio.Future[list[ResolveResult]]
    waiting: int = 0


class Resolver(AbstractResolver):
    """Asks the operating system for addresses, without a cache.

    Concurrent connections to the same name share one lookup. ``unanswered`` has the names whose last lookup has no
    result, for example after a timeout.
    """

    def __init__(self) -> None:
        self._pending: dict[_Key, _Lookup] = {}
        self.unanswered: set[str] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of ``host``. Raises OSError: socket.gaierror, or when no thread can be started."""
        key = (host, port, family)
        lookup = self._pending.get(key)
        if lookup is None:
            work = in_daemon_thread(partial(_ask_system, host, port, family), "cirron-spool lookup")
            lookup = self._pending[key] = _Lookup(asyncio.ensure_future(work))
        lookup.waiting += 1
        self.unanswered.add(host)
        try:
            await asyncio.wait([lookup.task])  # a cancellation does not reach the shared task
            self.unanswered.discard(host)
            return lookup.task.result()
        finally:
            lookup.waiting -= 1
            if not lookup.waiting:
                # A later attempt starts a new lookup: the name servers may change.
                if not lookup.task.cancel() and not lookup.task.cancelled():
                    lookup.task.exception()  # mark the exception as retrieved
                if self._pending.get(key) is lookup:
                    del self._pending[key]

    async def close(self) -> None:
        """Nothing to close."""


def _ask_system(host: str, port: int, family: int) -> list[ResolveResult]:
    """The addresses of ``host``. Blocking. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "Not a valid host name") from None
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "No address of a supported family")
    return [_result(host, *entry) for entry in found]


def _result(
    host: str, family: int, kind: int, proto: int, name: str, address: tuple[str | int | bytes, ...]
) -> ResolveResult:
    del kind, name
    # A link-local IPv6 address needs its interface, which only getnameinfo() adds.
    scope = address[3] if family == socket.AF_INET6 and len(address) > 3 else 0
    numeric = str(address[0])
    if scope:
        flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        numeric = socket.getnameinfo((numeric, int(address[1]), 0, int(scope)), flags)[0]
    return ResolveResult(
        hostname=host, host=numeric, port=int(address[1]), family=family, proto=proto, flags=_NUMERIC
    )
