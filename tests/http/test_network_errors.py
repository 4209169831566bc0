"""Network and TLS errors have plain messages, and no text of a library is shown."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import TransferEncodingError

from cirron_spool import Failed, FlushEvent, FlushResult, Warned, flush_spool
from cirron_spool.http.network_errors import translate
from cirron_spool.protocol.answer import NoAnswer
from support import tls
from support.background import BackgroundServer, closed_port
from support.blocking import BlockingServer
from support.cli import write_config
from support.fork_server import run_cli
from support.spools import TINY, sdk_batches, snapshot
from support.wire import read_head

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-words-secret"

# Traces of a library's text: addresses of objects, file names, names of exceptions and modules.
LIBRARY = re.compile(
    r"0x[0-9a-f]{6}|object at|\.c:\d|\.py|ssl:|\[SSL|_ssl|\[Errno|Error\(|Exception|[a-z]Error\b|asyncio|aiohttp"
)


async def flush(url: str, spool: Path, **options: Any) -> tuple[FlushResult, list[str]]:
    """The result, and all messages for a person."""
    events: list[FlushEvent] = []
    result = await flush_spool(
        spool, **{"api_url": url, "token": TOKEN, "retries": 0, "on_event": events.append, **options}
    )
    messages = [text for event in events if isinstance(event, Failed) for text in (event.message, event.hint)]
    messages += [event.message for event in events if isinstance(event, Warned)]
    return result, messages


class Talker(BackgroundServer):
    """Sends `first` after the first bytes of a client, and closes."""

    def __init__(self, first: bytes, **options: Any) -> None:
        super().__init__(**options)
        self._first = first

    async def _converse(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read(65536)
        writer.write(self._first)
        await writer.drain()


def old_versions_only() -> ssl.SSLContext:
    context = tls.server_context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def new_versions_only() -> ssl.SSLContext:
    context = tls.server_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def wants_a_certificate(*versions: ssl.TLSVersion) -> ssl.SSLContext:
    context = tls.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tls.AUTHORITY)
    for version in versions:
        context.maximum_version = version
    return context


def knows_no_name() -> ssl.SSLContext:
    context = tls.server_context()
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    return context


class Handshakes(BlockingServer):
    """A TLS server of blocking sockets: unlike asyncio's it sends the alert of a failed handshake."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self.heard = b""
        self._context = context

    def serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:  # the listener is closed
                return
            with contextlib.suppress(OSError):
                with self._context.wrap_socket(
                    sock, server_side=True, do_handshake_on_connect=False
                ) as encrypted:
                    try:
                        encrypted.do_handshake()
                        self.heard += encrypted.recv(65536)
                    except ssl.SSLError:
                        # A close with unread bytes would reset the connection, and the alert could be lost.
                        socket.socket.shutdown(encrypted, socket.SHUT_WR)
                        while socket.socket.recv(encrypted, 65536):
                            pass


TLS_FAILURES: dict[str, tuple[Callable[[], ssl.SSLContext], bool, str, str]] = {
    # the server's context, whether its authority is trusted, part of the message, part of the hint
    "old versions": (
        old_versions_only,
        True,
        "TLS failed: 127.0.0.1:",
        "apiUrl",
    ),  # the rest depends on the version of OpenSSL
    "a client certificate": (wants_a_certificate, True, "asks for a client certificate", "apiUrl"),
    "a client certificate, TLS 1.2": (
        lambda: wants_a_certificate(ssl.TLSVersion.TLSv1_2),
        True,
        "do not agree (handshake failure)",
        "apiUrl",
    ),
}


@pytest.mark.parametrize("kind", TLS_FAILURES)
async def test_a_failed_tls_handshake_is_explained(
    spool: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, trusted, message, hint = TLS_FAILURES[kind]
    batches = sdk_batches(spool, 2, spans=TINY)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.AUTHORITY))
    with Handshakes(context()) as server:
        result, messages = await flush(f"https://127.0.0.1:{server.port}", spool)
    assert message in messages[0]
    assert hint in messages[1]
    assert result.exit_code == 1
    assert not [text for text in messages if LIBRARY.search(text)]
    assert server.heard == b""
    assert snapshot(spool) == batches


async def test_a_server_that_does_not_know_the_host_name(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.AUTHORITY))
    with Handshakes(knows_no_name()) as server:
        result, messages = await flush(f"https://localhost:{server.port}", spool)
    assert result.exit_code == 1
    assert f"localhost:{server.port} does not know this host name" in messages[0]
    assert not [text for text in messages if LIBRARY.search(text)]
    assert snapshot(spool) == batches


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00" * 40,
        b"<html>the plain HTTP request was sent to HTTPS port</html>",
    ],
)
async def test_a_port_that_does_not_speak_tls(spool: Path, first: bytes) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    with Talker(first) as server:
        result, messages = await flush(f"https://127.0.0.1:{server.port}", spool)
    assert messages[0].endswith(f"TLS failed: 127.0.0.1:{server.port} does not speak TLS")
    assert messages[1] == "Check apiUrl: it may be the port of plain http."
    assert not [text for text in messages if LIBRARY.search(text)]
    assert result.exit_code == 1
    assert snapshot(spool) == batches


