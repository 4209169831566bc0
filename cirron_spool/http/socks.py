"""Connections through a SOCKS proxy. Only this module calls aiohttp_socks and python_socks.

Both come with the extra ``socks``. Their errors become TunnelError here.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl as tls
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp_socks import ProxyConnector, ProxyType
from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError
from python_socks.async_.asyncio import Proxy as SocksClient

from cirron_spool.http.aiohttp_compat import Protocol, create_protocol
from cirron_spool.http.hosts import parse_address
from cirron_spool.http.network_errors import TunnelError
from cirron_spool.http.proxies import Proxy
from cirron_spool.protocol.answer import NoAnswer

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

# The default of python_socks is one minute. Here the stall watchdog sets the limit.
_NO_LIMIT_S = 86_400.0

# python_socks reports these by their text only. tests/http/test_socks.py provokes each of them.
_LOGIN_REFUSED = (
    "No acceptable authentication methods",
    "Unexpected SOCKS authentication method",
    "Username and password authentication failure",
)
# SOCKS4 replies: identd does not confirm the user.
_USER_REFUSED = frozenset({0x5C, 0x5D})
# Replies of SOCKS5 (RFC 1928, section 6) and SOCKS4: the text, and whether a retry is useless.
_REPLIES = {
    0x01: ("it failed", False),
    0x02: ("its rules do not allow it", True),
    0x03: ("the network cannot be reached", False),
    0x04: ("the host cannot be reached", False),
    0x05: ("the connection was refused", False),
    0x06: ("the host is too far away", False),
    0x07: ("it does not support connections", True),
    0x08: ("it does not know this kind of address", True),
    0x5B: ("it refused or failed", False),
}


class SocksConnector(ProxyConnector):
    """Opens the connections of a session through ``proxy``.

    ``resolver`` resolves the proxy's name, and host names if the proxy does not. ``options`` are those of
    aiohttp.TCPConnector.
    """

    def __init__(self, proxy: Proxy, resolver: AbstractResolver, **options: Any) -> None:
        super().__init__(proxy.host, proxy.port, **options)
        self._socks_proxy = proxy
        self._own_resolver = resolver

    async def _connect_via_proxy(
        self,
        host: str,
        port: int,
        ssl: tls.SSLContext | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # aiohttp_socks's signature
    ) -> tuple[asyncio.Transport, Protocol]:
        """Connect to ``host``. Raises TunnelError, or OSError for an error beyond the proxy."""
        # The original private method of aiohttp_socks cannot be cancelled in a lookup or a TLS handshake.
        async with asyncio.timeout(timeout):
            return await self._loop.create_connection(
                partial(create_protocol, self._loop),
                sock=await self._open_tunnel(host, port),
                ssl=ssl,
                server_hostname=host.rstrip(".") if ssl is not None else None,
            )

    async def _open_tunnel(self, host: str, port: int) -> socket.socket:
        """Open a socket that the proxy connects to ``host``."""
        proxy = self._socks_proxy
        kind = ProxyType.SOCKS5 if proxy.socks_version == 5 else ProxyType.SOCKS4
        target = await self._target(host)
        refused: OSError | None = None
        for address in await self._resolve(proxy.host, f"the proxy {proxy.display_url}"):
            # The proxy gets `target` unchanged, since _target() has resolved it if necessary.
            client = SocksClient(kind, address, proxy.port, proxy.user, proxy.password, rdns=True)
            try:
                return await client.connect(target, port, timeout=_NO_LIMIT_S)
            except ProxyTimeoutError:  # the operating system's time limit
                raise TimeoutError from None
            except ProxyConnectionError as error:
                refused = error
            except ProxyError as error:
                raise TunnelError(_refusal(proxy, f"{host}:{port}", error)) from error
            except ValueError as error:  # the reply holds a malformed name
                raise TunnelError(_not_socks(proxy)) from error
            except OSError as error:
                raise TunnelError(
                    NoAnswer(f"the proxy {proxy.display_url} ended the connection: {_errno_text(error)}")
                ) from error
        raise TunnelError(
            NoAnswer(f"cannot connect to the proxy {proxy.display_url}: {_errno_text(refused)}")
        ) from refused

    async def _target(self, host: str) -> str:
        """The name or address that the proxy connects to. Raises TunnelError."""
        proxy = self._socks_proxy
        address = parse_address(host)
        if proxy.socks_version == 4 and address is not None and address.version == 6:
            raise TunnelError(
                NoAnswer(f"SOCKS4 knows no IPv6 addresses: {proxy.display_url} cannot reach {host}", True)
            )
        if address is None and proxy.resolves_names:
            try:
                host.encode("idna")
            except UnicodeError:
                raise TunnelError(NoAnswer(f"{host} is not a valid host name", True)) from None
            return host
        family = socket.AF_INET if proxy.socks_version == 4 else socket.AF_UNSPEC
        asking = "socks4a" if proxy.socks_version == 4 else "socks5h"
        hint = f"Write {asking}:// in {proxy.source} for a proxy that looks names up itself."
        found = await self._resolve(host, host, family, hint)
        # IPv4 first: the proxy's network may have no IPv6.
        return min(found, key=lambda found: ":" in found)

    async def _resolve(
        self, host: str, label: str, family: socket.AddressFamily = socket.AF_UNSPEC, hint: str = ""
    ) -> list[str]:
        """The addresses of ``host``, at least one. ``label`` is its name in errors. Raises TunnelError."""
        if parse_address(host) is not None:
            return [host]
        try:
            return [result["host"] for result in await self._own_resolver.resolve(host, 0, family)]
        except socket.gaierror as error:
            text = error.strerror or "no address was found"
            raise TunnelError(NoAnswer(f"cannot resolve {label}: {text}", hint=hint)) from error


def _refusal(proxy: Proxy, peer: str, error: ProxyError) -> NoAnswer:
    """The outcome of a reply that refuses the connection."""
    code = error.error_code
    if code in _USER_REFUSED or str(error).startswith(_LOGIN_REFUSED):
        hint = f"Correct {proxy.source}, or exempt the host in NO_PROXY."
        if not proxy.user:
            return NoAnswer(
                f"the proxy {proxy.display_url} in {proxy.source} asks for a user and a password", True, hint
            )
        return NoAnswer(
            f"the proxy {proxy.display_url} refused the user or the password in {proxy.source}", True, hint
        )
    if code not in _REPLIES:
        return _not_socks(proxy)
    text, fatal = _REPLIES[code]
    return NoAnswer(f"the proxy {proxy.display_url} cannot connect to {peer}: {text}", fatal)


def _not_socks(proxy: Proxy) -> NoAnswer:
    return NoAnswer(
        f"the proxy {proxy.display_url} closed the connection or did not answer in SOCKS{proxy.socks_version}"
    )


def _errno_text(error: OSError | None) -> str:
    if error is None or not error.errno:
        return "the connection was closed"
    return os.strerror(error.errno)
