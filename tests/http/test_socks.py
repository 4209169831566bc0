"""SOCKS proxies: the real commands and the library through a real SOCKS server."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest

from cirron_spool import FlushEvent, FlushResult, Retrying, flush_spool
from cirron_spool.http.proxies import Proxy
from cirron_spool.http.resolver import Resolver
from cirron_spool.http.socks import SocksConnector
from cirron_spool.http.transport import Transport
from cirron_spool.protocol.answer import NoAnswer
from support import tls
from support.answers import Answer, html, ok
from support.background import closed_port
from support.cli import CliResult, clean_environment, spawn, spawn_cli, write_config
from support.fork_server import run_cli
from support.scripted import ScriptedServer
from support.socks import GRANTED_5, Asked, Fault, SocksServer, Step, has_ipv6, refusal
from support.spools import TINY, sdk_batches, snapshot

pytestmark = [pytest.mark.anyio]

TOKEN = "sk-socks"
PASSWORD = "p@ss: word"
LOGIN = "alice:p%40ss%3A%20word"
API, APP = "api.spool.test", "app.spool.test"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A platform with TLS, whose names only the proxy can resolve."""
    with ScriptedServer(tls=tls.server_context()) as server:
        yield server


def names(server: ScriptedServer) -> dict[str, tuple[str, int]]:
    """The names of the server on the proxy's side."""
    return dict.fromkeys((API, APP), ("127.0.0.1", server.port))


def flush_command(spool: Path, *more: str, env: dict[str, str], **options: Any) -> CliResult:
    env = {
        "CIRRON_API_ENDPOINT": f"https://{API}",
        "CIRRON_API_KEY": TOKEN,
        "SSL_CERT_FILE": str(tls.AUTHORITY),
        **env,
    }
    return run_cli("flush", "--dir", spool, *more, env=env, **options)


# -- through the tunnel --------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("drip", [False, True], ids=["", "byte by byte"])
@pytest.mark.parametrize("login", ["", LOGIN], ids=["open", "login"])
@pytest.mark.parametrize("scheme", ["socks5h", "socks", "socks4a", "SOCKS5H"])
def test_the_proxy_resolves_names(
    spool: Path, server: ScriptedServer, scheme: str, login: str, drip: bool
) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    users = {"alice": PASSWORD} if login else None
    with SocksServer(names=names(server), users=users, drip=drip) as proxy:
        result = flush_command(spool, env={"ALL_PROXY": proxy.address(scheme, login)})
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "Uploaded: 3  Failed: 0  Skipped: 0\n"
    assert server.deliveries == [(batch.batch_id, batch.data) for batch in batches]
    # One connection for each of the two hosts, and none that bypassed the proxy.
    assert (proxy.tunnels, server.connections) == (2, 2)
    version, user = 4 if scheme == "socks4a" else 5, "alice" if login else None
    assert proxy.asked == [Asked(version, host, 443, user) for host in (API, APP)]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_http_requests_go_through_the_tunnel(spool: Path, variable: str) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as server, SocksServer(names=names(server)) as proxy:
        env = {"CIRRON_API_ENDPOINT": f"http://{API}:{server.port}"}
        env |= {variable: proxy.address("socks5h"), "https_proxy": "ftp://is-not-asked-for.test"}
        result = flush_command(spool, "--allow-http", env=env)
    assert (result.returncode, len(server.uploads)) == (0, 2), result.stderr
    assert {asked.host for asked in proxy.asked} == {API, APP}
    # The server reads the request, so its target is no absolute URL as for an HTTP proxy.
    assert {request.target for request in server.requests} == {"/api/cli/status", "/api/traces"}


