"""The route to an origin: the proxy, if any, and the TLS context."""

from __future__ import annotations

import base64
import os
import ssl
from dataclasses import dataclass

from yarl import URL

from cirron_spool.errors import ConfigError
from cirron_spool.http.proxies import Proxy, find_proxy
from cirron_spool.text import printable


@dataclass(frozen=True, slots=True)
class Route:
    """The route to ``url``. ``tls`` is the context for https, or True for aiohttp's own. ``proxy`` may be None."""

    url: URL
    tls: ssl.SSLContext | bool = True
    proxy: Proxy | None = None

    @property
    def http_proxy(self) -> Proxy | None:
        """The proxy if it is an HTTP proxy; None for a SOCKS proxy."""
        return self.proxy if self.proxy is not None and not self.proxy.is_socks else None

    @property
    def proxy_url(self) -> URL | None:
        """The URL of the HTTP proxy, without user and password; None without an HTTP proxy."""
        proxy = self.http_proxy
        return URL.build(scheme=proxy.scheme, host=proxy.host, port=proxy.port) if proxy is not None else None

    @property
    def proxy_headers(self) -> dict[str, str] | None:
        """The header with the user and password for the HTTP proxy; None without them."""
        proxy = self.http_proxy
        if proxy is None or proxy.user is None:
            return None
        login = f"{proxy.user}:{proxy.password}".encode()
        return {"Proxy-Authorization": f"Basic {base64.b64encode(login).decode()}"}

    @property
    def request_headers(self) -> dict[str, str]:
        """Headers of each request. For plain http the proxy reads its login there."""
        return (self.proxy_headers or {}) if self.url.scheme == "http" else {}


def find_route(url: str, tls: ssl.SSLContext | None = None) -> Route:
    """The route to ``url``. For https, ``tls`` saves loading the certificates again.

    Blocking: it reads certificates, and may ask the operating system for its proxies. Raises ConfigError for unusable
    proxies and certificates.
    """
    target = URL(url, encoded=True)
    context = True if target.scheme != "https" else tls if tls is not None else create_tls_context()
    return Route(target, context, find_proxy(target))


def create_tls_context() -> ssl.SSLContext:
    """A client context that trusts the system's certificates and those in SSL_CERT_FILE. Raises ConfigError."""
    import truststore

    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    extra = os.environ.get("SSL_CERT_FILE")
    if extra:
        try:
            context.load_verify_locations(extra)
        except OSError as error:
            # An SSLError is an OSError with a number of OpenSSL.
            why = "no PEM certificates in it" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigError(
                f"Cannot load certificates from SSL_CERT_FILE={printable(extra)}: {why}. Correct or unset it."
            ) from None
    return context
