"""Translates the errors of aiohttp, TLS and sockets into messages for people.

The texts of the libraries have object addresses, file names and line numbers. The messages here use the operating
system's text for an errno, and OpenSSL's text for a certificate.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator

import aiohttp

from cirron_spool.errors import NoThreadError
from cirron_spool.http.aiohttp_compat import ParserError
from cirron_spool.http.hosts import host_and_port
from cirron_spool.http.proxies import Proxy
from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.protocol.verdict import is_temporary

# OpenSSL's reasons for an answer that is not TLS, for example from a port for plain http.
_NOT_TLS = {
    *("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL", "BAD_RECORD_TYPE"),
    *("PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "RECORD_TOO_SMALL", "UNEXPECTED_MESSAGE"),
}
_NO_COMMON_VERSION = {
    *("UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE", "VERSION_TOO_LOW", "WRONG_SSL_VERSION"),
    *("TLSV1_ALERT_PROTOCOL_VERSION", "INAPPROPRIATE_FALLBACK", "TLSV1_ALERT_INAPPROPRIATE_FALLBACK"),
}
_WANTS_A_CERTIFICATE = {
    *("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE", "TLSV1_ALERT_UNKNOWN_CA"),
    *("SSLV3_ALERT_CERTIFICATE_UNKNOWN", "SSLV3_ALERT_CERTIFICATE_EXPIRED", "TLSV1_ALERT_ACCESS_DENIED"),
}
# Bytes were damaged, or the connection ended: a retry may succeed.
_TEMPORARY = {
    *("BAD_RECORD_MAC", "SSLV3_ALERT_BAD_RECORD_MAC", "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
    *("UNEXPECTED_EOF_WHILE_READING", "TLSV1_ALERT_INTERNAL_ERROR", "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"),
}
_ALERT = re.compile("^(SSLV3|TLSV1|TLSV13)_ALERT_")
# X509_V_ERR_… in OpenSSL's x509_vfy.h.
_NOT_YET_VALID, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64

_TRUST = "Set SSL_CERT_FILE to a file with the certificate of the authority that signed it."
_CHECK_URL = "Check apiUrl."
_THREADS = "Raise the limit of processes of this user (ulimit -u) or of the container, or stop some of them."


class TunnelError(aiohttp.ClientConnectionError):
    """A SOCKS proxy did not connect. ``outcome`` has the reason."""

    def __init__(self, outcome: NoAnswer) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


def translate(
    error: BaseException, *, peer: str, proxy: Proxy | None = None, connected: bool = True, sent: bool = True
) -> Answer | NoAnswer:
    """The outcome of a request that raised ``error``: a message for a person, and whether a retry may help.

    ``peer`` is the ``host:port`` of the request. ``connected`` is True if the request had a connection. ``sent`` is
    True if the whole request was sent.
    """
    if isinstance(error, TunnelError):
        return error.outcome
    shown = proxy.display_url if proxy is not None else ""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        if error.status == 407:
            source = proxy.source if proxy is not None else ""
            return Answer(407, error.message, proxy=shown, proxy_source=source)
        text = f"the proxy {shown} answered {error.status} {error.message}"
        if is_temporary(error.status):
            return NoAnswer(text)
        return NoAnswer(text, True, f"Have the proxy allow {peer}, or exempt the host in NO_PROXY.")
    if isinstance(error, aiohttp.ClientConnectorError):
        peer = host_and_port(error.host, error.port)
    known = next(filter(None, (_outcome_of_cause(cause, peer) for cause in _causes(error))), None)
    if known is not None:
        return known
    if isinstance(error, aiohttp.ClientConnectorError):
        return NoAnswer(_connect_failure(error, peer, shown))
    broken = _answer_fault(error, shown)
    if broken:
        return NoAnswer(broken)
    if isinstance(error, aiohttp.InvalidURL):
        return NoAnswer(f"the address {peer} cannot be used", fatal=True, hint=_CHECK_URL)
    text = _errno_text(error)
    if proxy is not None and not connected:
        return NoAnswer(f"the proxy {shown} did not connect: {text or 'it closed the connection'}")
    return NoAnswer(text or _connection_end(error, sent=sent))


def _answer_fault(error: BaseException, proxy: str) -> str:
    """The fault in a started answer; empty without one."""
    if isinstance(error, ParserError):
        return "the answer is not valid HTTP"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer was cut"
    if isinstance(error, aiohttp.ClientResponseError):
        from_proxy = error.request_info.method == "CONNECT"
        return f"the proxy {proxy} does not answer in HTTP" if from_proxy else "the answer is not HTTP"
    return ""


def _outcome_of_cause(cause: BaseException, peer: str) -> NoAnswer | None:
    """The outcome of a cause with one meaning in every state of the request; None for other causes."""
    if isinstance(cause, aiohttp.ClientError):
        return None  # some inherit from SSLError without its fields
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _certificate_failure(cause, peer)
    if isinstance(cause, ssl.SSLError):
        return _tls_failure(cause, peer)
    if isinstance(cause, NoThreadError):
        return NoAnswer(f"cannot reach {peer}: no thread can be started", hint=_THREADS)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and its causes."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        cause = pending.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            pending += [cause.__cause__, getattr(cause, "os_error", None)]


def _errno_text(error: BaseException) -> str:
    """The operating system's text for the first errno among the causes; empty without one."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return cause.strerror or ""
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
            return os.strerror(cause.errno)
    return ""