def test_verify_refresh_and_upload_go_through_the_proxy(
    spool: Path, server: ScriptedServer, tmp_path: Path
) -> None:
    sdk_batches(spool, 1, spans=TINY)
    auth = {"accessToken": "old", "refreshToken": "refresh-0", "expiresAt": "2020-01-01T00:00:00Z"}
    write_config(tmp_path, apiUrl=f"https://{API}", auth=auth)
    server.platform.refresh_token = "refresh-0"
    with SocksServer(names=names(server)) as proxy:
        env = {"HTTPS_PROXY": proxy.address("socks5h"), "SSL_CERT_FILE": str(tls.AUTHORITY)}
        result = run_cli("flush", "--dir", spool, home=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    paths = [request.path for request in server.requests]
    assert paths == ["/api/cli/auth/refresh", "/api/cli/status", "/api/traces"]
    assert (proxy.tunnels, server.connections) == (2, 2)
    assert json.loads((tmp_path / ".cirron" / "config.json").read_text())["auth"]["accessToken"] == "access-1"


@pytest.mark.parametrize("scheme", ["socks5", "socks4"])
async def test_the_client_resolves_names_for_socks5_and_socks4(
    spool: Path, server: ScriptedServer, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk_batches(spool, 2, spans=TINY)
    looked_up = patched_names(monkeypatch, {API: "127.0.0.1", APP: "127.0.0.1"})
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.AUTHORITY))
    with SocksServer() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.address(scheme, "alice:x"))
        result = await flush_spool(spool, api_url=f"https://{API}:{server.port}", token=TOKEN)
    assert result.uploaded == 2
    assert [asked.host for asked in proxy.asked] == ["127.0.0.1", "127.0.0.1"]
    assert set(looked_up) == {API, APP}
    # The Host header still has the name.
    assert {request.headers["host"] for request in server.requests} == {
        f"{name}:{server.port}" for name in (API, APP)
    }


@pytest.mark.parametrize("scheme", ["socks5h", "socks5", "socks4"])
async def test_tls_uses_the_name(spool: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server receives the name (SNI), and its certificate must have it, also where the proxy gets an address."""
    sdk_batches(spool, 1, spans=TINY)
    heard: list[str | None] = []
    context = tls.server_context()
    context.sni_callback = lambda connection, name, context: heard.append(name)
    patched_names(monkeypatch, {API: "127.0.0.1", APP: "127.0.0.1"})
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.AUTHORITY))
    with ScriptedServer(tls=context) as server, SocksServer(names=names(server)) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.address(scheme))
        assert (await flush_spool(spool, api_url=f"https://{API}:{server.port}", token=TOKEN)).uploaded == 1
    assert set(heard) == {API, APP}


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a"])
async def test_only_the_proxys_own_name_is_looked_up(
    spool: Path, server: ScriptedServer, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk_batches(spool, 2, spans=TINY)
    looked_up = patched_names(monkeypatch, {"proxy.test": "127.0.0.1"})
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.AUTHORITY))
    with SocksServer(names=names(server)) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://proxy.test:{proxy.port}")
        result = await flush_spool(spool, api_url=f"https://{API}", token=TOKEN)
    assert result.uploaded == 2
    assert set(looked_up) == {"proxy.test"}


def patched_names(monkeypatch: pytest.MonkeyPatch, addresses: dict[str, str]) -> list[str]:
    """Resolve only the names in `addresses`, without a name server. Returns the list of names that are looked up."""
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **more: Any) -> Any:
        looked_up.append(str(host))
        if host not in addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(addresses[host], *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return looked_up


@pytest.mark.skipif(not has_ipv6(), reason="no ::1 on this machine")
def test_a_proxy_with_an_ipv6_address(spool: Path, server: ScriptedServer) -> None:
    sdk_batches(spool, 1, spans=TINY)
    with SocksServer(names=names(server), host="::1") as proxy:
        result = flush_command(spool, env={"ALL_PROXY": proxy.address("socks5h")})
    assert (result.returncode, proxy.tunnels) == (0, 2), result.stderr


async def test_each_address_of_the_proxy_is_tried(
    spool: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first address may refuse the connection, as ::1 for localhost."""
    sdk_batches(spool, 1, spans=TINY)
    addresses = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("127.0.0.9", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: addresses)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.AUTHORITY))
    with SocksServer(names=names(server)) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://localhost:{proxy.port}")
        result = await flush_spool(spool, api_url=f"https://{API}", token=TOKEN, retries=0)
    assert (result.uploaded, proxy.tunnels) == (1, 2)


