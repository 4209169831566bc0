"""A SOCKS proxy, versions 4, 4a and 5, with a password, names of its own and scripted faults."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from .background import BackgroundServer, reset
from .proxy import pump

Step = Literal["greeting", "login", "request"]

GRANTED_5 = b"\5\0\0\1\0\0\0\0\0\0"


@dataclass(frozen=True)
class Fault:
    """In place of its answer to a `step` the proxy sends `send`, and then ends the connection, or says nothing more.

    In silence, what the client sends is read and dropped.
    """

    step: Step
    send: bytes = b""
    then: Literal["close", "reset", "silence"] = "close"


def refusal(code: int, version: Literal[4, 5] = 5) -> Fault:
    """The reply `code` to the request."""
    return Fault(
        "request",
        GRANTED_5[:1] + bytes([code]) + GRANTED_5[2:] if version == 5 else bytes([0, code]) + bytes(6),
    )


@dataclass(frozen=True)
class Asked:
    """What a client asked for: `host` as it was sent, a name or an address; `user` as far as it said one."""

    version: int
    host: str
    port: int
    user: str | None


class SocksServer(BackgroundServer):
    """Connects to the address that it is asked for, or to the (host, port) of a name in `names`.

    `users` are the passwords of those who may use it, for SOCKS4 by their names alone; without any, everybody may.
    Each connection takes the next of `faults`, None for a good one, and is good when there is no more. `drip` sends
    the replies byte by byte. `asked` are the requests, `tunnels` counts those that were granted, `silent` the faults
    that ended in silence.
    """

    def __init__(
        self,
        *,
        names: Mapping[str, tuple[str, int]] | None = None,
        users: Mapping[str, str] | None = None,
        faults: Iterable[Fault | None] = (),
        drip: bool = False,
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(host=host)
        self.asked: list[Asked] = []
        self.tunnels = 0
        self.silent = 0
        self.offered: list[bytes] = []  # the ways to log in, of each client of SOCKS5
        self._names = names or {}
        self._users = users
        self._faults = iter(faults)
        self._drip = drip

    def address(self, scheme: str, login: str = "") -> str:
        """The value of a proxy variable; `login` is ``user:password``."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{login}{'@' if login else ''}{host}:{self.port}"

    async def _converse(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        del number
        client = _Client(reader, writer, next(self._faults, None), self._fell_silent, drip=self._drip)
        try:
            version = (await reader.readexactly(1))[0]
            destination = await (self._five(client) if version == 5 else self._four(client))
            if destination is None:
                return
            upstream_reader, upstream = await asyncio.open_connection(*destination)
        except (asyncio.IncompleteReadError, _FaultDoneError):
            return
        try:
            self._start(pump(upstream_reader, writer))
            await pump(reader, upstream)
        finally:
            upstream.close()

    async def _five(self, client: _Client) -> tuple[str, int] | None:
        reader = client.reader
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        with self.changed:
            self.offered.append(methods)
            self.changed.notify_all()
        method = 0 if self._users is None else 2
        if method not in methods:
            await client.answer("greeting", b"\5\xff")
            return None
        await client.answer("greeting", bytes([5, method]))
        user: str | None = None
        if method == 2:
            await reader.readexactly(1)
            user = (await _counted(reader)).decode()
            fine = (self._users or {}).get(user) == (await _counted(reader)).decode()
            await client.answer("login", b"\1\0" if fine else b"\1\1")
            if not fine:
                return None
        _, command, _, kind = await reader.readexactly(4)
        if kind == 3:
            host = (await _counted(reader)).decode()
        else:
            host = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        port = int.from_bytes(await reader.readexactly(2), "big")
        destination = self._destination(Asked(5, host, port, user)) if command == 1 else None
        await client.answer("request", GRANTED_5 if destination else b"\5\4\0\1\0\0\0\0\0\0")
        return self._granted(destination)

    async def _four(self, client: _Client) -> tuple[str, int] | None:
        reader = client.reader
        await reader.readexactly(1)
        port = int.from_bytes(await reader.readexactly(2), "big")
        packed = await reader.readexactly(4)
        user = (await reader.readuntil(b"\0"))[:-1].decode()
        host = str(ipaddress.ip_address(packed))
        if packed[:3] == bytes(3) and packed[3]:
            host = (await reader.readuntil(b"\0"))[:-1].decode()
        fine = self._users is None or user in self._users
        destination = self._destination(Asked(4, host, port, user or None)) if fine else None
        code = 0x5A if destination else 0x5B if fine else 0x5D
        await client.answer("request", bytes([0, code]) + bytes(6))
        return self._granted(destination)

    def _fell_silent(self) -> None:
        with self.changed:
            self.silent += 1
            self.changed.notify_all()

    def _destination(self, asked: Asked) -> tuple[str, int] | None:
        with self.changed:
            self.asked.append(asked)
            self.changed.notify_all()
        if asked.host in self._names:
            return self._names[asked.host]
        try:
            ipaddress.ip_address(asked.host)
        except ValueError:
            return None  # nobody is asked for names, and none is in this server
        return asked.host, asked.port

    def _granted(self, destination: tuple[str, int] | None) -> tuple[str, int] | None:
        if destination is not None:
            with self.changed:
                self.tunnels += 1
                self.changed.notify_all()
        return destination


class _FaultDoneError(Exception):
    """The fault of this connection has happened."""


class _Client:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        fault: Fault | None,
        fell_silent: Callable[[], None],
        *,
        drip: bool,
    ) -> None:
        self.reader = reader
        self._writer = writer
        self._fault = fault
        self._fell_silent = fell_silent
        self._drip = drip

    async def answer(self, step: Step, data: bytes) -> None:
        fault = self._fault
        if fault is None or fault.step != step:
            await self._send(data)
            return
        await self._send(fault.send)
        if fault.then == "silence":
            self._fell_silent()
            while await self.reader.read(65536):
                pass
        elif fault.then == "reset":
            reset(self._writer)
        raise _FaultDoneError

    async def _send(self, data: bytes) -> None:
        for piece in [data[at : at + 1] for at in range(len(data))] if self._drip else [data]:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)


async def _counted(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly((await reader.readexactly(1))[0])


def has_ipv6() -> bool:
    """Whether the loopback has ::1."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
