"""Names become addresses in threads that nobody waits for.

``getaddrinfo`` cannot be interrupted. In asyncio's default executor it holds up the end of the event loop and of the
interpreter, both of which join its threads: 20 s and more where no name server answers.
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
class _LookUp:
    """One look-up, and how many coroutines wait for it."""

    task: asyncio.Future[list[ResolveResult]]
    waiting: int = 0


class Resolver(AbstractResolver):
    """Asks the system for addresses, anew for each connection: nothing is remembered.

    Connections that ask for the same name at the same time share one look-up. ``unanswered`` are the names whose last
    look-up was given up.
    """

    def __init__(self) -> None:
        self._pending: dict[_Key, _LookUp] = {}
        self.unanswered: set[str] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of ``host``. Raises OSError: socket.gaierror, or when no thread can be started."""
        key = (host, port, family)
        look_up = self._pending.get(key)
        if look_up is None:
            work = in_daemon_thread(partial(_look_up, host, port, family), "cirron-spool look-up")
            look_up = self._pending[key] = _LookUp(asyncio.ensure_future(work))
        look_up.waiting += 1
        self.unanswered.add(host)
        try:
            await asyncio.wait([look_up.task])  # cancelled, this leaves the task alone
            self.unanswered.discard(host)
            return look_up.task.result()
        finally:
            look_up.waiting -= 1
            if not look_up.waiting:
                # A later attempt asks anew: the network may have come back with other name servers.
                if not look_up.task.cancel() and not look_up.task.cancelled():
                    look_up.task.exception()  # nobody may be left to be told
                if self._pending.get(key) is look_up:
                    del self._pending[key]

    async def close(self) -> None:
        """Nothing to close."""


def _look_up(host: str, port: int, family: int) -> list[ResolveResult]:
    """Blocking. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "Not a valid host name") from None
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "No address of a known kind")
    return [_result(host, *entry) for entry in found]


def _result(
    host: str, family: int, kind: int, proto: int, name: str, address: tuple[str | int | bytes, ...]
) -> ResolveResult:
    del kind, name
    # An IPv6 address of one link only is no use without its interface, which only getnameinfo() writes out.
    scope = address[3] if family == socket.AF_INET6 and len(address) > 3 else 0
    numeric = str(address[0])
    if scope:
        flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        numeric = socket.getnameinfo((numeric, int(address[1]), 0, int(scope)), flags)[0]
    return ResolveResult(
        hostname=host, host=numeric, port=int(address[1]), family=family, proto=proto, flags=_NUMERIC
    )
