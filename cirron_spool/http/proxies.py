"""How an origin is reached: directly or through a proxy, with certificates and trust."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import ssl
import urllib.request
from dataclasses import dataclass, field

from yarl import URL

from cirron_spool.errors import ConfigError
from cirron_spool.settings.load import is_loopback
from cirron_spool.text import printable

_SYSTEM = "the system's settings"
_HTTP_SCHEMES = frozenset({"http", "https"})
# The version of the protocol, and whether the proxy resolves the names of the hosts. GNOME writes a bare socks://.
_SOCKS_SCHEMES = {
    "socks5h": (5, True),
    "socks5": (5, False),
    "socks4a": (4, True),
    "socks4": (4, False),
    "socks": (5, True),
}
_SOCKS_PORT = 1080
_LONGEST_SOCKS_LOGIN = 255  # bytes, each of user and password: RFC 1929

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_MALFORMED = "it is no URL such as http://host:port, with special characters of a password percent-encoded"
# A password with "/", "?" or "#" in it, of which a part was taken for a port.
_AT_IN_PATH = re.compile(r"[/?#].*@")
_SEPARATORS = re.compile(r"[\s,]+")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy server. ``host`` has no brackets; ``source`` is the variable that names the proxy.

    ``shown`` is the address without user and password.
    """

    scheme: str
    host: str
    port: int
    shown: str
    source: str
    user: str | None = None
    password: str = field(default="", repr=False)

    @property
    def is_socks(self) -> bool:
        """Whether the proxy is spoken to in SOCKS; else in HTTP."""
        return self.scheme in _SOCKS_SCHEMES

    @property
    def socks_version(self) -> int:
        """4 or 5."""
        return _SOCKS_SCHEMES[self.scheme][0]

    @property
    def resolves_names(self) -> bool:
        """Whether a SOCKS proxy is given the names of hosts; else their addresses."""
        return _SOCKS_SCHEMES[self.scheme][1]


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach a URL: the TLS context, and the proxy if there is one."""

    url: URL
    tls: ssl.SSLContext | bool = True
    proxy: Proxy | None = None

    @property
    def http_proxy(self) -> Proxy | None:
        """The proxy if it is one that reads HTTP."""
        return self.proxy if self.proxy is not None and not self.proxy.is_socks else None

    @property
    def proxy_url(self) -> URL | None:
        """The address of an HTTP proxy, without its user; None without such a proxy."""
        proxy = self.http_proxy
        return URL.build(scheme=proxy.scheme, host=proxy.host, port=proxy.port) if proxy is not None else None

    @property
    def proxy_headers(self) -> dict[str, str] | None:
        """The credentials for an HTTP proxy; None without any."""
        proxy = self.http_proxy
        if proxy is None or proxy.user is None:
            return None
        pair = f"{proxy.user}:{proxy.password}".encode()
        return {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}

    @property
    def own_headers(self) -> dict[str, str]:
        """Headers for the proxy on each request: without a tunnel, the proxy reads the request itself."""
        return (self.proxy_headers or {}) if self.url.scheme == "http" else {}


def tls_context() -> ssl.SSLContext:
    """Certificates are verified with the system's trust store, and with SSL_CERT_FILE where that is set."""
    import truststore

    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    extra = os.environ.get("SSL_CERT_FILE")
    if extra:
        try:
            context.load_verify_locations(extra)
        except OSError as error:  # an SSLError is one, with a number that is none of the system's
            why = "no PEM certificates in it" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigError(
                f"Cannot load certificates from SSL_CERT_FILE={printable(extra)}: {why}. Correct or unset it."
            ) from None
    return context


def look_up(url: str, tls: ssl.SSLContext | None = None) -> Route:
    """The route to ``url`` with its proxy and certificates; ``tls`` has certificates that were loaded before.

    Blocking: certificates are files, and another process may be asked for the system's proxies. Raises ConfigError
    when the proxy or the certificates cannot be used.
    """
    target = URL(url, encoded=True)
    return find_route(target, True if target.scheme != "https" else tls if tls is not None else tls_context())


def find_route(target: URL, tls: ssl.SSLContext | bool) -> Route:
    """The route to ``target`` by the variables for proxies, or else the system's settings. Blocking.

    Raises ConfigError for a proxy that cannot be used, unless the target is exempt from proxies.
    """
    direct = Route(target, tls)
    source, text = _proxy_for(target.scheme)
    if not text or _is_exempt(target, source):
        return direct
    local = is_loopback(target.host)
    try:
        proxy = _parse(text, source)
    except ConfigError:
        if local:
            return direct
        raise
    # A proxy elsewhere, or behind a SOCKS tunnel, has a loopback of its own: the token would go to another machine.
    if local and (proxy.is_socks or not is_loopback(proxy.host)):
        return direct
    if proxy.is_socks:
        _require_socks(source)
    return Route(target, tls, proxy)


# -- the variables -------------------------------------------------------------------------------------------------


def _proxy_for(scheme: str) -> tuple[str, str]:
    """The variable that names the proxy for ``scheme``, and its value, which is empty without a proxy."""
    for wanted in (f"{scheme}_proxy", "all_proxy"):
        name, value = _variable(wanted)
        if value:
            return name, value
    system = urllib.request.getproxies()
    return _SYSTEM, system.get(scheme) or system.get("all") or ""