@pytest.mark.parametrize("first", [b"", b"\x16"])
async def test_a_cut_tls_handshake_is_a_temporary_failure(spool: Path, first: bytes) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    with Talker(first) as server:
        result, messages = await flush(f"https://127.0.0.1:{server.port}", spool)
    assert "TLS" in messages[0]
    assert not [text for text in messages if LIBRARY.search(text)]
    assert result.exit_code == 4
    assert snapshot(spool) == batches


async def test_a_plain_request_to_a_tls_port(spool: Path) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    with Talker(b"", tls=tls.server_context()) as server:
        result, messages = await flush(f"http://127.0.0.1:{server.port}", spool)
    assert not [text for text in messages if LIBRARY.search(text)]
    assert result.exit_code == 4
    assert snapshot(spool) == batches


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_speaks_tls_where_plain_http_is_expected_or_the_reverse(
    spool: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    with Talker(b"nonsense\r\n\r\n", tls=tls.server_context() if scheme == "http" else None) as proxy:
        address = f"{scheme}://127.0.0.1:{proxy.port}"
        monkeypatch.setenv("HTTPS_PROXY", address)
        _, messages = await flush("https://192.0.2.1", spool)
    assert f"127.0.0.1:{proxy.port}" in messages[0]
    assert not [text for text in messages if LIBRARY.search(text)]
    assert snapshot(spool) == batches


async def test_a_proxy_with_a_certificate_that_is_not_trusted(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    with Talker(b"", tls=tls.server_context()) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://127.0.0.1:{proxy.port}")
        result, messages = await flush("https://192.0.2.1", spool)
    assert "the certificate of 127.0.0.1 is not trusted" in messages[0]
    assert "SSL_CERT_FILE" in messages[1]
    assert not [text for text in messages if LIBRARY.search(text)]
    assert result.exit_code == 1
    assert snapshot(spool) == batches


async def test_addresses_that_fail_for_different_reasons(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != "several.test":
            return real(host, port, *args, **options)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            # The first refuses the connection. The second is a multicast group, which takes none.
            for address in ("127.0.0.1", "224.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    port = closed_port()
    result, messages = await flush(f"https://several.test:{port}", spool)
    assert f"cannot connect to several.test:{port}: " in messages[0]
    assert not [text for text in messages if LIBRARY.search(text)]
    assert result.exit_code == 4
    assert snapshot(spool) == batches


def _raised(make: Callable[[], BaseException], cause: BaseException | None = None) -> BaseException:
    error = make()
    error.__cause__ = cause
    return error


def _request_info() -> aiohttp.RequestInfo:
    from multidict import CIMultiDict, CIMultiDictProxy
    from yarl import URL

    return aiohttp.RequestInfo(URL("http://h/"), "POST", CIMultiDictProxy(CIMultiDict()), URL("http://h/"))


KEY = ConnectionKey("h.test", 443, True, ssl.create_default_context(), None, None, None)
ERRORS: dict[str, Callable[[], BaseException]] = {
    "no errno": lambda: aiohttp.ClientOSError(None, "Can not write request body for http://h/"),
    "a reset": lambda: ConnectionResetError(104, "Connection reset by peer"),
    "a reset without a number": lambda: ConnectionResetError("Cannot write to closing transport"),
    "aiohttp's reset": lambda: aiohttp.ClientConnectionResetError("Cannot write to closing transport"),
    "bytes that did not go": lambda: aiohttp.ClientConnectionError("Failed to send bytes into Connection<…>"),
    "disconnected": aiohttp.ServerDisconnectedError,
    "a time-out of aiohttp's": lambda: aiohttp.ConnectionTimeoutError("Connection timeout to host http://h/"),
    "a connection": lambda: aiohttp.ClientConnectorError(KEY, OSError("Multiple exceptions: [Errno 1] …")),
    "a slow handshake": lambda: aiohttp.ClientConnectorError(
        KEY, ConnectionAbortedError("SSL handshake is taking longer than 60.0 seconds: aborting")
    ),
    "a name": lambda: aiohttp.ClientConnectorDNSError(
        KEY, OSError(None, "DNS server returned answer with no data")
    ),
    "a certificate": lambda: aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError("x")),
    "TLS": lambda: aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "[SSL: X] x (_ssl.c:1000)")),
    "TLS in mid-connection": lambda: _raised(
        lambda: aiohttp.ClientOSError(1, "[SSL: TLSV13_ALERT] (_ssl.c:2580)"),
        ssl.SSLError(1, "[SSL: TLSV13_ALERT] (_ssl.c:2580)"),
    ),
    "an address": lambda: aiohttp.InvalidURL("http://h", "is not a canonical IPv4 address"),
    "chunks": lambda: TransferEncodingError("bad chunk"),
    "a payload": lambda: aiohttp.ClientPayloadError(
        "Response payload is not completed: <TransferEncodingError: 400>"
    ),
    "an answer": lambda: aiohttp.ClientResponseError(
        _request_info(), (), status=400, message="Bad status line"
    ),
    "any other": lambda: aiohttp.ClientError("<aiohttp.client.ClientSession object at 0x7f0000000000>"),
}


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("kind", ERRORS)
def test_no_text_of_a_library_is_shown(kind: str, sent: bool) -> None:
    outcome = translate(ERRORS[kind](), peer="h.test:443", sent=sent)
    assert isinstance(outcome, NoAnswer)
    assert outcome.message
    assert not LIBRARY.search(outcome.message), outcome.message
    assert "…" not in outcome.message


@pytest.mark.parametrize(
    ("reason", "words", "fatal"),
    [
        ("TLSV1_ALERT_PROTOCOL_VERSION", "have no TLS version in common", True),
        ("UNSUPPORTED_PROTOCOL", "have no TLS version in common", True),
        ("PACKET_LENGTH_TOO_LONG", "does not speak TLS", True),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "asks for a client certificate", True),
        ("TLSV1_UNRECOGNIZED_NAME", "does not know this host name", True),
        ("DH_KEY_TOO_SMALL", "and this machine do not agree (dh key too small)", True),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "and this machine do not agree (handshake failure)", True),
        ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "was cut or its bytes were damaged", False),
        ("UNEXPECTED_EOF_WHILE_READING", "was cut or its bytes were damaged", False),
    ],
)
def test_the_reasons_of_openssl_are_translated(reason: str, words: str, fatal: bool) -> None:
    error = ssl.SSLError(1, f"[SSL: {reason}] (_ssl.c:1000)")
    error.reason = reason
    for raised in (aiohttp.ClientConnectorSSLError(KEY, error), _raised(aiohttp.ClientOSError, error)):
        outcome = translate(raised, peer="h.test:443")
        assert isinstance(outcome, NoAnswer)
        assert words in outcome.message
        assert (outcome.fatal, "h.test:443" in outcome.message) == (fatal, True)


