"""A forward proxy: CONNECT tunnels and absolute-form requests, with a password if a test wants one."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from .answers import Answer, html
from .background import BackgroundServer
from .wire import ClientGoneError, ProtocolError, Request, read_body, read_head

_HOP_BY_HOP = {"proxy-authorization", "proxy-connection", "host"}


class ProxyServer(BackgroundServer):
    """Forwards to wherever it is asked, or always to `target` (host, port), so that no name is ever resolved.

    `credentials` is the whole value that Proxy-Authorization must have (``Basic …``); anything else gets 407.
    `answer` is given to every request in place of forwarding. `requests` is what the proxy itself saw:
    for a tunnel the CONNECT only.
    """

    def __init__(
        self,
        *,
        target: tuple[str, int] | None = None,
        credentials: str | None = None,
        answer: Answer | None = None,
    ) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self._target = target
        self._credentials = credentials
        self._answer = answer

    async def _converse(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            while request := await self._next(number, reader):
                if refusal := self._refusal(request):
                    writer.write(refusal.render())
                    await writer.drain()
                    return
                if upstream is None:
                    upstream = await self._connect(request, writer)
                if request.method == "CONNECT":
                    await pump(reader, upstream)
                    return
                upstream.write(_origin_form(request))
                await upstream.drain()
        except ClientGoneError:
            pass
        except ProtocolError as exc:
            self.errors.append(f"connection {number}: {exc}")
        finally:
            if upstream is not None:
                upstream.close()

    async def _next(self, number: int, reader: asyncio.StreamReader) -> Request | None:
        request = await read_head(reader, number)
        if request is not None:
            with self.changed:
                self.requests.append(request)
                self.changed.notify_all()
            if request.method != "CONNECT":
                await read_body(reader, request, progress=self._notify)
        return request

    async def _connect(self, request: Request, writer: asyncio.StreamWriter) -> asyncio.StreamWriter:
        """The way to the origin; from then on what comes from there is copied to the client as it is."""
        host, port = self._target or _where(request)
        upstream_reader, upstream = await asyncio.open_connection(host, port)
        if request.method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self._start(pump(upstream_reader, writer))
        return upstream

    def _refusal(self, request: Request) -> Answer | None:
        if self._credentials is not None and request.headers.get("proxy-authorization") != self._credentials:
            wants = ("Proxy-Authenticate", 'Basic realm="proxy"')
            return html(407, "<h1>Proxy Authentication Required</h1>", headers=[wants], close=True)
        return self._answer


def _where(request: Request) -> tuple[str, int]:
    parts = urlsplit(f"//{request.target}" if request.method == "CONNECT" else request.target)
    if parts.hostname is None:
        raise ProtocolError(f"not for a proxy: {request.target}")
    return parts.hostname, parts.port or 80


def _origin_form(request: Request) -> bytes:
    """The request as a proxy passes it on. Chunked bodies go out with a length: the bytes are the same."""
    parts = urlsplit(request.target)
    if not parts.netloc:
        raise ProtocolError(f"not for a proxy: {request.target}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{request.method} {path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [
        f"{name}: {value}" for name, value in request.headers.raw if name.lower() not in _dropped(request)
    ]
    if request.chunked:
        lines.append(f"Content-Length: {len(request.body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + request.body


def _dropped(request: Request) -> set[str]:
    return _HOP_BY_HOP | ({"transfer-encoding"} if request.chunked else set())


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until either side ends."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except (OSError, RuntimeError):
        pass  # the other side is gone; the caller closes both
