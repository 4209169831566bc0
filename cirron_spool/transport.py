"""One HTTP request, one answer. The only room that knows aiohttp; its errors are translated here, once.

No retry, no redirect, no cookie, no decompression, no disk. An answer is read up to 64 KB; what takes longer than the
silence limit is ended by a watch that knows how many bytes the peer's kernel has taken.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import sys
import urllib.request
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import anyio.to_thread
from yarl import URL

from cirron_spool import __version__
from cirron_spool.config import is_loopback
from cirron_spool.errors import ConfigError
from cirron_spool.naming import printable
from cirron_spool.verdict import Answer, NoAnswer

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

if sys.platform == "win32":

    def ioctl(fd: int, request: int, argument: bytes) -> bytes:
        """Windows cannot be asked; nothing waits, then."""
        del fd, request
        return argument

    FIONREAD = TIOCOUTQ = 0
else:
    from fcntl import ioctl
    from termios import FIONREAD, TIOCOUTQ

PRODUCT = f"cirron-spool/{__version__}"

_COMMON_HEADERS = {"User-Agent": PRODUCT, "Accept": "application/json", "Accept-Encoding": "identity"}

# SPEC section 4: "Answers are read up to 64 KB".
_LONGEST_ANSWER = 64 * 1024
# One write to the connection. Small enough that a write never holds the loop, large enough to keep a fast link full;
# a raw body above 1 MiB in one write stalled the loop for 35 ms at 70 MB.
_WRITE_BYTES = 256 * 1024
# The watch looks this many times per silence limit, so that a limit is overrun by an eighth at most.
_LOOKS_PER_LIMIT = 8
_SLOWEST_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Upload:
    """A request body: ``parts`` held in memory, or a ``stream`` of parts to be opened anew for each attempt.

    ``length`` in bytes becomes Content-Length; None sends it chunked.
    """

    parts: tuple[bytes, ...] = ()
    length: int | None = 0
    stream: Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]] | None = None


class _StaleConnectionError(OSError):
    """Something had arrived on a kept-alive connection before we asked anything: not an answer to us."""


class _Exchange:
    """The state of one request on the wire, for the watch."""

    __slots__ = (
        "_acked",
        "body_error",
        "last_progress",
        "sent",
        "stale",
        "timed_out",
        "transport",
        "written",
    )

    def __init__(self, now: float) -> None:
        self.transport: asyncio.WriteTransport | None = None
        self.body_error: OSError | None = None
        self.sent = False
        self.stale = False
        self.timed_out = False
        self.last_progress = now
        self.written = 0
        self._acked = -1

    def wrote(self, size: int, now: float) -> None:
        self.written += size
        self.last_progress = now

    def look(self, now: float) -> None:
        """Notice bytes that the peer has taken since the last look."""
        if self.transport is not None:
            acked = self.written - self.transport.get_write_buffer_size() - _unacknowledged(self.transport)
            if acked != self._acked:
                # The first look after the last byte finds a change too; the limit runs from the write itself then.
                if self._acked >= 0:
                    self.last_progress = now
                self._acked = acked

    @property
    def all_taken(self) -> bool:
        """Whether the whole body left this process before now."""
        return self.sent and (self.transport is None or self.transport.get_write_buffer_size() == 0)


class _Body(aiohttp.Payload):
    """An Upload as aiohttp wants it: written in bounded parts, noting what was handed to the connection."""

    _autoclose = True

    def __init__(self, upload: Upload, exchange: _Exchange, answered: weakref.WeakSet[Any]) -> None:
        super().__init__(upload, content_type="application/json")
        self._size = upload.length
        self._upload = upload
        self._exchange = exchange
        self._answered = answered

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002  # aiohttp's signature
        """Not offered: a body may be a stream."""
        raise TypeError("an upload has no text form")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body; raises _StaleConnectionError before the first byte when the connection is not quiet."""
        exchange = self._exchange
        exchange.transport = writer.transport
        self._refuse_stale(writer)
        now = asyncio.get_running_loop().time
        if self._upload.stream is not None:
            async with self._upload.stream() as parts:
                while (part := await self._next_part(parts)) is not None:
                    await self._write_part(writer, part, now)
        else:
            for part in self._upload.parts:
                await self._write_part(writer, part, now)
        exchange.sent = True

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002
        """As write(): the length is the body's own."""
        await self.write(writer)

    async def _next_part(self, parts: AsyncIterator[bytes]) -> bytes | None:
        try:
            return await anext(parts)
        except StopAsyncIteration:
            return None
        except OSError as error:  # the disk's, not the network's: kept apart from what aiohttp makes of it
            self._exchange.body_error = error
            raise

    async def _write_part(self, writer: AbstractStreamWriter, part: bytes, now: Callable[[], float]) -> None:
        if len(part) <= _WRITE_BYTES:
            await writer.write(part)
            self._exchange.wrote(len(part), now())
            return
        view = memoryview(part)
        for start in range(0, len(part), _WRITE_BYTES):
            piece = view[start : start + _WRITE_BYTES]
            await writer.write(piece)
            self._exchange.wrote(len(piece), now())

    def _refuse_stale(self, writer: AbstractStreamWriter) -> None:
        # An answer left over from the request before, already parsed: aiohttp would match it to this one.
        protocol = getattr(writer, "protocol", None)
        left_over = protocol is not None and protocol.should_close
        # One that the event loop has not read yet. A fresh TLS connection may hold session tickets, so only a
        # connection that has answered before is asked.
        transport = writer.transport
        if left_over or (transport is not None and transport in self._answered and _unread(transport)):
            self._exchange.stale = True
            raise _StaleConnectionError("an answer was left over on the connection")