def test_an_ipv6_address_has_brackets() -> None:
    key = KEY._replace(host="::1", port=8443)
    refused = aiohttp.ClientConnectorError(key, ConnectionRefusedError(111, "Connect call failed"))
    assert translate(refused, peer="?") == NoAnswer("cannot connect to [::1]:8443: Connection refused")


@pytest.mark.thorough
@pytest.mark.parametrize("without_extensions", ["", "1"], ids=["parser in C", "parser in Python"])
@pytest.mark.parametrize(
    "broken",
    [
        b"Z\r\n",
        b"\r\n8\r\naccepted\r\n",
        b"8\r\nacceptedXX",
        b"-8\r\naccepted\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
    ids=["a letter", "an empty size", "an overlong chunk", "a sign", "no trailer", "a long trailer"],
)
def test_broken_chunks_end_the_command(
    spool: Path, tmp_path: Path, broken: bytes, without_extensions: str
) -> None:
    """The head arrives in a segment of its own, and the server keeps the connection open."""
    batches = sdk_batches(spool, 1, spans=TINY)
    write_config(tmp_path, retries=0, token=TOKEN)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    with ChunkFaults(head, broken) as server:
        done = run_cli(
            *("flush", "--dir", str(spool)),
            home=tmp_path,
            env={"CIRRON_API_ENDPOINT": server.url, "AIOHTTP_NO_EXTENSIONS": without_extensions},
        )
    assert done.returncode == 4
    assert b"Uploaded: 0  Failed: 1  Skipped: 0" in done.out
    assert f"Error: Network error uploading {batches[0].name}: the answer " in done.stderr
    assert not LIBRARY.search(done.stderr)
    assert snapshot(spool) == batches


class ChunkFaults(BackgroundServer):
    """Answers each request with `head` and, in a later segment, `broken`; then waits for the client."""

    def __init__(self, head: bytes, broken: bytes) -> None:
        super().__init__()
        self._head, self._broken = head, broken

    async def _converse(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if await read_head(reader, number) is None:
            return
        writer.write(self._head)
        # The client reads the head in this time. A client that does not reads both together, which must fail as well.
        await asyncio.sleep(0.1)
        writer.write(self._broken)
        while await reader.read(65536):
            pass
