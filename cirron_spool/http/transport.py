"""One HTTP request, one answer: no retry, no redirect, no cookie, no decompression.

An exchange is a request and its answer. The stall watchdog bounds each exchange in every state of its connection.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from cirron_spool import __version__
from cirron_spool.concurrency.shield import complete
from cirron_spool.concurrency.threads import in_daemon_thread
from cirron_spool.errors import ConfigError
from cirron_spool.http.aiohttp_compat import REQUEST_ERRORS, protocol_of
from cirron_spool.http.answer_reader import read_answer
from cirron_spool.http.bandwidth import Bandwidth
from cirron_spool.http.connection import Connection, had_exchange
from cirron_spool.http.hosts import host_and_port
from cirron_spool.http.network_errors import translate
from cirron_spool.http.proxies import Proxy
from cirron_spool.http.resolver import Resolver
from cirron_spool.http.route import Route, find_route
from cirron_spool.http.upload_body import Upload, UploadBody
from cirron_spool.http.watchdog import Exchange, StallWatchdog
from cirron_spool.protocol.answer import Answer, NoAnswer

PRODUCT = f"cirron-spool/{__version__}"

_COMMON_HEADERS = {"User-Agent": PRODUCT, "Accept": "application/json", "Accept-Encoding": "identity"}

_UNSOLICITED = NoAnswer("the server sent bytes before the request")


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """The route, session, headers and options of all requests to one URL."""

    route: Route
    session: aiohttp.ClientSession
    headers: dict[str, str]
    options: dict[str, Any]


class Transport:
    """Sends requests through one connection pool. A context manager.

    ``timeout_ms`` is the longest time without progress (docs/contract.md, Retry and waiting). A given ``session`` sends
    the requests with its own cookies, proxies and TLS, and stays open. ``route`` is a known route. ``bandwidth`` bounds
    the bytes of all bodies together, in bytes a second.
    """

    def __init__(
        self,
        *,
        timeout_ms: int,
        session: aiohttp.ClientSession | None = None,
        route: Route | None = None,
        bandwidth: int | None = None,
    ) -> None:
        self._bandwidth = Bandwidth(bandwidth) if bandwidth is not None else None
        self._timeout_ms = timeout_ms
        self._limit_s = timeout_ms / 1000
        self._session = session
        self._own = session is None
        self._loop = asyncio.get_running_loop()
        self._defaults: dict[str, RequestDefaults] = {}
        self._routes: dict[URL, Route] = {}
        self._tls: ssl.SSLContext | None = None
        if route is not None:
            self._remember_route(route)
        self._watchdog = StallWatchdog(self._limit_s)
        self._resolver = Resolver()
        # The window bounds the connections. Without a DNS cache, a retry finds a corrected address.
        self._pool_options: dict[str, Any] = {"limit": 0, "limit_per_host": 0, "use_dns_cache": False}
        self._socks_sessions: dict[Proxy, aiohttp.ClientSession] = {}
        # The watchdog bounds each exchange, so aiohttp's timeouts are off, also in a caller's session.
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
        self._watchdog.close()
        for session in self._socks_sessions.values():
            await session.close()
        if self._own and self._session is not None:
            await self._session.close()

    # -- requests --------------------------------------------------------------------------------------------

    async def post(self, url: str, headers: Mapping[str, str], upload: Upload) -> Answer | NoAnswer:
        """POST ``upload``. Returns the answer, or the reason for its absence.

        After a stale connection, the upload is sent again on a new one; that is no retry. Raises ConfigError for an
        unusable proxy, certificate or session, and the OSError of the upload's stream.
        """
        return await self._upload("POST", url, headers, upload)

    async def put(self, url: str, headers: Mapping[str, str], upload: Upload) -> Answer | NoAnswer:
        """PUT ``upload``; as :meth:`post`. Each file has its own ``url``, so its defaults are not cached."""
        try:
            return await self._upload("PUT", url, headers, upload)
        finally:
            self._defaults.pop(url, None)

    async def _upload(
        self, method: str, url: str, headers: Mapping[str, str], upload: Upload
    ) -> Answer | NoAnswer:
        once, bandwidth = method != "POST", self._bandwidth
        body = UploadBody(upload, once=once, bandwidth=bandwidth)
        outcome = await self._upload_once(method, url, headers, body)
        while outcome is None:  # each iteration closes one connection of the pool
            if upload.before_repeat is not None:
                await upload.before_repeat()
            body = UploadBody(upload, require_new=True, once=once, bandwidth=bandwidth)
            outcome = await self._upload_once(method, url, headers, body)
        return outcome

    async def _upload_once(
        self, method: str, url: str, headers: Mapping[str, str], body: UploadBody
    ) -> Answer | NoAnswer | None:
        """As :meth:`post`; None when the connection was stale or unfit."""
        outcome: Answer | NoAnswer | None = None
        try:
            outcome = await self._exchange(method, url, headers, body, body)
        except REQUEST_ERRORS as error:
            if body.stream_error is not None:
                raise body.stream_error from None
            if body.timed_out or not (body.connection_rejected or body.connection_was_stale):
                return self._translate(error, url, body)
        finally:
            if body.has_open_stream:
                await complete(body.wait_until_stream_closed())
        if outcome is None or body.connection_rejected or body.connection is None:
            # Nothing was sent, or no byte arrived. Such an answer belongs to no request.
            return None if body.connection_reused else _UNSOLICITED
        return outcome

    async def get(self, url: str, headers: Mapping[str, str]) -> Answer | NoAnswer:
        """GET ``url``; as :meth:`post`, but aiohttp replaces a stale connection."""
        exchange = Exchange()
        try:
            return await self._exchange("GET", url, headers, exchange, None)
        except REQUEST_ERRORS as error:
            return self._translate(error, url, exchange)

    async def post_json(self, url: str, headers: Mapping[str, str], document: object) -> Answer | NoAnswer:
        """POST a small JSON document; as :meth:`post`."""
        body = json.dumps(document).encode()
        headers = {**headers, "Content-Type": "application/json"}
        return await self.post(url, headers, Upload((body,), len(body)))

    async def resolve(self, url: str) -> None:
        """Find the route to ``url``, so that the first requests start at once and in order."""
        if url not in self._defaults:
            with suppress(OSError):  # the request reports it
                async with asyncio.timeout(self._limit_s):
                    await self._find_defaults(url)

    async def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        exchange: Exchange,
        body: UploadBody | None,
    ) -> Answer | NoAnswer:
        """Send a request and read its answer. Raises one of REQUEST_ERRORS, TimeoutError after a stall, ConfigError."""
        with self._watchdog.watch(exchange):
            defaults = self._defaults.get(url) or await self._find_defaults(url)
            if defaults.headers:
                headers = {**defaults.headers, **headers}
            try:
                response = await defaults.session.request(
                    method, data=body, headers=headers, **defaults.options
                )
            except REQUEST_ERRORS:
                raise
            except ValueError as error:
                if self._own:
                    raise
                # Credentials of the session would replace the token.
                raise ConfigError(
                    f"The session cannot send this request: {error}. Correct the session."
                ) from error
            try:
                if body is None:
                    exchange.connection = Connection.of(protocol_of(response))
                    if exchange.connection is not None:
                        exchange.connection.mark_used()
                elif body.connection is None:
                    # Before Python 3.12, aiohttp writes the body in a task that may not have started.
                    body.connection_reused = had_exchange(protocol_of(response))
                outcome = await read_answer(response, exchange, defaults.route.http_proxy)
            except BaseException:
                response.close()
                raise
            reusable = isinstance(outcome, Answer) and outcome.complete and not outcome.early
            if not (reusable and response.closed):  # aiohttp leaves the answer open after a 101
                response.close()
                if exchange.connection is not None:
                    exchange.connection.abort()  # an orderly close would wait for the peer
            return outcome

    def _translate(self, error: BaseException, url: str, exchange: Exchange) -> Answer | NoAnswer:
        """The outcome of an exchange that raised ``error``."""
        target, defaults = URL(url, encoded=True), self._defaults.get(url)
        proxy = defaults.route.proxy if defaults is not None else None
        if exchange.timed_out:
            hosts = {target.raw_host} if proxy is None else {target.raw_host, proxy.host}
            names = hosts & self._resolver.unanswered if exchange.connection is None else ()
            at = f" while looking up {next(iter(names))}" if names else ""
            through = f" through the proxy {proxy.display_url}" if proxy is not None else ""
            return NoAnswer(f"timed out after {self._timeout_ms}ms{at}{through}")
        return translate(
            error,
            peer=host_and_port(target.host, target.port),
            proxy=proxy,
            connected=exchange.connection is not None,
            sent=exchange.fully_sent,
        )

    def _session_for(self, route: Route) -> aiohttp.ClientSession:
        """The session for ``route``: each SOCKS proxy has its own."""
        if self._session is None:
            raise RuntimeError("the transport is not open")
        proxy = route.proxy
        if proxy is None or not proxy.is_socks:
            return self._session
        if proxy not in self._socks_sessions:
            from cirron_spool.http.socks import SocksConnector

            connector = SocksConnector(proxy, self._resolver, **self._pool_options)
            self._socks_sessions[proxy] = self._new_session(connector)
        return self._socks_sessions[proxy]

    def _new_session(self, connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            headers=_COMMON_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=self._timeout,
        )

    # -- routes ----------------------------------------------------------------------------------------------

    async def _find_defaults(self, url: str) -> RequestDefaults:
        """The defaults for ``url``. The route is found once for each origin. Raises ConfigError."""
        target = URL(url, encoded=True)
        known = self._routes.get(target.origin())
        if known is not None:
            route = replace(known, url=target)
        elif not self._own:
            route = Route(target)
        else:
            route = await in_daemon_thread(partial(find_route, url, self._tls), "cirron-spool route")
        self._remember_route(route)
        defaults = self._defaults[url] = self._defaults_for(route)
        return defaults

    def _defaults_for(self, route: Route) -> RequestDefaults:
        options: dict[str, Any] = {"url": route.url, "allow_redirects": False}
        if route.tls is not True:
            options["ssl"] = route.tls
        if route.proxy_url is not None:
            options |= {"proxy": route.proxy_url, "proxy_headers": route.proxy_headers}
        headers = route.request_headers
        if not self._own:  # a caller's session has other defaults
            headers = {**_COMMON_HEADERS, **headers}
            options |= {"timeout": self._timeout, "auto_decompress": False, "raise_for_status": False}
        return RequestDefaults(route, self._session_for(route), headers, options)

    def _remember_route(self, route: Route) -> None:
        """Keep the route for its origin, and its TLS context for all origins."""
        self._routes[route.url.origin()] = route
        if isinstance(route.tls, ssl.SSLContext):
            self._tls = route.tls
