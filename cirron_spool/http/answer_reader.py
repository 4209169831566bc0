"""Reads one answer, up to 64 KB, and checks where its body ends.

aiohttp's parsers tolerate framing errors. An answer with such an error must not acknowledge a batch. The received bytes
are therefore checked again (cirron_spool.protocol.framing).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp.hdrs import CONTENT_LENGTH, TRANSFER_ENCODING

from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.protocol.framing import are_whole_chunks, find_body

if TYPE_CHECKING:
    import aiohttp

    from cirron_spool.http.connection import Connection
    from cirron_spool.http.proxies import Proxy
    from cirron_spool.http.watchdog import Exchange

# docs/contract.md, Answers: the longest body that is read.
_LONGEST_BODY = 64 * 1024

_VERSIONS = frozenset({(1, 0), (1, 1)})
# Statuses whose answers have no body, whatever their headers announce.
_WITHOUT_BODY = frozenset({101, 204, 304})
_NOT_HTTP = NoAnswer("the answer is not HTTP/1.0 or HTTP/1.1")
_UNKNOWN_FRAMING = NoAnswer("the framing of the answer is unknown or ambiguous")
_BROKEN_CHUNKS = NoAnswer("the answer is not HTTP: its chunks are broken")


async def read_answer(
    response: aiohttp.ClientResponse, exchange: Exchange, http_proxy: Proxy | None
) -> Answer | NoAnswer:
    """Read the body of an answer whose head has arrived. NoAnswer if it is not HTTP, or its framing is unclear.

    ``http_proxy`` is the HTTP proxy of the request. Raises the errors of aiohttp's reader.
    """
    connection = exchange.connection
    early = not exchange.fully_sent
    received = None if connection is None else connection.received
    body_at = None if received is None else find_body(received)
    status = response.status
    if response.version not in _VERSIONS or status < 100 or (received is not None and body_at is None):
        return _NOT_HTTP
    framed = _is_framed(response)
    if framed is None:
        return _UNKNOWN_FRAMING
    content = response.content
    if content.is_eof():  # most answers arrive complete with their head
        body = content.read_nowait()
        whole = len(body) <= _LONGEST_BODY
        body = body[:_LONGEST_BODY]
    else:
        body, whole = await _read_body(response, connection)
    # Without framing, the end of the connection is the end of the body, and a cut is not visible.
    delimited = whole and (framed if connection is None else not connection.cut_short)
    if whole and status not in _WITHOUT_BODY:
        if delimited != framed:  # the parser used another framing than the headers
            return _UNKNOWN_FRAMING
        if (
            received is not None
            and body_at is not None
            and TRANSFER_ENCODING in response.headers
            and not are_whole_chunks(received, body_at)
        ):
            return _BROKEN_CHUNKS
    return Answer(
        status,
        response.reason or "",
        response.headers,
        body,
        whole and (delimited or connection is None or connection.closed_in_order),
        delimited,
        early,
        http_proxy.display_url if http_proxy is not None else "",
        exchange.written,
        http_proxy.source if http_proxy is not None else "",
    )


def _is_framed(response: aiohttp.ClientResponse) -> bool | None:
    """Whether the headers frame the body; None if the framing is unknown or ambiguous."""
    headers = response.headers
    lengths = headers.getall(CONTENT_LENGTH, None)
    codings = headers.getall(TRANSFER_ENCODING, None)
    if codings is not None:
        known = len(codings) == 1 and codings[0].isascii() and codings[0].strip(" \t").lower() == "chunked"
        return True if known and lengths is None and response.version == (1, 1) else None
    if lengths is None:
        return False
    return True if len(lengths) == 1 and lengths[0].isascii() and lengths[0].isdigit() else None


async def _read_body(response: aiohttp.ClientResponse, connection: Connection | None) -> tuple[bytes, bool]:
    """The first 64 KB of the body, and whether the body ended there."""
    if connection is not None:
        connection.end_reading_at_loss(response.content)
    parts: list[bytes] = []
    size = 0
    while size <= _LONGEST_BODY:
        part = await response.content.read(_LONGEST_BODY + 1 - size)
        if not part:
            return b"".join(parts), True
        parts.append(part)
        size += len(part)
    return b"".join(parts)[:_LONGEST_BODY], False