class Transport:
    """A client for one flush: an aiohttp session, its TLS context, proxies, and the watch over silence.

    ``timeout_ms`` bounds silence as SPEC section 4 defines it. With ``session`` the caller's own session is used and
    left open; its cookies and proxies are the caller's.
    """

    def __init__(
        self, *, timeout_ms: int, connections: int = 1, session: aiohttp.ClientSession | None = None
    ) -> None:
        self._timeout_ms = timeout_ms
        self._limit_s = timeout_ms / 1000
        self._connections = connections
        self._session = session
        self._own = session is None
        self._loop = asyncio.get_running_loop()
        self._routes: dict[str, _Route] = {}
        self._tls: ssl.SSLContext | None = None
        self._exchanges: set[_Exchange] = set()
        self._watch: asyncio.TimerHandle | None = None
        # Connections that have carried a whole answer.
        self._answered: weakref.WeakSet[Any] = weakref.WeakSet()
        self._timeout = aiohttp.ClientTimeout(total=None, connect=self._limit_s, sock_connect=self._limit_s)
        self._whole_timeout = aiohttp.ClientTimeout(total=self._limit_s)

    async def __aenter__(self) -> Self:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=self._timeout,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self._own and self._session is not None:
            await self._session.close()

    # -- requests --------------------------------------------------------------------------------------------

    async def post(self, url: str, headers: Mapping[str, str], upload: Upload) -> Answer | NoAnswer:
        """POST ``upload``; the answer, or why there is none.

        Never raises for what a network or a server does; an OSError is the upload's own stream's.
        """
        outcome = await self._exchange("POST", url, headers, upload)
        if outcome is None:
            # The connection was stale, nothing was sent on it, and it is closed now: this one is a fresh one.
            outcome = await self._exchange("POST", url, headers, upload)
        return outcome if outcome is not None else NoAnswer("the server talks without being asked")

    async def get(self, url: str, headers: Mapping[str, str]) -> Answer | NoAnswer:
        """GET ``url``; as :meth:`post`."""
        return await self._exchange("GET", url, headers, None) or NoAnswer("the connection was stale")

    async def post_json(self, url: str, headers: Mapping[str, str], document: object) -> Answer | NoAnswer:
        """POST a small JSON document; as :meth:`post`."""
        body = json.dumps(document).encode()
        headers = {**headers, "Content-Type": "application/json"}
        return await self.post(url, headers, Upload((body,), len(body)))

    async def preconnect(self, url: str) -> None:
        """Open a connection to the origin of ``url`` ahead of its first request. Best effort: errors wait for it."""
        session = self._session
        if session is None or session.connector is None or not self._own:
            return
        with suppress(aiohttp.ClientError, OSError, ValueError, TypeError):
            route = await self._find_route(url)
            request = aiohttp.ClientRequest(
                "POST", route.url, loop=self._loop, session=session, ssl=route.tls, proxy=route.proxy_url
            )
            connection = await session.connector.connect(request, traces=[], timeout=self._timeout)
            connection.release()

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], upload: Upload | None
    ) -> Answer | NoAnswer | None:
        """One request; None when the connection turned out stale before anything was sent."""
        if self._session is None:
            raise RuntimeError("the transport is not open")
        route = self._routes.get(url) or await self._find_route(url)
        exchange = _Exchange(self._loop.time())
        self._exchanges.add(exchange)
        if self._watch is None:
            self._look()
        try:
            response = await self._session.request(
                method,
                route.url,
                data=_Body(upload, exchange, self._answered) if upload is not None else None,
                headers={**_COMMON_HEADERS, **headers},
                allow_redirects=False,
                auto_decompress=False,
                raise_for_status=False,
                # Without a body there is no upload to watch: then the limit is the whole request's.
                timeout=self._timeout if upload is not None else self._whole_timeout,
                ssl=route.tls,
                proxy=route.proxy_url,
                proxy_headers=route.proxy_headers,
            )
            try:
                early = upload is not None and not exchange.all_taken
                content, complete = await _read(response)
            except BaseException:
                response.close()
                raise
            if not complete or early or exchange.stale:
                response.close()
            # First of all what we did ourselves: an aborted connection can look like the orderly end of an answer.
            if exchange.timed_out:
                return self._silence()
            if exchange.stale:
                return None
            if exchange.transport is not None:
                self._answered.add(exchange.transport)
            return Answer(
                status=response.status,
                reason=response.reason or "",
                headers=response.headers,
                body=content,
                complete=complete,
                delimited="Content-Length" in response.headers or "Transfer-Encoding" in response.headers,
                early=early,
                proxy=route.proxy_shown,
                sent=exchange.written,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if exchange.body_error is not None:
                raise exchange.body_error from None
            if exchange.timed_out or isinstance(error, TimeoutError):
                return self._silence()
            return None if exchange.stale else _translate(error, route)
        finally:
            self._exchanges.discard(exchange)

    # -- silence ---------------------------------------------------------------------------------------------

    def _silence(self) -> NoAnswer:
        return NoAnswer(f"timed out after {self._timeout_ms}ms")

    def _look(self) -> None:
        """Cut what has not moved for the silence limit, and look again soon while anything is under way."""
        now = self._loop.time()
        for exchange in self._exchanges:
            exchange.look(now)
            if exchange.transport is not None and now - exchange.last_progress >= self._limit_s:
                exchange.timed_out = True
                exchange.transport.abort()
        pause = min(self._limit_s / _LOOKS_PER_LIMIT, _SLOWEST_LOOK_S)
        self._watch = self._loop.call_later(pause, self._look)

    # -- routes ----------------------------------------------------------------------------------------------

    async def _find_route(self, url: str) -> _Route:
        """Look up proxies and certificates for ``url``, once. Raises ConfigError when they cannot be used."""
        target = URL(url, encoded=True)
        if not self._own:
            route = _Route(target)
        else:
            # Certificates are files, and a system's proxies may be asked of another process.
            if self._tls is None and target.scheme == "https":
                self._tls = await anyio.to_thread.run_sync(_tls_context)
            route = await anyio.to_thread.run_sync(_look_up_route, target, self._tls or True)
        self._routes[url] = route
        return route


@dataclass(frozen=True, slots=True)
class _Route:
    """How to reach a URL: the TLS context, and the proxy with its credentials apart from its address."""

    url: URL
    tls: ssl.SSLContext | bool = True
    proxy_url: URL | None = None
    proxy_headers: dict[str, str] | None = None
    proxy_shown: str = ""


def _tls_context() -> ssl.SSLContext:
    """Certificates are verified with the system's trust store, and with SSL_CERT_FILE where that is set."""
    import truststore

    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    extra = os.environ.get("SSL_CERT_FILE")
    if extra:
        try:
            context.load_verify_locations(extra)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"Cannot load certificates from SSL_CERT_FILE={printable(extra)}: {error}. Correct or unset it."
            ) from None
    return context


