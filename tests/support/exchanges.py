"""Exchanges with a server that comes to a stop, or ends, in each state of a connection; run with either parser.

As a program it prints what came of each case, as JSON, to be compared with `expected`. aiohttp chooses its parser when
it is imported, so a process is needed for each: ``AIOHTTP_NO_EXTENSIONS=1`` takes the one in Python.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import aiohttp
from yarl import URL

from cirron_spool.http.proxies import Proxy
from cirron_spool.http.route import Route
from cirron_spool.http.transport import Transport
from cirron_spool.http.upload_body import Upload
from cirron_spool.protocol.answer import Answer, NoAnswer
from support import tls
from support.background import SAFETY_NET, reset

LIMIT_MS = 300
CALLS = ("upload", "stream", "verify", "refresh")
ENDINGS = ("silence", "close", "half close", "reset", "garbage", "closed by us")

_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
_UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"

# What the server has said, in segments, when it stops; and what breaks the parser from there on.
STATES: dict[str, tuple[tuple[bytes, ...], bytes | None]] = {
    "before the head": ((), b"\x00\x16\x03\r\n\r\n"),
    "in the status line": ((b"HTTP/1.1 2",), b"x0 OK\r\n\r\n"),
    "in the headers": ((b"HTTP/1.1 200 OK\r\nContent-",), b"Length: 8\r\nno colon\r\n\r\n"),
    "after an interim answer": ((b"HTTP/1.1 103 Early Hints\r\n\r\n",), b"nonsense\r\n\r\n"),
    "before a body of known length": ((_LENGTH,), None),
    "in a body of known length": ((_LENGTH, b"acc"), None),
    "before the first chunk": ((_CHUNKED,), b"Z\r\n"),
    "in a chunk's size": ((_CHUNKED, b"0"), b"x8\r\naccepted\r\n"),
    "in a chunk's extension": ((_CHUNKED, b"8;na"), b"\x01\r\nacceptedXX"),
    "in a chunk": ((_CHUNKED, b"8\r\nacc"), b"epted!!\r\n"),
    "after a chunk": ((_CHUNKED, b"8\r\naccepted"), b"XX"),
    "between two chunks": ((_CHUNKED, b"8\r\naccepted\r\n"), b"FFFFFFFFFFFFFFFFF" + b"F" * 20_000 + b"\r\n"),
    "before the trailer": ((_CHUNKED, b"8\r\naccepted\r\n0\r\n"), b"no colon\r\n\r\n"),
    "in the trailer": ((_CHUNKED, b"8\r\naccepted\r\n0\r\nX-T: "), b"x" * 20_000 + b"\r\n\r\n"),
    "in a body until the close": ((_UNTIL_CLOSE, b"acc"), None),
}
# States that come before any request: only silence, and ends that the peer makes.
EARLIER = ("looking up", "in the TLS handshake", "in the tunnel", "sending the body")


@dataclass(frozen=True)
class Case:
    """One exchange: what is called, the state the server stops in, and how it ends."""

    call: str
    state: str
    ending: str

    def __str__(self) -> str:
        return f"{self.call} / {self.state} / {self.ending}"


def cases() -> list[Case]:
    """All that there are; an ending that a state cannot have is left out."""
    found = [Case(*names) for names in product(CALLS, (*EARLIER, *STATES), ENDINGS)]
    return [case for case in found if _exists(case)]


def _exists(case: Case) -> bool:
    if case.ending == "garbage" and case.state in STATES:
        return STATES[case.state][1] is not None
    if case.ending == "closed by us" and (case.call == "verify" or case.state in EARLIER):
        return (
            False  # without a connection there is nothing to close, and aiohttp would open another for a GET
        )
    if case.state == "looking up":
        return case.ending == "silence"
    return case.state != "sending the body" or case.call in ("upload", "stream")


def expected(case: Case) -> str:
    """In words that `outcome_of` uses."""
    if case.ending == "silence":
        return "timed out"
    if case.state == "in a body until the close":
        return "until the close" if case.ending in ("close", "half close") else "broken"
    return "broken"


def outcome_of(heard: Answer | NoAnswer) -> str:
    """What an exchange came to, in a word or two."""
    if isinstance(heard, NoAnswer):
        return "timed out" if heard.message.startswith(f"timed out after {LIMIT_MS}ms") else "broken"
    if not heard.complete:
        return "broken"
    return "answered" if heard.delimited else "until the close"


@dataclass
class Server:
    """Plays the case that the request's path names. `reached` is set once it has come to a stop."""

    cases: list[Case]
    port: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    reached: dict[int, asyncio.Event] = field(default_factory=dict)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            number = int(head.split()[1].rpartition(b"/")[2])
            case = self.cases[number]
            segments, garbage = STATES.get(case.state, ((), b"\x00\r\n\r\n"))
            if case.state != "sending the body":
                await self._read_body(head, reader)
            for segment in segments:
                writer.write(segment)
                await _turns()  # the client, in the same loop, reads each by itself
            self.reached[number].set()
            await self.end(case.ending, garbage or b"", reader, writer)

    @staticmethod
    async def _read_body(head: bytes, reader: asyncio.StreamReader) -> None:
        if b"chunked" in head.lower():
            await reader.readuntil(b"\r\n0\r\n\r\n")
        elif b"content-length: " in head.lower():
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))

    async def end(
        self, ending: str, garbage: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """As `ending` says; where that ends nothing, wait for the client to do it, or for the end of all."""
        if ending == "close":
            writer.close()
        elif ending == "reset":
            reset(writer)
        else:
            if ending == "garbage":
                writer.write(garbage)
            elif ending == "half close":
                writer.write_eof()
            if ending == "silence":
                await self.over.wait()
            while await reader.read(65536):
                pass
            writer.close()


async def _turns() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


@asynccontextmanager
async def _stream() -> AsyncIterator[AsyncIterator[bytes]]:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(100_000)

    yield parts()


async def _call(transport: Transport, call: str, url: str, *, large: bool) -> Answer | NoAnswer:
    if call == "verify":
        return await transport.get(url, {"Authorization": "Bearer t"})
    if call == "refresh":
        return await transport.post_json(url, {}, {"refresh_token": "r"})
    if call == "stream":
        return await transport.post(url, {}, Upload(length=None, stream=_stream if large else _short_stream))
    body = bytes(10_000_000 if large else 100)
    return await transport.post(url, {}, Upload((body,), len(body)))


@asynccontextmanager
async def _short_stream() -> AsyncIterator[AsyncIterator[bytes]]:
    async def parts() -> AsyncIterator[bytes]:
        yield b"part"

    yield parts()


async def _run(case: Case, number: int, server: Server, ports: dict[str, int]) -> str:
    # Where something else than silence is the end, the limit is far away: reaching it shows as "timed out".
    limit_ms = LIMIT_MS if case.ending == "silence" else int(SAFETY_NET * 1000)
    port = ports.get(f"{case.state} / {case.ending}", server.port)
    url = {
        "looking up": f"http://never-answered.test:{port}/{number}",
        "in the TLS handshake": f"https://127.0.0.1:{port}/{number}",
        "in the tunnel": f"https://tunnel.test:{port}/{number}",
    }.get(case.state, f"http://127.0.0.1:{port}/{number}")
    session = aiohttp.ClientSession() if case.ending == "closed by us" else None
    try:
        async with (
            asyncio.timeout(2 * SAFETY_NET),
            Transport(timeout_ms=limit_ms, session=session) as transport,
        ):
            if case.state == "in the tunnel":
                _by_proxy(transport, url, port)
            calling = asyncio.ensure_future(
                _call(transport, case.call, url, large=case.state == "sending the body")
            )
            if session is not None:
                await server.reached[number].wait()
                await session.close()
            heard = await calling
    except TimeoutError:
        return "hung"
    except Exception as error:  # noqa: BLE001 - the error of a library must not come out
        return f"raised {error!r}"
    finally:
        if session is not None:
            await session.close()
    if isinstance(heard, NoAnswer) and heard.message.startswith(f"timed out after {limit_ms}ms"):
        return "timed out"
    return outcome_of(heard)


def _by_proxy(transport: Transport, url: str, port: int) -> None:
    """The environment is one for all cases; these alone go by way of a proxy."""
    proxy = Proxy("http", "127.0.0.1", port, f"http://127.0.0.1:{port}", "HTTPS_PROXY")
    transport._remember_route(Route(URL(url), tls.client_context(), proxy))


async def _listen(converse: Any, stack: AsyncExitStack) -> int:
    """Have connections answered by `converse` until `stack` is left; the port."""
    server = await asyncio.start_server(converse, "127.0.0.1", 0, limit=1 << 20)
    server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # an upload comes to a stop
    stack.callback(server.close)
    port: int = server.sockets[0].getsockname()[1]
    return port


def _at_once(server: Server, ending: str) -> Any:
    """A server that ends its connections at their first byte."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read(1)
            await server.end(ending, b"SSH-2.0-nothing of HTTP or TLS\r\n\r\n", reader, writer)

    return converse


async def _main() -> dict[str, str]:
    everything = cases()
    server = Server(everything, reached={number: asyncio.Event() for number in range(len(everything))})
    async with AsyncExitStack() as stack:
        server.port = await _listen(server.converse, stack)
        ports = {
            f"{state} / {ending}": await _listen(_at_once(server, ending), stack)
            for state in ("in the TLS handshake", "in the tunnel")
            for ending in ENDINGS
        }
        outcomes = await asyncio.gather(
            *(_run(case, number, server, ports) for number, case in enumerate(everything))
        )
        server.over.set()
        await _turns()
    return {str(case): outcome for case, outcome in zip(everything, outcomes, strict=True)}


def main() -> None:
    """Print what came of each case, and which parser was at work."""
    blocked = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        if host == "never-answered.test":
            blocked.wait()  # for ever, as far as this process goes: it must not hold up its end
        return real("127.0.0.1" if host == "tunnel.test" else host, *args, **options)

    socket.getaddrinfo = getaddrinfo
    outcomes = asyncio.run(_main())
    parser = aiohttp.http_parser.HttpResponseParser.__module__
    json.dump({"parser": parser, "outcomes": outcomes}, sys.stdout)


if __name__ == "__main__":
    main()
