"""One HTTP request, one answer. With ``post``, and ``wire`` as to connections, the only room that knows aiohttp.

Its errors are translated here, once. No retry, no redirect, no cookie, no decompression, no disk. An answer is read up
to 64 KB; what takes longer than the silence limit is ended by a watch that knows how many bytes the peer's kernel has
taken.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import aiohttp
import anyio.to_thread
from yarl import URL

from cirron_spool import __version__
from cirron_spool.awaiting import complete
from cirron_spool.post import Post
from cirron_spool.proxies import Route, look_up
from cirron_spool.verdict import Answer, NoAnswer
from cirron_spool.wire import Body, Connections, Upload, Watch

PRODUCT = f"cirron-spool/{__version__}"

_COMMON_HEADERS = {"User-Agent": PRODUCT, "Accept": "application/json", "Accept-Encoding": "identity"}

# SPEC section 4: "Answers are read up to 64 KB".
_LONGEST_ANSWER = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Way:
    """A route with what each request that takes it says, and asks of aiohttp: made once, since batches are many.

    ``posts`` are those that are free.
    """

    route: Route
    headers: dict[str, str]
    options: dict[str, Any]
    posts: list[Post]

    @classmethod
    def by(cls, route: Route) -> Self:
        return cls(
            route,
            {**_COMMON_HEADERS, **route.own_headers},
            {
                "url": route.url,
                "allow_redirects": False,
                "auto_decompress": False,
                "raise_for_status": False,
                "ssl": route.tls,
                "proxy": route.proxy_url,
                "proxy_headers": route.proxy_headers,
            },
            [],
        )


class Transport:
    """A client for one flush: an aiohttp session, its TLS context, proxies, and the watch over silence.

    ``timeout_ms`` bounds silence as SPEC section 4 defines it. With ``session`` the caller's own session is used and
    left open; its cookies and proxies are the caller's. ``route`` is one that was looked up already.
    """

    def __init__(
        self,
        *,
        timeout_ms: int,
        connections: int = 1,
        session: aiohttp.ClientSession | None = None,
        route: Route | None = None,
    ) -> None:
        self._timeout_ms = timeout_ms
        self._limit_s = timeout_ms / 1000
        self._most_connections = connections
        self._session = session
        self._own = session is None
        self._loop = asyncio.get_running_loop()
        self._ways: dict[str, _Way] = {}
        self._routes_to: dict[URL, Route] = {}
        self._tls: ssl.SSLContext | None = None
        if route is not None:
            self._keep(route)
        self._watch = Watch(self._limit_s)
        self._connections: Connections = {}
        self._timeout = aiohttp.ClientTimeout(total=None, connect=self._limit_s, sock_connect=self._limit_s)
        self._whole_timeout = aiohttp.ClientTimeout(total=self._limit_s)

    async def __aenter__(self) -> Self:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=self._most_connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=self._timeout,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.close()
        self._connections.clear()  # a caller's session keeps some of them
        if self._own and self._session is not None:
            await self._session.close()

    # -- requests --------------------------------------------------------------------------------------------

    async def post(self, url: str, headers: Mapping[str, str], upload: Upload) -> Answer | NoAnswer:
        """POST ``upload``; the answer, or why there is none.

        Never raises for what a network or a server does; an OSError is the upload's own stream's.
        """
        # After a stale connection, on which nothing was sent and which is closed now, the next one is a fresh one.
        return (
            await self._post(url, headers, upload)
            or await self._post(url, headers, upload)
            or NoAnswer("the server talks without being asked")
        )

    async def _post(self, url: str, headers: Mapping[str, str], upload: Upload) -> Answer | NoAnswer | None:
        """As :meth:`post`; None when the connection turned out stale before anything was sent."""
        way = self._ways.get(url) or await self._find_way(url)
        post = way.posts.pop() if way.posts else self._new_post(way)
        body = Body(upload, self._connections)
        self._watch.begin(body)
        try:
            response = await post.send(headers, body)
            try:
                early = not body.all_taken
                content, whole = _read_at_once(response) or await _read(response)
            except BaseException:
                response.close()
                raise
            # Before 3.12 aiohttp writes in a task that may not have run yet: then this answers nothing of ours either.
            unasked = body.stale or body.transport is None
            if not whole or early or unasked:
                response.close()
            else:
                post.let_go()
                way.posts.append(post)
            # First of all what we did ourselves: an aborted connection can look like the orderly end of an answer.
            if body.timed_out:
                return self._timed_out()
            if unasked:
                return None
            delimited = _is_delimited(response)
            return Answer(
                response.status,
                response.reason or "",
                response.headers,
                content,
                whole and (delimited or not body.reset),
                delimited,
                early,
                way.route.proxy_shown,
                body.written,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if body.body_error is not None:
                raise body.body_error from None
            if body.timed_out or isinstance(error, TimeoutError):
                return self._timed_out()
            return None if body.stale else _translate(error, way.route)
        finally:
            self._watch.end(body)
            if body.streaming is not None:
                await complete(body.left())

    async def get(self, url: str, headers: Mapping[str, str]) -> Answer | NoAnswer:
        """GET ``url``; as :meth:`post`. Without an upload to watch, the limit is the whole request's."""
        session = self._opened()
        way = self._ways.get(url) or await self._find_way(url)
        try:
            async with session.request(
                "GET", headers={**way.headers, **headers}, timeout=self._whole_timeout, **way.options
            ) as response:
                content, whole = await _read(response)
                if not whole:
                    response.close()
        except TimeoutError:
            return self._timed_out()
        except (aiohttp.ClientError, OSError) as error:
            return _translate(error, way.route)
        return Answer(
            response.status,
            response.reason or "",
            response.headers,
            content,
            whole,
            _is_delimited(response),
            proxy=way.route.proxy_shown,
        )

    async def post_json(self, url: str, headers: Mapping[str, str], document: object) -> Answer | NoAnswer:
        """POST a small JSON document; as :meth:`post`."""
        body = json.dumps(document).encode()
        headers = {**headers, "Content-Type": "application/json"}
        return await self.post(url, headers, Upload((body,), len(body)))

    async def resolve(self, url: str) -> None:
        """Look up how ``url`` is reached, so that requests begun one after another go out in that order."""
        if url not in self._ways:
            await self._find_way(url)

    async def preconnect(self, url: str) -> None:
        """Open a connection to the origin of ``url`` ahead of its first request. Best effort: errors wait for it."""
        session = self._session
        if session is None or session.connector is None or not self._own:
            return
        with suppress(aiohttp.ClientError, OSError, ValueError, TypeError):
            route = (await self._find_way(url)).route
            request = aiohttp.ClientRequest(
                "POST",
                route.url,
                loop=self._loop,
                session=session,
                ssl=route.tls,
                proxy=route.proxy_url,
                proxy_headers=route.proxy_headers,  # a connection is used by those that say the same to the proxy
            )
            connection = await session.connector.connect(request, traces=[], timeout=self._timeout)
            connection.release()

    def _new_post(self, way: _Way) -> Post:
        # A caller's session may have middlewares of its own, for each request. And to what a request says to a proxy
        # aiohttp adds something, with which it would not find its connection again.
        keep = self._own and way.route.proxy_url is None
        return Post(self._opened(), way.headers, {"timeout": self._timeout, **way.options}, keep=keep)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the transport is not open")
        return self._session

    def _timed_out(self) -> NoAnswer:
        return NoAnswer(f"timed out after {self._timeout_ms}ms")

    # -- routes ----------------------------------------------------------------------------------------------

    async def _find_way(self, url: str) -> _Way:
        """Look up proxies and certificates for ``url``, once for an origin. Raises ConfigError when they are no use."""
        target = URL(url, encoded=True)
        known = self._routes_to.get(target.origin())
        if known is not None:
            route = replace(known, url=target)
        elif not self._own:
            route = Route(target)
        else:
            route = await anyio.to_thread.run_sync(look_up, url, self._tls)
        self._keep(route)
        way = self._ways[url] = _Way.by(route)
        return way

    def _keep(self, route: Route) -> None:
        """Know the way to an origin, and the certificates for all of them."""
        self._routes_to[route.url.origin()] = route
        if isinstance(route.tls, ssl.SSLContext):
            self._tls = route.tls