def _look_up_route(target: URL, tls: ssl.SSLContext | bool) -> _Route:
    """The proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY (or the system) name for ``target``. Blocking."""
    host = target.host or ""
    proxies = urllib.request.getproxies()
    text = proxies.get(target.scheme) or proxies.get("all")
    if not text or urllib.request.proxy_bypass(f"{host}:{target.port}"):
        return _Route(target, tls)
    if "://" not in text:
        text = f"http://{text}"
    try:
        proxy = URL(text)
    except ValueError:
        proxy = URL()
    if proxy.scheme not in ("http", "https") or not proxy.host:
        raise ConfigError(
            f"The proxy for {target.scheme} is not an http proxy. Correct HTTPS_PROXY or HTTP_PROXY."
        )
    shown = f"{proxy.scheme}://{proxy.host}:{proxy.port}"
    # A token for this machine itself never crosses the network in the clear, not even by way of a proxy.
    if target.scheme == "http" and is_loopback(host) and not is_loopback(proxy.host):
        return _Route(target, tls)
    headers = None
    if proxy.user is not None:
        pair = f"{proxy.user}:{proxy.password or ''}".encode()
        headers = {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return _Route(target, tls, proxy.with_user(None), headers, shown)


# -- small parts -----------------------------------------------------------------------------------------------


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


def _translate(error: Exception, route: _Route) -> Answer | NoAnswer:
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
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
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


def _unread(transport: asyncio.WriteTransport) -> bool:
    """Whether bytes wait unread in the kernel. The end of the connection is not seen: it shows by itself."""
    sock = transport.get_extra_info("socket")
    try:
        return sock is not None and ioctl(sock.fileno(), FIONREAD, b"\0\0\0\0") != b"\0\0\0\0"
    except OSError:
        return True


def _unacknowledged(transport: asyncio.WriteTransport) -> int:
    """Bytes in the kernel's send queue that the peer's kernel has not confirmed; 0 where that cannot be asked."""
    if sys.platform != "linux":
        return 0
    sock = transport.get_extra_info("socket")
    try:
        return int.from_bytes(ioctl(sock.fileno(), TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
    except (OSError, AttributeError):
        return 0