def _connection_end(error: BaseException, *, sent: bool) -> str:
    if isinstance(error, TimeoutError):
        return "the connection timed out"
    if sent:
        return "the server closed the connection before it answered"
    return "the server closed the connection while the request was sent"


def _connect_failure(error: aiohttp.ClientConnectorError, peer: str, proxy: str) -> str:
    text = _errno_text(error)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"cannot resolve {error.host}: {text or 'no address was found'}"
    where = f"the proxy {proxy}" if isinstance(error, aiohttp.ClientProxyConnectionError) else peer
    if not text and isinstance(error.os_error, ConnectionResetError):
        text = "the connection was closed during the TLS handshake"
    elif not text and isinstance(error.os_error, ConnectionAbortedError):
        text = "the TLS handshake took too long"
    return f"cannot connect to {where}: {text or 'none of its addresses can be reached'}"


def _certificate_failure(error: ssl.SSLCertVerificationError, peer: str) -> NoAnswer:
    host = peer.rpartition(":")[0].strip("[]")
    # OpenSSL sets these fields; the verifiers of some operating systems do not.
    why = (getattr(error, "verify_message", "") or "it cannot be verified").rstrip(".")
    code = getattr(error, "verify_code", None)
    hint = _TRUST
    if code in (_OTHER_NAME, _OTHER_ADDRESS):
        hint = "It was made for another name. Check apiUrl, and whether a proxy or a captive portal answers."
    elif code in (_NOT_YET_VALID, _EXPIRED):
        hint = "Check the clock of this machine, or ask the server's operators for a new certificate."
    return NoAnswer(f"the certificate of {host} is not trusted: {why}", fatal=True, hint=hint)


def _tls_failure(error: ssl.SSLError, peer: str) -> NoAnswer:
    reason = getattr(error, "reason", None) or ""
    if reason in _TEMPORARY or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return NoAnswer(f"TLS failed: the connection to {peer} was cut or its bytes were damaged")
    if reason in _NOT_TLS:
        text, hint = f"{peer} does not speak TLS", "Check apiUrl: it may be the port of plain http."
    elif reason in _NO_COMMON_VERSION:
        text, hint = f"{peer} and this machine have no TLS version in common", _CHECK_URL
    elif reason in _WANTS_A_CERTIFICATE:
        text, hint = f"{peer} asks for a client certificate, which is not supported", _CHECK_URL
    elif reason == "TLSV1_UNRECOGNIZED_NAME":
        text, hint = f"{peer} does not know this host name", _CHECK_URL
    else:
        plain = _ALERT.sub("", reason).replace("_", " ").lower()
        text = f"{peer} and this machine do not agree ({plain or 'no reason given'})"
        hint = _CHECK_URL
    return NoAnswer(f"TLS failed: {text}", fatal=True, hint=hint)
