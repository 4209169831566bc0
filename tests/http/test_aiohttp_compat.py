"""The contract of aiohttp_compat: the private parts of aiohttp that it uses behave as expected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from yarl import URL

from cirron_spool.http import aiohttp_compat
from support.background import SAFETY_NET

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"


class Peer:
    """A server in this event loop. It answers each request with `say`; `writers` send more."""

    def __init__(self) -> None:
        self.say = b""
        self.writers: list[asyncio.StreamWriter] = []
        self.url = URL()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while await reader.read(65536):
            writer.write(self.say)


@asynccontextmanager
async def peer() -> AsyncIterator[Peer]:
    there = Peer()
    server = await asyncio.start_server(there.converse, "127.0.0.1", 0)
    there.url = URL.build(scheme="http", host="127.0.0.1", port=server.sockets[0].getsockname()[1], path="/")
    try:
        yield there
    finally:
        server.close()
        for writer in there.writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def until(happened: Callable[[], bool], what: str) -> None:
    """Wait for a state of aiohttp that has no event. Fails with `what`."""
    deadline = time.monotonic() + SAFETY_NET
    while not happened():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.001)


async def test_an_answer_that_was_read_has_its_protocol() -> None:
    async with peer() as there, aiohttp.ClientSession() as session:
        there.say = HEAD + b"done"
        async with session.get(there.url) as response:
            await response.read()
            protocol = aiohttp_compat.protocol_of(response)
        assert protocol is not None, "ClientResponse._protocol is gone"
        transport = aiohttp_compat.transport_of(protocol)
        assert transport is not None, "ResponseHandler.transport is None while the connection is open"
        assert transport.get_protocol() is protocol, "the transport's protocol is another one"
        assert not aiohttp_compat.has_unfinished_body(protocol)
        assert not aiohttp_compat.has_failed(protocol)


async def test_the_transport_is_none_once_the_connection_is_lost() -> None:
    async with peer() as there, aiohttp.ClientSession() as session:
        there.say = HEAD + b"done"
        async with session.get(there.url) as response:
            protocol = aiohttp_compat.protocol_of(response)
        there.writers[0].close()
        await until(lambda: aiohttp_compat.transport_of(protocol) is None, "ResponseHandler.transport stays")
        assert aiohttp_compat.has_failed(protocol), "ResponseHandler.exception() is None after the end"


async def test_a_writer_has_its_protocol() -> None:
    found: list[Any] = []

    class Body(aiohttp.Payload):
        _autoclose = True

        def __init__(self) -> None:
            super().__init__(None)
            self._size = 1

        def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
            raise TypeError

        async def write(self, writer: Any) -> None:
            found.append(aiohttp_compat.protocol_of_writer(writer))
            await writer.write(b"x")

        async def write_with_length(self, writer: Any, content_length: int | None) -> None:
            await self.write(writer)

    async with peer() as there, aiohttp.ClientSession() as session:
        there.say = HEAD + b"done"
        async with session.post(there.url, data=Body()) as response:
            assert found == [aiohttp_compat.protocol_of(response)], "StreamWriter.protocol is another one"


async def test_the_protocol_reports_an_unsolicited_answer() -> None:
    async with peer() as there, aiohttp.ClientSession() as session:
        there.say = HEAD + b"done"
        async with session.get(there.url) as response:
            await response.read()
            protocol = aiohttp_compat.protocol_of(response)
        assert not aiohttp_compat.has_left_over(protocol), "should_close is true for a reusable connection"
        there.writers[0].write(HEAD + b"more")
        await until(
            lambda: aiohttp_compat.has_left_over(protocol),
            "should_close is false after an unsolicited answer",
        )


async def test_the_protocol_reports_a_later_segment_that_the_parser_refused() -> None:
    async with peer() as there, aiohttp.ClientSession() as session:
        there.say = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        async with session.get(there.url) as response:
            protocol = aiohttp_compat.protocol_of(response)
            assert aiohttp_compat.has_unfinished_body(protocol), (
                "ResponseHandler._payload is not the open body"
            )
            there.writers[0].write(b"Z\r\n")
            await until(
                lambda: aiohttp_compat.has_failed(protocol), "exception() is None after a parser's error"
            )


@pytest.mark.parametrize("refused", [True, False])
async def test_reading_a_body_can_be_ended(refused: bool) -> None:
    kind = aiohttp_compat.ParserError if refused else aiohttp.ClientPayloadError
    async with peer() as there, aiohttp.ClientSession() as session:
        there.say = HEAD + b"x"
        async with session.get(there.url) as response:
            assert await response.content.readany() == b"x"
            reading = asyncio.ensure_future(response.content.read(1))
            await asyncio.sleep(0)
            aiohttp_compat.end_body(response.content, refused=refused)
            with pytest.raises(kind):
                await reading
            # Only the first call has an effect.
            aiohttp_compat.end_body(response.content, refused=not refused)
            assert isinstance(response.content.exception(), kind)


async def test_a_body_at_its_end_stays_readable() -> None:
    async with peer() as there, aiohttp.ClientSession() as session:
        there.say = HEAD + b"done"
        async with session.get(there.url) as response:
            await until(response.content.is_eof, "a whole body is not at its end")
            aiohttp_compat.end_body(response.content, refused=True)
            assert await response.content.read() == b"done"


async def test_a_created_protocol_serves_a_connection() -> None:
    async with peer() as there:
        loop = asyncio.get_running_loop()
        protocol = aiohttp_compat.create_protocol(loop)
        transport, _ = await loop.create_connection(lambda: protocol, "127.0.0.1", there.url.port or 0)
        assert aiohttp_compat.transport_of(protocol) is transport, "connection_made() sets no transport"
        assert not aiohttp_compat.has_left_over(protocol), "a new protocol cannot be used"
        transport.close()
        await until(lambda: aiohttp_compat.transport_of(protocol) is None, "ResponseHandler.transport stays")


async def test_the_parsers_error_is_no_client_error() -> None:
    assert issubclass(aiohttp_compat.ParserError, Exception)
    assert not issubclass(aiohttp_compat.ParserError, aiohttp.ClientError), (
        "ParserError is not needed any more"
    )
    assert aiohttp_compat.ParserError in aiohttp_compat.REQUEST_ERRORS
