"""What aiohttp_compat builds on still holds: no documentation of aiohttp promises it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from cirron_spool.http import aiohttp_compat
from support.background import SAFETY_NET

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"


class Peer:
    """A server in this loop that answers each request with what `say` holds then, and takes more by `writers`."""

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


async def until(happened: Callable[[], bool], what: str) -> None:
    """Wait for what aiohttp tells nobody of. Fails with `what` is wrong instead."""
    deadline = time.monotonic() + SAFETY_NET
    while not happened():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.001)


async def test_an_answer_leads_to_its_protocol_also_once_it_was_read() -> None:
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


async def test_a_writer_leads_to_its_protocol() -> None:
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


async def test_a_left_over_is_seen_on_the_protocol() -> None:
    async with peer() as there, aiohttp.ClientSession() as session:
        there.say = HEAD + b"done"
        async with session.get(there.url) as response:
            await response.read()
            protocol = aiohttp_compat.protocol_of(response)
        assert not aiohttp_compat.has_left_over(protocol), "should_close is true of a good connection"
        there.writers[0].write(HEAD + b"more")
        await until(lambda: aiohttp_compat.has_left_over(protocol), "should_close tells of no left-over")


async def test_a_parser_that_refuses_a_later_segment_is_seen_on_the_protocol() -> None:
    async with peer() as there, aiohttp.ClientSession() as session:
        there.say = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        async with session.get(there.url) as response:
            protocol = aiohttp_compat.protocol_of(response)
            assert aiohttp_compat.has_unfinished_body(protocol), (
                "ResponseHandler._payload is not the open body"
            )
            there.writers[0].write(b"Z\r\n")
            await until(
                lambda: aiohttp_compat.has_failed(protocol), "exception() does not tell of a parser's error"
            )


@pytest.mark.parametrize("refused", [True, False])
async def test_reading_a_body_can_be_ended(refused: bool) -> None:
    kind = HttpProcessingError if refused else aiohttp.ClientPayloadError
    async with peer() as there, aiohttp.ClientSession() as session:
        there.say = HEAD + b"x"
        async with session.get(there.url) as response:
            assert await response.content.readany() == b"x"
            reading = asyncio.ensure_future(response.content.read(1))
            await asyncio.sleep(0)
            aiohttp_compat.end_body(response.content, refused=refused)
            with pytest.raises(kind):
                await reading
            # The first end counts.
            aiohttp_compat.end_body(response.content, refused=not refused)
            assert isinstance(response.content.exception(), kind)


async def test_a_body_at_its_end_stays_readable() -> None:
    async with peer() as there, aiohttp.ClientSession() as session:
        there.say = HEAD + b"done"
        async with session.get(there.url) as response:
            await until(response.content.is_eof, "a whole body is not at its end")
            aiohttp_compat.end_body(response.content, refused=True)
            assert response.content.total_bytes == 4
            assert await response.content.read() == b"done"


async def test_what_a_request_raises_is_one_of_request_errors() -> None:
    assert issubclass(HttpProcessingError, Exception)
    assert not issubclass(HttpProcessingError, aiohttp.ClientError), (
        "HttpProcessingError needs no mention any more"
    )
    assert HttpProcessingError in aiohttp_compat.REQUEST_ERRORS
