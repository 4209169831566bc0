"""One HTTP request, one answer. No retry, no redirect, no cookie, no decompression, no disk.

An answer is read up to 64 KB. A watch ends each exchange that is silent for longer than the limit, whatever its
connection is at.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.hdrs import CONTENT_LENGTH, TRANSFER_ENCODING
from yarl import URL

from cirron_spool import __version__
from cirron_spool.concurrency.shield import complete
from cirron_spool.concurrency.threads import in_daemon_thread
from cirron_spool.http.aiohttp_compat import REQUEST_ERRORS, protocol_of
from cirron_spool.http.connection import Connection, was_used
from cirron_spool.http.network_errors import address, translate
from cirron_spool.http.post import Post
from cirron_spool.http.proxies import Proxy, Route, look_up
from cirron_spool.http.resolver import Resolver
from cirron_spool.http.upload_body import Body, Exchange, Upload, Watch
from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.protocol.framing import are_whole_chunks, find_body

PRODUCT = f"cirron-spool/{__version__}"

_COMMON_HEADERS = {"User-Agent": PRODUCT, "Accept": "application/json", "Accept-Encoding": "identity"}

# SPEC section 4: "Answers are read up to 64 KB".
_LONGEST_ANSWER = 64 * 1024

_VERSIONS = frozenset({(1, 0), (1, 1)})
_BODILESS = frozenset({204, 304})
_NOT_HTTP = NoAnswer("the answer is not HTTP/1.0 or HTTP/1.1")
_UNREADABLE = NoAnswer("the answer does not say in a known way where it ends")
_BROKEN_CHUNKS = NoAnswer("the answer is not HTTP: its chunks are broken")
_TALKS_FIRST = NoAnswer("the server talks without being asked")


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """A route, and the session, headers and options of all requests that take it: made once, since batches are many.

    ``posts`` are those that are free.
    """

    route: Route
    session: aiohttp.ClientSession
    headers: dict[str, str]
    options: dict[str, Any]
    posts: list[Post]

    @classmethod
    def of(cls, route: Route, session: aiohttp.ClientSession) -> Self:
        """The defaults for requests to the URL of ``route``."""
        return cls(
            route,
            session,
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
        session: aiohttp.ClientSession | None = None,
        route: Route | None = None,
    ) -> None:
        self._timeout_ms = timeout_ms
        self._limit_s = timeout_ms / 1000
        self._session = session
        self._own = session is None
        self._loop = asyncio.get_running_loop()
        self._defaults: dict[str, RequestDefaults] = {}
        self._routes: dict[URL, Route] = {}
        self._tls: ssl.SSLContext | None = None
        if route is not None:
            self._keep(route)
        self._watch = Watch(self._limit_s)
        self._resolver = Resolver()
        # The window bounds the number of connections. Without a cache a later attempt finds a corrected address.
        self._pool_options: dict[str, Any] = {"limit": 0, "limit_per_host": 0, "use_dns_cache": False}
        self._tunnels: dict[Proxy, aiohttp.ClientSession] = {}
        # The watch bounds all of an exchange: aiohttp's own limits are off, those of a caller's session, too.
        self._timeout = aiohttp.ClientTimeout(total=None)

    async def __aenter__(self) -> Self:
        if self._session is None:
            self._session = self._new_session(
                aiohttp.TCPConnector(resolver=self._resolver, **self._pool_options)
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.close()
        for tunnel in self._tunnels.values():
            await tunnel.close()
        if self._own and self._session is not None:
            await self._session.close()

    # -- requests --------------------------------------------------------------------------------------------

    async def post(self, url: str, headers: Mapping[str, str], upload: Upload) -> Answer | NoAnswer:
        """POST ``upload``; the answer, or why there is none.

        Never raises for what a network or a server does; an OSError is the upload's own stream's. A connection that
        had waited for its next request and turns out dead costs no attempt: the upload goes out again on a fresh one.
        """
        outcome = await self._post(url, headers, Body(upload))
        while outcome is None:  # at each turn one connection of the pool is closed
            outcome = await self._post(url, headers, Body(upload, fresh=True))
        return outcome

    async def _post(self, url: str, headers: Mapping[str, str], body: Body) -> Answer | NoAnswer | None:
        """As :meth:`post`; None when the connection was dead or not quiet before the upload began."""
        post: Post | None = None

        async def send(defaults: RequestDefaults) -> aiohttp.ClientResponse:
            nonlocal post
            post = defaults.posts.pop() if defaults.posts else self._new_post(defaults)
            response = await post.send(headers, body)
            if (
                body.connection is None
            ):  # before Python 3.12 aiohttp writes in a task, which may not have run yet
                body.reused = was_used(protocol_of(response))
            return response

        outcome: Answer | NoAnswer | None = None
        try:
            outcome = await self._exchange(url, body, send)
        except REQUEST_ERRORS as error:
            if body.body_error is not None:
                raise body.body_error from None
            if body.timed_out or not (body.refused or body.died_idle):
                return self._failed(error, url, body)
        finally:
            if body.streaming is not None:
                await complete(body.closed())
        if outcome is None or body.refused or body.connection is None:
            # Nothing was sent, or nothing came back; an answer that came all the same is not for us.
            return None if body.reused else _TALKS_FIRST
        if isinstance(outcome, Answer) and outcome.complete and not outcome.early and post is not None:
            post.let_go()
            self._defaults[url].posts.append(post)
        return outcome

    async def get(self, url: str, headers: Mapping[str, str]) -> Answer | NoAnswer:
        """GET ``url``; as :meth:`post`, but a dead connection is aiohttp's to replace."""
        exchange = Exchange()

        async def send(defaults: RequestDefaults) -> aiohttp.ClientResponse:
            response = await defaults.session.request(
                "GET", headers={**defaults.headers, **headers}, timeout=self._timeout, **defaults.options
            )
            exchange.connection = Connection.of(protocol_of(response))
            if exchange.connection is not None:
                exchange.connection.note_use()
            return response

        try:
            return await self._exchange(url, exchange, send)
        except REQUEST_ERRORS as error:
            return self._failed(error, url, exchange)

    async def post_json(self, url: str, headers: Mapping[str, str], document: object) -> Answer | NoAnswer:
        """POST a small JSON document; as :meth:`post`."""
        body = json.dumps(document).encode()
        headers = {**headers, "Content-Type": "application/json"}
        return await self.post(url, headers, Upload((body,), len(body)))

    async def resolve(self, url: str) -> None:
        """Look up how ``url`` is reached, so that requests begun one after another go out in that order."""
        if url not in self._defaults:
            with suppress(OSError):  # the request itself will say so
                async with asyncio.timeout(self._limit_s):
                    await self._find_defaults(url)

    async def _exchange(
        self,
        url: str,
        exchange: Exchange,
        send: Callable[[RequestDefaults], Awaitable[aiohttp.ClientResponse]],
    ) -> Answer | NoAnswer:
        """Send a request and read its answer within the limit. Raises one of REQUEST_ERRORS, TimeoutError included."""
        async with asyncio.timeout(None) as timeout:
            self._watch.begin(exchange, timeout)
            try:
                defaults = self._defaults.get(url) or await self._find_defaults(url)
                response = await send(defaults)
                try:
                    outcome = await _hear(response, exchange, defaults.route)
                except BaseException:
                    response.close()
                    raise
                done = isinstance(outcome, Answer) and outcome.complete and not outcome.early
                if not (done and response.closed):  # after 101 it is not, whatever was read
                    response.close()
                    if exchange.connection is not None:
                        exchange.connection.abort()  # else it would stay until the peer takes what is left
                return outcome
            finally:
                self._watch.end(exchange)

    def _failed(self, error: BaseException, url: str, exchange: Exchange) -> Answer | NoAnswer:
        """What an exchange that ended with ``error`` came to."""
        target, defaults = URL(url, encoded=True), self._defaults.get(url)
        proxy = defaults.route.proxy if defaults is not None else None
        if exchange.timed_out:
            hosts = {target.raw_host} if proxy is None else {target.raw_host, proxy.host}
            names = hosts & self._resolver.unanswered if exchange.connection is None else ()
            at = f" while looking up {next(iter(names))}" if names else ""
            through = f" through the proxy {proxy.shown}" if proxy is not None else ""
            return NoAnswer(f"timed out after {self._timeout_ms}ms{at}{through}")
        return translate(
            error,
            peer=address(target.host, target.port),
            proxy=proxy,
            connected=exchange.connection is not None,
            sent=exchange.fully_sent,
        )

    def _new_post(self, defaults: RequestDefaults) -> Post:
        # A caller's session may have middlewares of its own, for each request. And to what a request says to a proxy
        # aiohttp adds something, with which it would not find its connection again.
        keep = self._own and defaults.route.proxy_url is None
        options = {"timeout": self._timeout, **defaults.options}
        return Post(defaults.session, defaults.headers, options, keep=keep)

    def _session_for(self, route: Route) -> aiohttp.ClientSession:
        """The session whose connections go by ``route``: each SOCKS proxy has one of its own."""
        if self._session is None:
            raise RuntimeError("the transport is not open")
        proxy = route.proxy
        if proxy is None or not proxy.is_socks:
            return self._session
        if proxy not in self._tunnels:
            from cirron_spool.http.socks import SocksConnector

            connector = SocksConnector(proxy, self._resolver, **self._pool_options)
            self._tunnels[proxy] = self._new_session(connector)
        return self._tunnels[proxy]

    def _new_session(self, connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=self._timeout,
        )

    # -- routes ----------------------------------------------------------------------------------------------

    async def _find_defaults(self, url: str) -> RequestDefaults:
        """Look up proxies and certificates for ``url``, once for an origin. Raises ConfigError when they are no use."""
        target = URL(url, encoded=True)
        known = self._routes.get(target.origin())
        if known is not None:
            route = replace(known, url=target)
        elif not self._own:
            route = Route(target)
        else:
            route = await in_daemon_thread(partial(look_up, url, self._tls), "cirron-spool route")
        self._keep(route)
        defaults = self._defaults[url] = RequestDefaults.of(route, self._session_for(route))
        return defaults

    def _keep(self, route: Route) -> None:
        """Know the way to an origin, and the certificates for all of them."""
        self._routes[route.url.origin()] = route
        if isinstance(route.tls, ssl.SSLContext):
            self._tls = route.tls


