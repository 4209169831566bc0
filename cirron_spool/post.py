"""A POST that is sent again and again, each time with another body.

To make a request, aiohttp merges its headers, checks its address and its proxy, and puts a dozen objects around it: for
a small batch a third of what the event loop has to do, each time to the same end. A middleware is given the request
that was made, and may send it more than once: aiohttp's documentation has it so for retries. This one keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.hdrs import CONTENT_LENGTH

from cirron_spool.wire import Body

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter


class Post:
    """POSTs of ``session`` that all say ``headers`` and ask for ``options``, one at a time.

    With ``keep`` they are one request of aiohttp's, made for the first of them; it passes by what else the session
    has its middlewares do. A body of no known length has one of its own.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        headers: Mapping[str, str],
        options: Mapping[str, Any],
        *,
        keep: bool,
    ) -> None:
        self._session = session
        self._headers = headers
        self._options = options
        self._keep = keep
        self._kept: tuple[aiohttp.ClientRequest, aiohttp.ClientHandlerType, _Payload] | None = None
        self._said: Collection[str] = ()

    async def send(self, headers: Mapping[str, str], body: Body) -> aiohttp.ClientResponse:
        """POST ``body``; returns with the headers of its answer. Raises what aiohttp does, and an OSError of its own.

        To be sent again only once an answer has come and was read whole.
        """
        if self._kept is None or body.length is None:
            return await self._make(headers, body)
        request, handler, payload = self._kept
        payload.body = body
        says = request.headers
        if self._said != (saying := headers.keys()):
            for name in self._said - saying:
                del says[name]
            self._said = saying
        says.update(headers)
        says[CONTENT_LENGTH] = str(body.length)
        return await handler(request)

    async def _make(self, headers: Mapping[str, str], body: Body) -> aiohttp.ClientResponse:
        payload = _Payload(body)
        options = self._options

        async def keep(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            self._kept = request, handler, payload
            self._said = headers.keys()
            return await handler(request)

        if self._keep and body.length is not None:  # a request that was chunked once stays so
            options = {**options, "middlewares": (keep,)}
        return await self._session.request(
            "POST", data=payload, headers={**self._headers, **headers}, **options
        )


class _Payload(aiohttp.Payload):
    """A body as aiohttp takes it; another one may be put in its place once it was answered."""

    _autoclose = True

    def __init__(self, body: Body) -> None:
        super().__init__(None, content_type="application/json")
        self._size = body.length
        self.body = body

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002  # aiohttp's signature
        """Not offered: a body may be a stream."""
        raise TypeError("an upload has no text form")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """As write_with_length(): the length is the body's own."""
        await self.body.write(writer)

    def write_with_length(
        self,
        writer: AbstractStreamWriter,
        content_length: int | None,  # noqa: ARG002  # aiohttp's signature
    ) -> Coroutine[Any, Any, None]:
        """Write the body."""
        return self.body.write(writer)
