"""How an origin is reached: the system's and the environment's proxies, certificates and trust."""

from __future__ import annotations

import base64
import os
import ssl
import urllib.request
from dataclasses import dataclass

from yarl import URL

from cirron_spool.config import is_loopback
from cirron_spool.errors import ConfigError
from cirron_spool.naming import printable


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach a URL: the TLS context, and the proxy with its credentials apart from its address."""

    url: URL
    tls: ssl.SSLContext | bool = True
    proxy_url: URL | None = None
    proxy_headers: dict[str, str] | None = None
    proxy_shown: str = ""

    @property
    def own_headers(self) -> dict[str, str]:
        """What the proxy wants to see on each request: without a tunnel it reads the request itself."""
        return (self.proxy_headers or {}) if self.url.scheme == "http" else {}


def tls_context() -> ssl.SSLContext:
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


def look_up(url: str, tls: ssl.SSLContext | None = None) -> Route:
    """The way to ``url``, with its proxy and its certificates, which ``tls`` has if they were loaded before.

    Blocking: certificates are files, and a system's proxies may be asked of another process. Raises ConfigError when
    they are no use.
    """
    target = URL(url, encoded=True)
    return find_route(target, True if target.scheme != "https" else tls if tls is not None else tls_context())


def find_route(target: URL, tls: ssl.SSLContext | bool) -> Route:
    """The proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY (or the system) name for ``target``. Blocking."""
    host = target.host or ""
    proxies = urllib.request.getproxies()
    text = proxies.get(target.scheme) or proxies.get("all")
    if not text or urllib.request.proxy_bypass(f"{host}:{target.port}"):
        return Route(target, tls)
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
        return Route(target, tls)
    headers = None
    if proxy.user is not None:
        pair = f"{proxy.user}:{proxy.password or ''}".encode()
        headers = {"Proxy-Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return Route(target, tls, proxy.with_user(None), headers, shown)