@pytest.mark.parametrize("address", ["192.0.2.7", "[2001:db8::7]"])
def test_addresses_reach_the_proxy_as_addresses(spool: Path, address: str) -> None:
    sdk_batches(spool, 1, spans=TINY)
    host = address.strip("[]")
    with ScriptedServer() as server, SocksServer(names={host: ("127.0.0.1", server.port)}) as proxy:
        env = {"CIRRON_API_ENDPOINT": f"http://{address}:8080", "ALL_PROXY": proxy.address("socks5h")}
        result = flush_command(spool, "--allow-http", env=env)
    assert result.returncode == 0, result.stderr
    assert proxy.asked == [Asked(5, host, 8080, None)]


@pytest.mark.parametrize("exempt", ["", ".spool.test"])
def test_an_exempt_platform_is_reached_directly(spool: Path, exempt: str) -> None:
    """A platform on the loopback is exempt without NO_PROXY: behind a tunnel the loopback is another machine's."""
    sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as server, SocksServer() as proxy:
        env = {"CIRRON_API_ENDPOINT": server.url, "NO_PROXY": exempt}
        result = flush_command(spool, env={**env, "ALL_PROXY": proxy.address("socks5h")})
    assert (result.returncode, proxy.connections) == (0, 0), result.stderr


# -- reuse of connections ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [1, 3])
def test_order_and_number_of_connections(spool: Path, server: ScriptedServer, in_flight: int) -> None:
    batches = sdk_batches(spool, 9, spans=TINY)
    with SocksServer(names=names(server)) as proxy:
        env = {"ALL_PROXY": proxy.address("socks5h")}
        result = flush_command(spool, "--in-flight", str(in_flight), env=env)
    assert result.returncode == 0, result.stderr
    assert proxy.tunnels == server.connections
    delivered = [batch_id for batch_id, _ in server.deliveries]
    if in_flight == 1:
        assert proxy.tunnels == 2
        assert delivered == [batch.batch_id for batch in batches]
    assert sorted(delivered) == sorted(batch.batch_id for batch in batches)


@pytest.mark.parametrize(
    "answer", [ok(close=True), ok(), html(503, close=True)], ids=["close", "keep", "503"]
)
@pytest.mark.usefixtures("short_delays")
async def test_a_closed_connection_gets_a_new_tunnel(
    spool: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(spool, 4, spans=TINY)
    with ScriptedServer(ok(), answer, ok(close=True), tls=tls.server_context()) as server:
        with SocksServer(names=names(server)) as proxy:
            monkeypatch.setenv("ALL_PROXY", proxy.address("socks5h"))
            monkeypatch.setenv("SSL_CERT_FILE", str(tls.AUTHORITY))
            result = await flush_spool(spool, api_url=f"https://{API}", token=TOKEN)
    assert (result.uploaded, result.exit_code) == (4, 0)
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}
    assert proxy.tunnels == server.connections


async def test_an_unsolicited_answer_is_no_acknowledgement(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may arrive with the proxy's reply or after it."""
    batches = sdk_batches(spool, 1, spans=TINY)
    early = GRANTED_5 + ok().render()
    with SocksServer(faults=itertools.repeat(Fault("request", early, "silence"))) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.address("socks5h"))
        result = await flush_spool(
            spool,
            api_url=f"http://{API}",
            allow_http=True,
            token=TOKEN,
            retries=0,
            timeout_ms=500,
            verify=False,
        )
    assert (result.uploaded, result.exit_code) == (0, 4)
    assert snapshot(spool) == batches


# -- faults --------------------------------------------------------------------------------------------------------