# -- small parts -----------------------------------------------------------------------------------------------


def _read_at_once(response: aiohttp.ClientResponse) -> tuple[bytes, bool] | None:
    """As _read(), for an answer that came whole with its headers, as nearly all do; None for others."""
    content = response.content
    if content.is_eof() and content.total_bytes <= _LONGEST_ANSWER:
        return content.read_nowait(), True
    return None


async def _read(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """The body up to 64 KB, and whether that was all of it."""
    parts: list[bytes] = []
    size = 0
    while size <= _LONGEST_ANSWER:
        part = await response.content.read(_LONGEST_ANSWER + 1 - size)
        if not part:
            return b"".join(parts), True
        parts.append(part)
        size += len(part)
    return b"".join(parts)[:_LONGEST_ANSWER], False


def _is_delimited(response: aiohttp.ClientResponse) -> bool:
    headers = response.headers
    return "Content-Length" in headers or "Transfer-Encoding" in headers


def _translate(error: Exception, route: Route) -> Answer | NoAnswer:
    """An aiohttp or socket error as a value: what a person would want to know, and whether a retry can help."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        if error.status == 407:
            return Answer(407, error.message, proxy=route.proxy_shown)
        words = f"the proxy {route.proxy_shown} answered {error.status} {error.message}"
        return NoAnswer(words, fatal=error.status < 500)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return NoAnswer(
            f"the certificate of {error.host} is not trusted: {error.certificate_error}", fatal=True
        )
    if isinstance(error, aiohttp.ClientSSLError):
        return NoAnswer(f"TLS failed: {error}", fatal=True)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return NoAnswer(f"cannot connect to the proxy {route.proxy_shown}: {_words(error)}")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return NoAnswer(f"cannot resolve {error.host}: {_words(error)}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return NoAnswer(f"cannot connect to {error.host}:{error.port}: {_words(error)}")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return NoAnswer("the server closed the connection before it answered")
    if isinstance(error, aiohttp.ClientPayloadError):
        return NoAnswer("the answer was cut")
    if isinstance(error, aiohttp.ClientResponseError):
        return NoAnswer("the answer is not HTTP")
    return NoAnswer(_words(error))


def _words(error: BaseException) -> str:
    """The reason in an error, without aiohttp's own description of its request."""
    inner = getattr(error, "os_error", None) or error
    if isinstance(inner, OSError) and inner.errno is not None:
        # getaddrinfo's codes are negative and not errno's; its own words are right.
        return os.strerror(inner.errno) if inner.errno > 0 else (inner.strerror or str(inner))
    return str(inner) or type(inner).__name__
