"""Find the proxy for a URL in the environment, or else in the settings of the system."""

from __future__ import annotations

import os
import re
import urllib.request
from dataclasses import dataclass, field

from yarl import URL

from cirron_spool.errors import ConfigError
from cirron_spool.http.hosts import host_and_port
from cirron_spool.http.no_proxy import exempts
from cirron_spool.settings.urls import is_loopback

_SYSTEM = "the system's settings"
_HTTP_SCHEMES = frozenset({"http", "https"})
# Scheme: SOCKS version, and whether the proxy resolves host names. GNOME writes socks:// without a version.
_SOCKS_SCHEMES = {
    "socks5h": (5, True),
    "socks5": (5, False),
    "socks4a": (4, True),
    "socks4": (4, False),
    "socks": (5, True),
}
_SOCKS_PORT = 1080
_LONGEST_SOCKS_LOGIN = 255  # bytes of user and of password: RFC 1929

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_MALFORMED = "it is no URL such as http://host:port, with special characters of a password percent-encoded"
# A password with "/", "?" or "#": the URL parser takes its start as a port.
_AT_IN_PATH = re.compile(r"[/?#].*@")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy server. ``host`` has no brackets. ``source`` is the name of its variable.

    ``display_url`` has no user and no password.
    """

    scheme: str
    host: str
    port: int
    display_url: str
    source: str
    user: str | None = None
    password: str = field(default="", repr=False)

    @property
    def is_socks(self) -> bool:
        """Whether it is a SOCKS proxy, not an HTTP proxy."""
        return self.scheme in _SOCKS_SCHEMES

    @property
    def socks_version(self) -> int:
        """4 or 5."""
        return _SOCKS_SCHEMES[self.scheme][0]

    @property
    def resolves_names(self) -> bool:
        """Whether a SOCKS proxy resolves host names. Otherwise it receives addresses."""
        return _SOCKS_SCHEMES[self.scheme][1]


def find_proxy(target: URL) -> Proxy | None:
    """The proxy for ``target``; None for a direct connection. Blocking: it may ask the operating system.

    Raises ConfigError for an unusable proxy, unless ``target`` is exempt.
    """
    source, text = _configured_proxy(target.scheme)
    if not text or _is_exempt(target, source):
        return None
    on_this_machine = is_loopback(target.host)
    try:
        proxy = _parse(text, source)
    except ConfigError:
        if on_this_machine:
            return None
        raise
    # The proxy's machine has another loopback. It must not receive the token.
    if on_this_machine and (proxy.is_socks or not is_loopback(proxy.host)):
        return None
    if proxy.is_socks:
        _require_socks(source)
    return proxy


def _configured_proxy(scheme: str) -> tuple[str, str]:
    """The variable with the proxy for ``scheme``, and its value. An empty value means no proxy."""
    for wanted in (f"{scheme}_proxy", "all_proxy"):
        name, value = _variable(wanted)
        if value:
            return name, value
    system = urllib.request.getproxies()
    return _SYSTEM, system.get(scheme) or system.get("all") or ""


def _variable(wanted: str) -> tuple[str, str]:
    """An environment variable with any letter case. The lower case name has priority, even when empty."""
    spellings = {name: value for name, value in os.environ.items() if name.lower() == wanted}
    if wanted in spellings:
        return wanted, spellings[wanted]
    if wanted == "http_proxy" and "REQUEST_METHOD" in os.environ:
        return wanted, ""  # in a CGI script HTTP_PROXY is the header "Proxy" of the client
    return min(spellings.items(), default=(wanted, ""))


def _is_exempt(target: URL, source: str) -> bool:
    """Whether NO_PROXY exempts ``target``, or the system's list exempts it from the system's proxy."""
    if exempts(_variable("no_proxy")[1], target):
        return True
    return source == _SYSTEM and bool(urllib.request.proxy_bypass(f"{target.host}:{target.port}"))


def _parse(text: str, source: str) -> Proxy:
    """Parse the proxy in ``source``. The ConfigError does not show the value, which may have a password."""
    prefix, separator, rest = text.partition("://")
    scheme, rest = (prefix.lower(), rest) if separator else ("http", text)
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
    has_login = url.user is not None or url.password is not None
    proxy = Proxy(
        scheme,
        url.host,
        port,
        f"{scheme}://{host_and_port(url.host, port)}",
        source,
        (url.user or "") if has_login else None,
        url.password or "",
    )
    if proxy.is_socks and not _fits_socks(proxy):
        raise _unusable(
            source, f"SOCKS takes up to {_LONGEST_SOCKS_LOGIN} ASCII characters of user and password"
        )
    return proxy


def _unusable(source: str, why: str) -> ConfigError:
    return ConfigError(
        f"The proxy in {source} cannot be used: {why}. Correct {source}, or exempt the host in NO_PROXY."
    )


def _fits_socks(proxy: Proxy) -> bool:
    """Whether aiohttp-socks can send the user and the password."""
    return all(
        text.isascii() and text.isprintable() and len(text) <= _LONGEST_SOCKS_LOGIN
        for text in (proxy.user or "", proxy.password)
    )


def _require_socks(source: str) -> None:
    """Import the library for SOCKS proxies. Slow, so the caller runs in a thread. Raises ConfigError."""
    try:
        import aiohttp_socks  # noqa: F401
    except ImportError:
        raise ConfigError(
            f"The proxy in {source} is a SOCKS proxy, which needs the extra socks. "
            "Run pip install 'cirron-spool[socks]', or exempt the host in NO_PROXY."
        ) from None
