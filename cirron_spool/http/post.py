"""A POST that is sent again and again, each time with another body.

To make a request, aiohttp merges its headers, checks its address and its proxy, and puts a dozen objects around it: for
a small batch a third of what the event loop has to do, each time to the same end. A middleware is given the request
that was made and a handler that sends it, more than once if it likes: aiohttp's documentation retries so. This one
keeps both and sends the request again later, after the middleware has returned, which nothing documents: that each
batch's own body and headers arrive, whatever went before, is what tests/http/test_post.py looks after.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.hdrs import CONTENT_LENGTH

from cirron_spool.http.upload_body import Body, Upload

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter


class Post:
    """POSTs of ``session``, one at a time, that all say ``headers`` and ask for ``options``.

    With ``keep`` they are one request of aiohttp's, made for the first of them; the session's own middlewares do not
    see it. A body of no known length has a request of its own.
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

        ``headers`` name nothing that the others or the body name, too. The next one may be sent once this body has left
        whole, and its answer was read whole after that; otherwise a task of aiohttp's may still be at it.
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

    def let_go(self) -> None:
        """Forget the body that was sent: the next may be long in coming, and this one large."""
        if self._kept is not None:
            _, _, payload = self._kept
            payload.body = _NO_BODY

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


_NO_BODY = Body(Upload())
