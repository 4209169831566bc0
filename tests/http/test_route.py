"""TLS with its certificates, and HTTP proxies from the environment, in whole flushes."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from cirron_spool import ConfigError, Failed, FlushEvent, FlushResult, Retrying, Warned, flush_spool
from cirron_spool.http.proxies import Proxy, find_proxy
from cirron_spool.http.transport import Transport
from support import tls
from support.answers import Answer, html, ok
from support.background import closed_port
from support.fork_server import run_cli
from support.scripted import ProxyServer, ScriptedServer
from support.spools import TINY, sdk_batches, snapshot

if TYPE_CHECKING:
    from yarl import URL

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-tls-secret"


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.AUTHORITY))


@pytest.fixture
def spool_test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve `*.spool.test` to this machine, without a name server."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **more: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith("spool.test") else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def flush(url: str, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(spool, **{"api_url": url, "token": TOKEN, **options})


def warnings_in(events: list[FlushEvent]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


# -- TLS --------------------------------------------------------------------------------------------------------


async def test_a_certificate_in_ssl_cert_file_is_trusted(spool: Path, trusted: None) -> None:
    batches = sdk_batches(spool, 5)
    with ScriptedServer(ok(), Answer(503), ok(close=True), tls=tls.server_context()) as server:
        result = await flush(server.url, spool)
    assert (result.uploaded, result.exit_code) == (5, 0)
    assert server.deliveries == [(batch.batch_id, batch.data) for batch in batches]
    assert server.connections == 2


async def test_an_api_host_has_its_ingest_at_the_app_host(
    spool: Path, trusted: None, spool_test_names: None
) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(tls=tls.server_context()) as server:
        result = await flush(f"https://api.spool.test:{server.port}/", spool)
    assert result.uploaded == 2
    assert [(request.headers["host"], request.path) for request in server.requests] == [
        (f"api.spool.test:{server.port}", "/api/cli/status"),
        (f"app.spool.test:{server.port}", "/api/traces"),
        (f"app.spool.test:{server.port}", "/api/traces"),
    ]
    assert server.connections == 2


@pytest.mark.parametrize(
    ("certificate", "trust", "why", "hint"),
    [
        (
            "server",
            False,
            "self-signed certificate|unable to get local issuer certificate",
            "Set SSL_CERT_FILE to a file with the certificate of the authority that signed it.",
        ),
        (
            "elsewhere",
            True,
            "IP address mismatch|not valid for '127.0.0.1'",
            "It was made for another name. Check apiUrl, and whether a proxy or a captive portal answers.",
        ),
        (
            "expired",
            True,
            "certificate has expired",
            "Check the clock of this machine, or ask the server's operators for a new certificate.",
        ),
    ],
)
async def test_an_untrusted_certificate_stops_the_flush(
    spool: Path,
    certificate: Literal["server", "elsewhere", "expired"],
    trust: bool,
    why: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    if trust:
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.AUTHORITY))
    events: list[FlushEvent] = []
    with ScriptedServer(tls=tls.server_context(certificate)) as server:
        result = await flush(server.url, spool, on_event=events.append)
    [failure] = result.failures
    start = f"Network error uploading {batches[0].name}: the certificate of 127.0.0.1 is not trusted: "
    assert failure.message.startswith(start)
    assert any(part in failure.message for part in why.split("|")), failure.message
    assert (result.exit_code, result.failed, result.skipped) == (1, 1, 2)
    assert [event.hint for event in events if isinstance(event, Failed)] == [hint]
    assert server.requests == []
    # A retry cannot help.
    assert not [event for event in events if isinstance(event, Retrying)]
    [warning] = warnings_in(events)
    assert warning.startswith(
        "Could not verify auth before flush: the certificate of 127.0.0.1 is not trusted"
    )
    assert snapshot(spool) == batches


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("missing", "No such file or directory"),
        ("garbage", "no PEM certificates in it"),
        ("folder", "Is a directory|no PEM certificates in it"),
    ],
)
async def test_an_unusable_ssl_cert_file_is_a_configuration_error(
    spool: Path, tmp_path: Path, kind: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    path = tmp_path / "authority.pem"
    if kind == "garbage":
        path.write_text("no certificate")
    elif kind == "folder":
        path.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with ScriptedServer(tls=tls.server_context()) as server:
        with pytest.raises(
            ConfigError,
            match=rf"^Cannot load certificates from SSL_CERT_FILE={path}: ({why})\. Correct or unset it\.$",
        ) as caught:
            await flush(server.url, spool)
    assert caught.value.exit_code == 2
    assert caught.value.result is not None
    assert caught.value.result.skipped == 2
    assert snapshot(spool) == batches


def test_an_unwritable_sslkeylogfile_is_ignored(spool: Path, tmp_path: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(tls=tls.server_context()) as server:
        env = {
            "SSLKEYLOGFILE": str(tmp_path / "nosuch" / "keys"),
            "SSL_CERT_FILE": str(tls.AUTHORITY),
            "CIRRON_API_KEY": TOKEN,
        }
        done = run_cli("flush", "--dir", spool, "--api-url", server.url, env=env)
    assert (done.returncode, done.stderr, snapshot(spool)) == (0, "", [])


def test_a_broken_openssl_configuration_is_a_one_line_error(spool: Path, tmp_path: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    settings = tmp_path / "openssl.cnf"
    # A list of providers without the default one.
    settings.write_text(
        "openssl_conf = a\n[a]\nproviders = b\n[b]\nlegacy = c\n[c]\nactivate = 1\n", encoding="ascii"
    )
    env = {"OPENSSL_CONF": str(settings), "CIRRON_API_KEY": TOKEN}
    probe = [sys.executable, "-c", "import ssl; ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)"]
    if subprocess.run(probe, env={**os.environ, **env}, capture_output=True, check=False).returncode == 0:
        pytest.skip("this OpenSSL has no providers that a configuration can leave out")
    done = run_cli("flush", "--dir", spool, env=env)
    assert done.stderr == (
        "Error: OpenSSL cannot be set up for TLS: library has no ciphers. "
        "Correct or unset OPENSSL_CONF, or install OpenSSL again.\n"
    )
    assert done.stdout == "Uploaded: 0  Failed: 0  Skipped: 0\n"
    assert (done.returncode, snapshot(spool)) == (2, batches)


async def test_a_callers_session_has_its_own_certificates(spool: Path) -> None:
    import aiohttp

    batches = sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(tls=tls.server_context()) as server:
        connector = aiohttp.TCPConnector(ssl=tls.client_context())
        async with aiohttp.ClientSession(connector=connector) as session:
            assert (await flush(server.url, spool, session=session)).uploaded == len(batches)


# -- proxies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_http_requests_go_through_the_proxy(
    spool: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as server, ProxyServer() as proxy:
        monkeypatch.setenv(variable, proxy.url)
        result = await flush(server.url, spool)
    assert result.uploaded == 2
    assert [request.target for request in proxy.requests] == [
        f"{server.url}/api/cli/status",
        f"{server.url}/api/traces",
        f"{server.url}/api/traces",
    ]
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}
    assert (proxy.connections, server.connections) == (1, 1)


async def test_https_goes_through_a_tunnel(
    spool: Path, monkeypatch: pytest.MonkeyPatch, trusted: None
) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    with ScriptedServer(tls=tls.server_context()) as server:
        with ProxyServer(target=("127.0.0.1", server.port)) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            result = await flush("https://api.spool.test", spool)
    assert result.uploaded == 3
    assert sorted({request.head.split(b"\r\n")[0] for request in proxy.requests}) == [
        b"CONNECT api.spool.test:443 HTTP/1.1",
        b"CONNECT app.spool.test:443 HTTP/1.1",
    ]
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}
    # The proxy does not see the token.
    assert not any(TOKEN.encode() in request.head for request in proxy.requests)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_proxy_receives_its_password(
    spool: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, trusted: None
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    wanted = "Basic " + base64.b64encode(b"alice:p@ss word").decode()
    context = tls.server_context() if scheme == "https" else None
    with ScriptedServer(tls=context) as server, ProxyServer(credentials=wanted) as proxy:
        address = proxy.url.replace("http://", "http://alice:p%40ss%20word@")
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", address)
        result = await flush(server.url, spool)
    assert (result.uploaded, result.exit_code) == (1, 0)
    assert not any("proxy-authorization" in request.headers for request in server.requests)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_407_names_the_proxy(
    spool: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, trusted: None
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    events: list[FlushEvent] = []
    context = tls.server_context() if scheme == "https" else None
    with ScriptedServer(tls=context) as server, ProxyServer(credentials="Basic other") as proxy:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy.url.replace("http://", "http://alice:secret@"))
        result = await flush(server.url, spool, on_event=events.append)
    assert [(failure.status, failure.message) for failure in result.failures] == [
        (407, f"Unexpected HTTP 407 for {batches[0].name}")
    ]
    [failed] = [event for event in events if isinstance(event, Failed)]
    assert failed.hint == (
        f"The proxy {proxy.url} asks for credentials. Set them in {scheme.upper()}_PROXY, or exempt the host "
        "in NO_PROXY."
    )
    assert (result.exit_code, result.skipped) == (1, 1)
    assert server.requests == []
    assert "secret" not in repr(events)
    assert snapshot(spool) == batches


REFUSED, FAILED = (1, 1), (4, 2)  # the exit code, and the attempts with one retry


@pytest.mark.parametrize(
    ("status", "ending"),
    [
        *[(status, REFUSED) for status in (302, 403, 405, 501)],
        *[(status, FAILED) for status in (408, 425, 429, 502, 504)],
    ],
)
async def test_a_proxy_that_refuses_the_tunnel(
    spool: Path, monkeypatch: pytest.MonkeyPatch, trusted: None, status: int, ending: tuple[int, int]
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    events: list[FlushEvent] = []
    with ProxyServer(answer=html(status, reason="No\x1b[2J", close=True)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        result = await flush("https://127.0.0.1:9", spool, retries=1, verify=False, on_event=events.append)
    assert [(event.message, event.hint) for event in events if isinstance(event, Failed)] == [
        (
            f"Network error uploading {batches[0].name}: the proxy {proxy.url} answered {status} No\\x1b[2J",
            "Have the proxy allow 127.0.0.1:9, or exempt the host in NO_PROXY." if ending == REFUSED else "",
        )
    ]
    assert (result.exit_code, len(proxy.requests)) == ending
    assert snapshot(spool) == batches


async def test_a_proxys_own_web_page_is_no_acknowledgement(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as server, ProxyServer(answer=html(200, close=True)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        result = await flush(server.url, spool)
    assert result.failures[0].message.endswith("a web page, not an acknowledgement")
    assert (result.exit_code, server.requests) == (1, [])
    assert snapshot(spool) == batches


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_unreachable_proxy_is_named(
    spool: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    address = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", address)
    result = await flush(f"{scheme}://127.0.0.1:9", spool, retries=0, verify=False)
    assert [failure.message for failure in result.failures] == [
        (
            f"Network error uploading {batches[0].name}: cannot connect to the proxy {address}: "
            "Connection refused"
        )
    ]
    assert result.exit_code == 4


async def test_a_proxy_without_a_scheme_is_an_http_proxy(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as server, ProxyServer() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
        assert (await flush(server.url, spool)).uploaded == 1
    assert len(proxy.requests) == 2


async def test_a_callers_session_has_its_own_proxies(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import aiohttp

    sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
        async with aiohttp.ClientSession() as session:
            assert (await flush(server.url, spool, session=session)).uploaded == 1
    assert os.environ["HTTP_PROXY"]


async def test_the_proxy_for_an_origin_is_looked_up_once(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    looked_up: list[str] = []

    def counted(target: URL) -> Proxy | None:
        looked_up.append(target.path)
        return find_proxy(target)

    monkeypatch.setattr("cirron_spool.http.route.find_proxy", counted)
    with ScriptedServer() as server:
        assert (await flush(server.url, spool)).uploaded == 1
    assert [request.path for request in server.requests] == ["/api/cli/status", "/api/traces"]
    assert len(looked_up) == 1


@pytest.mark.usefixtures("spool_test_names")
async def test_each_origin_has_its_own_route(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer() as server, ProxyServer() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "app.spool.test")
        async with Transport(timeout_ms=10_000) as transport:
            for host in ("api", "app", "api"):
                await transport.get(f"http://{host}.spool.test:{server.port}/{host}", {})
    assert [request.path for request in server.requests] == ["/api", "/app", "/api"]
    assert len(proxy.requests) == 2
