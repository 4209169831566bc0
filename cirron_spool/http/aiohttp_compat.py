"""The private parts of aiohttp that the package needs. tests/http/test_aiohttp_compat.py checks each of them."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

# The protocol of one connection: aiohttp.client_proto.ResponseHandler.
Protocol = Any

# The parser's error. It is no ClientError, but the parser in Python raises it from a request.
ParserError = HttpProcessingError

# The errors of a request.
REQUEST_ERRORS = (aiohttp.ClientError, ParserError, OSError)


def create_protocol(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    """The protocol for a connection that is opened for aiohttp."""
    return ResponseHandler(loop)


def protocol_of(response: aiohttp.ClientResponse) -> Protocol | None:
    """The protocol of the connection of an answer, even after the answer was read."""
    return response._protocol  # noqa: SLF001  # response.connection is None after the answer was read


def protocol_of_writer(writer: Any) -> Protocol | None:
    """The protocol of the connection that a request is written to."""
    return getattr(writer, "protocol", None)


def transport_of(protocol: Protocol) -> asyncio.Transport | None:
    """The transport of a protocol; None after the connection was lost."""
    transport: asyncio.Transport | None = protocol.transport
    return transport


def has_left_over(protocol: Protocol) -> bool:
    """Whether the connection cannot be reused, for example after an unsolicited answer."""
    return bool(protocol.should_close)


def has_failed(protocol: Protocol) -> bool:
    """Whether the parser refused some bytes, or the connection was lost."""
    return protocol.exception() is not None


def has_unfinished_body(protocol: Protocol) -> bool:
    """Whether the body of the last answer is incomplete."""
    payload = protocol._payload  # noqa: SLF001  # None without a body, and after aiohttp released it
    return payload is not None and not payload.is_eof()


def end_body(content: aiohttp.StreamReader, *, refused: bool) -> None:
    """Make reads of an unfinished body raise. A finished or failed body stays as it is.

    With ``refused``, the parser refused the body, and reads raise ParserError. Otherwise the connection was lost, and
    reads raise ClientPayloadError.
    """
    if not content.is_eof() and content.exception() is None:
        content.set_exception(ParserError() if refused else aiohttp.ClientPayloadError())