async def failed_flush(
    spool: Path, monkeypatch: pytest.MonkeyPatch, address: str, **options: Any
) -> tuple[str, FlushResult]:
    """Flush through `address`. Returns the message for the first batch without its start, and the result.

    A temporary fault is retried once, a lasting one is not.
    """
    batches = sdk_batches(spool, 2, spans=TINY)
    monkeypatch.setenv("ALL_PROXY", address)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.AUTHORITY))
    options = {"retries": 1, "verify": False, "api_url": f"https://{API}", **options}
    events: list[FlushEvent] = []
    result = await flush_spool(spool, token=TOKEN, on_event=events.append, **options)
    [failure] = result.failures
    assert len([event for event in events if isinstance(event, Retrying)]) == (result.exit_code == LATER)
    assert (result.failed, result.skipped) == (1, 1)
    start = f"Network error uploading {batches[0].name}: "
    assert failure.message.startswith(start)
    assert "alice" not in failure.message
    assert PASSWORD not in failure.message
    assert "%40" not in failure.message
    assert snapshot(spool) == batches
    return failure.message.removeprefix(start), result


STOP, LATER = 1, 4

FAULTS = {
    "closed at once": (Fault("greeting"), "closed the connection or did not answer in SOCKS5", LATER),
    "half a greeting": (Fault("greeting", b"\5"), "closed the connection or did not answer in SOCKS5", LATER),
    "reset": (Fault("greeting", then="reset"), "ended the connection: Connection reset by peer", LATER),
    "an HTTP server": (Fault("greeting", html(400).render()), "did not answer in SOCKS5", LATER),
    "another version": (Fault("greeting", b"\4\0"), "did not answer in SOCKS5", LATER),
    "an unknown way to log in": (Fault("greeting", b"\5\x41"), "did not answer in SOCKS5", LATER),
    "wants a certificate": (Fault("greeting", b"\5\1"), "in ALL_PROXY asks for a user and a password", STOP),
    "wants a login": (Fault("greeting", b"\5\xff"), "in ALL_PROXY asks for a user and a password", STOP),
    "half a reply": (Fault("request", GRANTED_5[:5]), "did not answer in SOCKS5", LATER),
    "a reply that is none": (Fault("request", b"HTTP/1.1 200 OK"), "did not answer in SOCKS5", LATER),
    "a name that is none": (Fault("request", b"\5\0\0\3\2\xff\xfe\0\0"), "did not answer in SOCKS5", LATER),
    "an unknown address": (Fault("request", b"\5\0\0\x09\0\0\0\0\0\0"), "did not answer in SOCKS5", LATER),
    "an unknown code": (refusal(0xF1), "did not answer in SOCKS5", LATER),
    "a general failure": (refusal(1), "cannot connect to api.spool.test:443: it failed", LATER),
    "not allowed": (refusal(2), "cannot connect to api.spool.test:443: its rules do not allow it", STOP),
    "network": (refusal(3), "cannot connect to api.spool.test:443: the network cannot be reached", LATER),
    "host": (refusal(4), "cannot connect to api.spool.test:443: the host cannot be reached", LATER),
    "refused": (refusal(5), "cannot connect to api.spool.test:443: the connection was refused", LATER),
    "too far": (refusal(6), "cannot connect to api.spool.test:443: the host is too far away", LATER),
    "command": (refusal(7), "cannot connect to api.spool.test:443: it does not support connections", STOP),
    "kind": (refusal(8), "cannot connect to api.spool.test:443: it does not know this kind of address", STOP),
}


