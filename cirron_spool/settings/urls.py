"""Check the address of the API and the ingest path, and derive the origin of the ingest."""

from __future__ import annotations

import ipaddress
import re

from yarl import URL

from cirron_spool.errors import ConfigError
from cirron_spool.protocol.verdict import INGEST_PATH
from cirron_spool.settings.origin import Setting
from cirron_spool.text import printable

DEFAULT_API_URL = "https://api.cirron.com"
# A scheme, a host name or an IPv6 address in brackets, a port, and an ignored path.
_ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[^\[\]/]+\]|[^\[\]/:]+)(?::(?P<port>[0-9]{0,5}))?(?:/.*)?",
    re.IGNORECASE,
)
_LABEL = r"(?!-)[a-z0-9_-]{1,63}"
_HOST = re.compile(rf"(?=.{{1,254}}$){_LABEL}(?:\.{_LABEL})*\.?")
# No query, no fragment, no dot segment, and only characters that a request line does not change.
_PATH = re.compile(r"(?!.*/\.{1,2}(?:/|$))/(?:[A-Za-z0-9/._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*")


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` is this machine: localhost (also ``*.localhost``, RFC 6761), 127.0.0.0/8 or ::1."""
    if host is None:
        return False
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def check_url(address: Setting[str], *, http_allowed: bool) -> tuple[str, str]:
    """Return the web origins of the API and of the ingest. A path in ``address`` is ignored.

    Raises ConfigError for an invalid address, and for plain http to another machine.
    """
    url, source = address.value.strip(), address.origin
    if any(mark in url for mark in "@?#\\"):
        # The message does not show the address, which may have a password.
        raise ConfigError(
            f"{source} must not hold a user, a password, a query or a fragment. Set it without them."
        )
    shown = printable(url)[:200]
    origin = _origin(url)
    if origin is None:
        completed = _origin(f"https://{url}") if "//" not in url else None
        if completed is not None and is_loopback(completed.raw_host):
            completed = completed.with_scheme("http")
        raise ConfigError(
            f"{source} is not a web address: '{shown}'. Set it to one like {completed or DEFAULT_API_URL}."
        )
    host = origin.raw_host or ""
    if origin.scheme == "http" and not http_allowed and not is_loopback(host):
        raise ConfigError(
            f"{source} is '{shown}': credentials are not sent over plain http to another machine. "
            'Use https; in a closed network --allow-http, or "allowHttp": true in the configuration, permits it.'
        )
    rest = host.removeprefix("api.")
    web = origin.with_host(f"app.{rest}") if rest and rest != host else origin
    return str(origin), str(web)


def _origin(url: str) -> URL | None:
    """Parse the scheme, host and port of a web address. None for an invalid address."""
    found = _ADDRESS.fullmatch(url)
    if found is None or not url.isprintable() or " " in url or not int(found["port"] or 1):
        return None
    host = found["host"]
    try:
        if host.startswith("["):
            ipaddress.IPv6Address(host[1:-1])
        origin = URL(f"{found['scheme']}://{host}" + (f":{found['port']}" if found["port"] else "")).origin()
        can_be_shown = origin.host  # decodes an international name
    except ValueError:  # an invalid address, port or international name
        return None
    named = host.startswith("[") or _HOST.fullmatch(origin.raw_host or "")
    return origin if named and can_be_shown else None


def check_path(setting: Setting[str]) -> str:
    """Return the ingest path. Raises ConfigError for a path that a request line would change."""
    path, source = setting
    if not _PATH.fullmatch(path):
        raise ConfigError(
            f"{source} must be a path that begins with /, without a query or a fragment: "
            f"'{printable(path)[:200]}'. Set it to one like {INGEST_PATH}."
        )
    return path
