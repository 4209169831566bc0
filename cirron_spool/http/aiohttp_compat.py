"""The parts of aiohttp that its documentation does not name. tests/http/test_aiohttp_compat.py checks each of them."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

# The protocol of one connection: aiohttp.client_proto.ResponseHandler.
Protocol = Any

# All that a request can raise. HttpProcessingError is no ClientError: the parser in Python lets it through.
REQUEST_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)


def protocol_of(response: aiohttp.ClientResponse) -> Protocol | None:
    """The protocol of the connection that an answer came on, also when the connection is free again."""
    return response._protocol  # noqa: SLF001  # response.connection is None once the answer is read


def protocol_of_writer(writer: Any) -> Protocol | None:
    """The protocol of the connection that a request is written to."""
    return getattr(writer, "protocol", None)


def transport_of(protocol: Protocol) -> asyncio.Transport | None:
    """The transport of a protocol; None once the connection is lost."""
    transport: asyncio.Transport | None = protocol.transport
    return transport


def has_left_over(protocol: Protocol) -> bool:
    """Whether an answer that nobody asked for was parsed, or the connection is no use for another reason."""
    return bool(protocol.should_close)


def has_failed(protocol: Protocol) -> bool:
    """Whether the parser refused what came, or the connection is lost."""
    return protocol.exception() is not None


def has_unfinished_body(protocol: Protocol) -> bool:
    """Whether the body of the last answer is not at its end."""
    payload = protocol._payload  # noqa: SLF001  # None when there is no body, or aiohttp let go of it
    return payload is not None and not payload.is_eof()


def end_body(content: aiohttp.StreamReader, *, refused: bool) -> None:
    """Let reading an unfinished body raise; a finished or failed one stays as it is.

    HttpProcessingError when the parser ``refused`` it, else ClientPayloadError: the connection is lost.
    """
    if not content.is_eof() and content.exception() is None:
        content.set_exception(HttpProcessingError() if refused else aiohttp.ClientPayloadError())