@pytest.mark.usefixtures("short_delays")
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_the_proxy(spool: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fault, words, exit_code = FAULTS[name]
    with SocksServer(faults=itertools.repeat(fault)) as proxy:
        message, result = await failed_flush(
            spool, monkeypatch, proxy.address("socks5h"), api_url="https://api.spool.test"
        )
    assert message.startswith(f"the proxy socks5h://127.0.0.1:{proxy.port} ")
    assert message.endswith(words.replace(API, APP))
    assert result.exit_code == exit_code


@pytest.mark.usefixtures("short_delays")
@pytest.mark.parametrize(
    ("scheme", "login", "fault", "words", "exit_code"),
    [
        ("socks5h", "alice:wrong", None, "refused the user or the password in ALL_PROXY", STOP),
        ("socks5h", "", None, "in ALL_PROXY asks for a user and a password", STOP),
        ("socks5h", "alice", None, "refused the user or the password in ALL_PROXY", STOP),
        ("socks5h", LOGIN, Fault("login"), "closed the connection or did not answer in SOCKS5", LATER),
        ("socks5h", LOGIN, Fault("login", b"\5\0"), "did not answer in SOCKS5", LATER),
        ("socks4a", "mallory", None, "refused the user or the password in ALL_PROXY", STOP),
        ("socks4a", "", None, "in ALL_PROXY asks for a user and a password", STOP),
        (
            "socks4a",
            LOGIN,
            refusal(0x5B, 4),
            "cannot connect to app.spool.test:443: it refused or failed",
            LATER,
        ),
        ("socks4a", LOGIN, refusal(0x5C, 4), "refused the user or the password in ALL_PROXY", STOP),
        ("socks4a", LOGIN, Fault("request", b"HTTP/1.1 200 OK"), "did not answer in SOCKS4", LATER),
        ("socks4a", LOGIN, Fault("request", b"\0\x5a"), "did not answer in SOCKS4", LATER),
    ],
)
async def test_a_fault_of_a_proxy_with_users(
    spool: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    login: str,
    fault: Fault | None,
    words: str,
    exit_code: int,
) -> None:
    with SocksServer(users={"alice": PASSWORD}, faults=itertools.repeat(fault)) as proxy:
        message, result = await failed_flush(spool, monkeypatch, proxy.address(scheme, login))
    assert message.startswith(f"the proxy {scheme}://127.0.0.1:{proxy.port} ")
    assert message.endswith(words)
    assert result.exit_code == exit_code


@pytest.mark.usefixtures("short_delays")
async def test_a_temporary_fault_is_retried(
    spool: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.AUTHORITY))
    faults = [refusal(1), refusal(4), Fault("greeting"), Fault("request", then="reset")]
    with SocksServer(names=names(server), faults=faults) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.address("socks5h"))
        result = await flush_spool(spool, api_url=f"https://{API}", token=TOKEN, retries=4)
    assert (result.uploaded, result.exit_code) == (2, 0)
    assert server.deliveries == [(batch.batch_id, batch.data) for batch in batches]


@pytest.mark.usefixtures("short_delays")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_unreachable_proxy_is_named(spool: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    address = f"socks5h://{host}:{closed_port()}"
    message, result = await failed_flush(spool, monkeypatch, address)
    assert (message, result.exit_code) == (
        f"cannot connect to the proxy {address}: Connection refused",
        LATER,
    )


@pytest.mark.usefixtures("short_delays")
@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("socks5h", "cannot resolve the proxy socks5h://proxy.test:1080: Name or service not known"),
        ("socks5", "cannot resolve app.spool.test: Name or service not known"),
        ("socks4", "cannot resolve app.spool.test: Name or service not known"),
    ],
)
async def test_a_name_that_cannot_be_resolved(
    spool: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, words: str
) -> None:
    patched_names(monkeypatch, {})
    message, result = await failed_flush(spool, monkeypatch, f"{scheme}://proxy.test")
    assert (message, result.exit_code) == (words, LATER)