# -- small parts -----------------------------------------------------------------------------------------------


async def _hear(response: aiohttp.ClientResponse, exchange: Exchange, route: Route) -> Answer | NoAnswer:
    """The answer whose head has come, with its body. Raises what reading it does."""
    connection = exchange.connection
    early = not exchange.fully_sent
    received = None if connection is None else connection.received
    body_at = None if received is None else find_body(received)
    if (
        response.version not in _VERSIONS
        or response.status < 100
        or (received is not None and body_at is None)
    ):
        return _NOT_HTTP
    framed = _framing(response)
    if framed is None:
        return _UNREADABLE
    content, whole = _read_at_once(response) or await _read(response, connection)
    # Its end was marked unless the end of the connection was taken for it: then a cut cannot be seen.
    delimited = whole and (framed if connection is None else not connection.cut_short)
    if whole and delimited != framed and response.status not in _BODILESS and response.status != 101:
        return _UNREADABLE  # the parser went by something else than what the headers say
    chunked = whole and TRANSFER_ENCODING in response.headers and response.status not in _BODILESS
    if chunked and received is not None and body_at is not None and not are_whole_chunks(received, body_at):
        return _BROKEN_CHUNKS
    proxy = route.http_proxy
    return Answer(
        response.status,
        response.reason or "",
        response.headers,
        content,
        whole and (delimited or connection is None or connection.closed_in_order),
        delimited,
        early,
        proxy.shown if proxy is not None else "",
        exchange.written,
        proxy.source if proxy is not None else "",
    )