def _variable(wanted: str) -> tuple[str, str]:
    """The name and the value of an environment variable. ``wanted`` in lower case wins, even when it is empty."""
    spellings = {name: value for name, value in os.environ.items() if name.lower() == wanted}
    if wanted in spellings:
        return wanted, spellings[wanted]
    if wanted == "http_proxy" and "REQUEST_METHOD" in os.environ:
        return wanted, ""  # in a CGI script HTTP_PROXY is a header of the client's: "Proxy: …"
    return min(spellings.items(), default=(wanted, ""))


def _parse(text: str, source: str) -> Proxy:
    """The proxy that ``source`` names. Raises ConfigError, which never shows the value: it may hold a password."""
    prefix, mark, rest = text.partition("://")
    scheme, rest = (prefix.lower(), rest) if mark else ("http", text)
    if not text.isprintable() or " " in text or not _SCHEME.fullmatch(scheme):
        raise _unusable(source, _MALFORMED)
    if scheme not in _HTTP_SCHEMES and scheme not in _SOCKS_SCHEMES:
        known = ", ".join(sorted([*_HTTP_SCHEMES, *_SOCKS_SCHEMES]))
        raise _unusable(source, f"its scheme is {scheme}, none of {known}")
    try:
        url = URL(f"{scheme}://{rest}")
    except ValueError:
        raise _unusable(source, _MALFORMED) from None
    port = url.explicit_port if url.explicit_port is not None else url.port or _SOCKS_PORT
    if not url.host or not port or _AT_IN_PATH.search(rest):
        raise _unusable(source, _MALFORMED)
    named = url.user is not None or url.password is not None
    proxy = Proxy(
        scheme,
        url.host,
        port,
        f"{scheme}://{f'[{url.host}]' if ':' in url.host else url.host}:{port}",
        source,
        (url.user or "") if named else None,
        url.password or "",
    )
    if proxy.is_socks and not _can_be_said_in_socks(proxy):
        raise _unusable(
            source, f"SOCKS takes up to {_LONGEST_SOCKS_LOGIN} ASCII characters of user and password"
        )
    return proxy


def _unusable(source: str, why: str) -> ConfigError:
    return ConfigError(
        f"The proxy in {source} cannot be used: {why}. Correct {source}, or exempt the host in NO_PROXY."
    )


def _can_be_said_in_socks(proxy: Proxy) -> bool:
    """Whether aiohttp-socks can send the user and the password."""
    return all(
        text.isascii() and text.isprintable() and len(text) <= _LONGEST_SOCKS_LOGIN
        for text in (proxy.user or "", proxy.password)
    )


def _require_socks(source: str) -> None:
    """Import the library for SOCKS proxies, here in a thread. Raises ConfigError without the extra."""
    try:
        import aiohttp_socks  # noqa: F401
    except ImportError:
        raise ConfigError(
            f"The proxy in {source} is a SOCKS proxy, which needs the extra socks. "
            "Run pip install 'cirron-spool[socks]', or exempt the host in NO_PROXY."
        ) from None


# -- exemptions ----------------------------------------------------------------------------------------------------


def _is_exempt(target: URL, source: str) -> bool:
    """Whether NO_PROXY, or the system's list beside the system's proxy, exempts ``target``."""
    _, no_proxy = _variable("no_proxy")
    host = _normal(target.raw_host or "")
    address = address_of(host)
    port = str(target.port)
    if any(_covers(entry, host, address, port) for entry in _SEPARATORS.split(no_proxy)):
        return True
    return source == _SYSTEM and bool(urllib.request.proxy_bypass(f"{target.host}:{target.port}"))


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _covers(entry: str, host: str, address: _Address | None, port: str) -> bool:
    """Whether one entry of NO_PROXY covers a host, which is an ``address`` or a name. A malformed entry covers none."""
    network = _network(entry)
    if network is None:
        name, colon, digits = entry.rpartition(":")
        if colon:
            if digits.lstrip("0") != port:
                return False
            entry, network = name, _network(name)
    if network is not None:
        return address is not None and address in network
    if entry == "*":
        return True
    name = _normal(entry.removeprefix("*").removeprefix("."))
    return address is None and bool(name) and f".{host}".endswith(f".{name}")


def _network(text: str) -> _Network | None:
    """``10.0.0.0/8``, ``fd00::/8``, or one address, an IPv6 one with or without brackets; None for all else."""
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        text = inner + rest if bracket and (not rest or rest.startswith("/")) else ""
    try:
        return ipaddress.ip_network(text.rstrip("."), strict=False)
    except ValueError:
        return None


def address_of(host: str) -> _Address | None:
    """The address that ``host`` of a URL is; None for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _normal(host: str) -> str:
    """A host in the form in which hosts are compared: lower case, ASCII, without a trailing dot."""
    host = host.rstrip(".").lower()
    if not host.isascii():
        try:
            host = URL.build(scheme="http", host=host).raw_host or ""
        except ValueError:
            return ""
    return host