async def test_socks4_cannot_connect_to_an_ipv6_address(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message, result = await failed_flush(
        spool, monkeypatch, "socks4a://127.0.0.1:9", api_url="https://[2001:db8::7]"
    )
    assert message == "SOCKS4 knows no IPv6 addresses: socks4a://127.0.0.1:9 cannot reach 2001:db8::7"
    assert result.exit_code == STOP


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a"])
async def test_any_reply_of_a_proxy_has_a_plain_message(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reply with each of its bytes changed, and random replies: the library's exceptions are never shown."""
    granted = GRANTED_5 if scheme == "socks5h" else b"\0\x5a" + bytes(6)
    changed = [
        granted[:place] + bytes([value]) + granted[place + 1 :]
        for place in range(len(granted))
        for value in (0, 1, 2, 3, 4, 5, 9, 0x5A, 0x7F, 0x80, 0xFF)
    ]
    changed += [b"\5\0\0\3" + bytes([size]) + b"\xff" * size + b"\0\0" for size in (0, 1, 255)]
    chance = random.Random(11)
    changed += [chance.randbytes(chance.randrange(24)) for _ in range(60)]
    steps: list[Step] = ["request"] if scheme == "socks4a" else ["request", "greeting", "login"]
    faults = [Fault(step, reply) for step in steps for reply in changed]
    with SocksServer(faults=faults, users={"alice": PASSWORD}) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.address(scheme, LOGIN))
        async with Transport(timeout_ms=60_000) as transport:
            while proxy.connections < len(faults):  # aiohttp connects again after some faults
                outcome = await transport.get(f"http://{API}/", {})
                assert isinstance(outcome, NoAnswer)
                assert outcome.message.isprintable()
                assert "0x" not in outcome.message.lower()
                assert "Error" not in outcome.message


SILENCES = {
    "greeting": Fault("greeting", then="silence"),
    "login": Fault("login", then="silence"),
    "request": Fault("request", then="silence"),
    "half a reply": Fault("request", GRANTED_5[:3], "silence"),
    "TLS behind the proxy": Fault("request", GRANTED_5, "silence"),
}


@pytest.mark.thorough
@pytest.mark.usefixtures("short_delays")
@pytest.mark.parametrize("step", SILENCES)
@pytest.mark.parametrize("verify", [False, True], ids=["upload", "verify"])
async def test_a_proxy_that_stalls_times_out(
    spool: Path, monkeypatch: pytest.MonkeyPatch, step: str, verify: bool
) -> None:
    with SocksServer(users={"alice": PASSWORD}, faults=itertools.repeat(SILENCES[step])) as proxy:
        address = proxy.address("socks5h", LOGIN)
        message, result = await failed_flush(spool, monkeypatch, address, timeout_ms=200, verify=verify)
    words = f"timed out after 200ms through the proxy socks5h://127.0.0.1:{proxy.port}"
    assert (message, result.exit_code) == (words, LATER)
    assert any("Could not verify auth" in text and words in text for text in result.warnings) is verify


@pytest.mark.parametrize("step", SILENCES)
async def test_a_time_limit_of_aiohttp_is_a_timeout(step: str) -> None:
    """So is the time limit of the operating system."""
    with SocksServer(users={"alice": PASSWORD}, faults=[SILENCES[step]]) as server:
        shown = server.address("socks5h")
        proxy = Proxy("socks5h", "127.0.0.1", server.port, shown, "ALL_PROXY", "alice", PASSWORD)
        limit = aiohttp.ClientTimeout(total=None, sock_connect=0.1)
        async with aiohttp.ClientSession(
            connector=SocksConnector(proxy, Resolver()), timeout=limit
        ) as session:
            waiting = asyncio.ensure_future(session.get(f"https://{APP}/"))
            await asyncio.wait([waiting])
            assert isinstance(waiting.exception(), TimeoutError)


@pytest.mark.thorough
@pytest.mark.parametrize("step", SILENCES)
def test_a_signal_while_the_proxy_stalls(spool: Path, step: str) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    with SocksServer(users={"alice": PASSWORD}, faults=itertools.repeat(SILENCES[step])) as proxy:
        env = {"ALL_PROXY": proxy.address("socks5h", LOGIN), "CIRRON_API_KEY": TOKEN}
        env |= {"CIRRON_API_ENDPOINT": f"https://{API}", "SSL_CERT_FILE": str(tls.AUTHORITY)}
        with spawn_cli("flush", "--dir", spool, "--timeout", "600000", env=env) as run:
            proxy.wait_until(lambda: proxy.silent >= 1, "silence")
            run.send_signal(signal.SIGTERM)
            result = run.finish()
    assert result.returncode == 143
    assert "Uploaded: 0  Failed: 0  Skipped: 2" in result.stdout
    assert snapshot(spool) == batches


@pytest.mark.usefixtures("short_delays")
@pytest.mark.parametrize("certificate", ["elsewhere", "expired"])
async def test_an_untrusted_certificate_behind_the_proxy(
    spool: Path, monkeypatch: pytest.MonkeyPatch, certificate: Literal["elsewhere", "expired"]
) -> None:
    with ScriptedServer(tls=tls.server_context(certificate)) as server:
        with SocksServer(names=names(server)) as proxy:
            message, result = await failed_flush(spool, monkeypatch, proxy.address("socks5h"))
    assert message.startswith(f"the certificate of {APP} is not trusted: ")
    assert (result.exit_code, server.requests) == (STOP, [])


@pytest.mark.usefixtures("short_delays")
async def test_a_server_without_tls_behind_the_proxy(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Fault("request", GRANTED_5 + html(400).render(), "silence")
    with SocksServer(faults=itertools.repeat(plain)) as proxy:
        message, result = await failed_flush(spool, monkeypatch, proxy.address("socks5h"))
    assert (message, result.exit_code) == (f"TLS failed: {APP}:443 does not speak TLS", STOP)


# -- without the extra ---------------------------------------------------------------------------------------------


@pytest.fixture
def without_extra(tmp_path: Path) -> list[str]:
    """The command line of an installation without the extra: all packages of this one but two."""
    packages = tmp_path / "site"
    packages.mkdir()
    import aiohttp_socks
    import python_socks

    left_out = {Path(str(module.__file__)).parent for module in (aiohttp_socks, python_socks)}
    for place in dict.fromkeys(path.parent for path in left_out):
        for entry in place.iterdir():
            if entry not in left_out and not entry.name.startswith(("aiohttp_socks-", "python_socks-")):
                (packages / entry.name).symlink_to(entry)
    # -S: only the packages in PYTHONPATH.
    return [str(packages), sys.executable, "-S", "-m", "cirron_spool"]


@pytest.mark.thorough
@pytest.mark.parametrize("variable", ["ALL_PROXY", "https_proxy"])
@pytest.mark.parametrize("scheme", ["socks5h", "socks4"])
def test_without_the_extra_the_remedy_is_named(
    spool: Path, without_extra: list[str], tmp_path: Path, variable: str, scheme: str
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    result = run_without(without_extra, spool, tmp_path, {variable: f"{scheme}://{LOGIN}@proxy.test"})
    assert result.returncode == 2
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert line == (
        f"Error: The proxy in {variable} is a SOCKS proxy, which needs the extra socks. "
        "Run pip install 'cirron-spool[socks]', or exempt the host in NO_PROXY."
    )
    assert "Traceback" not in result.stderr
    assert snapshot(spool) == batches


@pytest.mark.parametrize("exempt", ["", "127.0.0.0/8"])
def test_without_the_extra_an_exempt_platform_is_reached(
    spool: Path, without_extra: list[str], tmp_path: Path, exempt: str
) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer() as server:
        env = {"ALL_PROXY": "socks5h://localhost:1080", "CIRRON_API_ENDPOINT": server.url, "NO_PROXY": exempt}
        result = run_without(without_extra, spool, tmp_path, env)
    assert (result.returncode, len(server.uploads)) == (0, 2), result.stderr


def run_without(command: list[str], spool: Path, home: Path, env: dict[str, str]) -> CliResult:
    packages, *argv = command
    root = clean_environment(home).get("PYTHONPATH", "")
    env = {"CIRRON_API_KEY": TOKEN, "CIRRON_API_ENDPOINT": "https://platform.test", **env}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, packages]))
    with spawn([*argv, "flush", "--dir", str(spool)], home=home, env=env) as run:
        return run.finish()


async def test_a_callers_session_has_its_own_proxies(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk_batches(spool, 1, spans=TINY)
    monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{closed_port()}")
    with ScriptedServer() as server:
        async with aiohttp.ClientSession() as session:
            assert (await flush_spool(spool, api_url=server.url, token=TOKEN, session=session)).uploaded == 1