def _framing(response: aiohttp.ClientResponse) -> bool | None:
    """Whether the headers say where the body ends; None when they say it in a way that is not undone or not clear."""
    headers = response.headers
    lengths = headers.getall(CONTENT_LENGTH, None)
    codings = headers.getall(TRANSFER_ENCODING, None)
    if codings is not None:
        known = len(codings) == 1 and codings[0].isascii() and codings[0].strip(" \t").lower() == "chunked"
        return True if known and lengths is None and response.version == (1, 1) else None
    if lengths is None:
        return False
    return True if len(lengths) == 1 and lengths[0].isascii() and lengths[0].isdigit() else None


def _read_at_once(response: aiohttp.ClientResponse) -> tuple[bytes, bool] | None:
    """As _read(), for an answer that came whole with its headers, as nearly all do; None for others."""
    content = response.content
    if content.is_eof() and content.total_bytes <= _LONGEST_ANSWER:
        return content.read_nowait(), True
    return None


async def _read(response: aiohttp.ClientResponse, connection: Connection | None) -> tuple[bytes, bool]:
    """The body up to 64 KB, and whether that was all of it."""
    if connection is not None:
        connection.read_through(response.content)
    parts: list[bytes] = []
    size = 0
    while size <= _LONGEST_ANSWER:
        part = await response.content.read(_LONGEST_ANSWER + 1 - size)
        if not part:
            return b"".join(parts), True
        parts.append(part)
        size += len(part)
    return b"".join(parts)[:_LONGEST_ANSWER], False
