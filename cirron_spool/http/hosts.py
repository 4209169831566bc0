"""Host names and IP addresses in URLs: parse, format, normalise."""

from __future__ import annotations

import ipaddress

from yarl import URL

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def host_and_port(host: str | None, port: int | None) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if host is not None and ":" in host else f"{host}:{port}"


def parse_address(host: str) -> IPAddress | None:
    """Parse ``host`` as an IP address; None for a name. An IPv4 address mapped into IPv6 becomes IPv4."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def parse_network(text: str) -> IPNetwork | None:
    """Parse a network (``10.0.0.0/8``, ``fd00::/8``) or an address; None for other text.

    An IPv6 address or network may be in brackets.
    """
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        text = inner + rest if bracket and (not rest or rest.startswith("/")) else ""
    try:
        return ipaddress.ip_network(text.rstrip("."), strict=False)
    except ValueError:
        return None


def normalized(host: str) -> str:
    """``host`` in lower case and ASCII (IDNA), without a trailing dot. Empty if IDNA cannot encode it."""
    host = host.rstrip(".").lower()
    if not host.isascii():
        try:
            host = URL.build(scheme="http", host=host).raw_host or ""
        except ValueError:
            return ""
    return host
