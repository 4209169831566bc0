"""The rules of NO_PROXY, the list of hosts without a proxy. No standard defines the variable."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cirron_spool.http.hosts import IPAddress, normalized, parse_address, parse_network

if TYPE_CHECKING:
    from yarl import URL

_SEPARATORS = re.compile(r"[\s,]+")


def exempts(no_proxy: str, target: URL) -> bool:
    """Whether the list ``no_proxy`` exempts ``target``. Commas or blanks separate its entries.

    An entry is ``*``, a domain (``example.com``, ``.example.com``, ``*.example.com``), an address or a network, with or
    without a port. A malformed entry exempts nothing.
    """
    host = normalized(target.raw_host or "")
    address = parse_address(host)
    port = str(target.port)
    return any(_matches(entry, host, address, port) for entry in _SEPARATORS.split(no_proxy))


def _matches(entry: str, host: str, address: IPAddress | None, port: str) -> bool:
    """Whether ``entry`` matches ``host``; ``address`` is the host's address, or None for a name."""
    network = parse_network(entry)
    if network is None:
        without_port, colon, digits = entry.rpartition(":")
        if colon:
            if digits.lstrip("0") != port:
                return False
            entry, network = without_port, parse_network(without_port)
    if network is not None:
        return address is not None and address in network
    if entry == "*":
        return True
    domain = normalized(entry.removeprefix("*").removeprefix("."))
    return address is None and bool(domain) and f".{host}".endswith(f".{domain}")
