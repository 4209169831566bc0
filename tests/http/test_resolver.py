"""Lookups of host names: shared, not cached, and given up without a trace."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import FlushEvent, Retrying, flush_spool
from cirron_spool.concurrency.threads import in_daemon_thread
from cirron_spool.errors import NoThreadError
from cirron_spool.http.resolver import Resolver
from cirron_spool.http.transport import Transport
from cirron_spool.http.upload_body import Upload
from cirron_spool.protocol.answer import NoAnswer
from support.background import SAFETY_NET
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-resolver-secret"


class NameServers:
    """Lookups of `*.looked-up.test` wait until `answer` is set, and are recorded. The system does all others."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        import socket

        self.answer = threading.Event()
        self.asked: list[str] = []
        self.first = threading.Event()
        real = socket.getaddrinfo

        def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
            if not str(host).endswith("looked-up.test"):
                return real(host, *args, **options)
            self.asked.append(host)
            self.first.set()
            assert self.answer.wait(SAFETY_NET)
            return real("127.0.0.1", *args, **options)

        patch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def name_servers(monkeypatch: pytest.MonkeyPatch) -> Any:
    servers = NameServers(monkeypatch)
    yield servers
    servers.answer.set()


@pytest.mark.anyio
async def test_a_timeout_names_the_lookup_that_has_no_answer(name_servers: NameServers) -> None:
    async with Transport(timeout_ms=200) as transport:
        heard = await transport.post("http://a.looked-up.test:9/", {}, Upload((b"{}",), 2))
    assert heard == NoAnswer("timed out after 200ms while looking up a.looked-up.test")


@pytest.mark.anyio
async def test_concurrent_connections_share_a_lookup_and_later_ones_ask_again(
    name_servers: NameServers,
) -> None:
    resolver = Resolver()
    waiting = [asyncio.ensure_future(resolver.resolve("a.looked-up.test", 80)) for _ in range(3)]
    assert await asyncio.to_thread(name_servers.first.wait, SAFETY_NET)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    name_servers.answer.set()
    first, second = await asyncio.gather(*waiting[1:])
    assert first == second
    assert {entry["host"] for entry in first} == {"127.0.0.1"}
    assert len(name_servers.asked) == 1
    await resolver.resolve("a.looked-up.test", 80)
    assert len(name_servers.asked) == 2


@pytest.mark.anyio
async def test_an_abandoned_lookup_is_not_joined(name_servers: NameServers) -> None:
    resolver = Resolver()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(resolver.resolve("a.looked-up.test", 80), 0.05)
    assert len(name_servers.asked) == 2


@pytest.mark.anyio
async def test_a_name_with_an_overlong_label_cannot_be_resolved() -> None:
    async with Transport(timeout_ms=10_000) as transport:
        heard = await transport.post(f"http://{'a' * 64}.test:9/", {}, Upload((b"{}",), 2))
    assert isinstance(heard, NoAnswer)
    assert heard.message.startswith("cannot resolve ")


@pytest.mark.anyio
async def test_without_a_thread_the_host_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with Transport(timeout_ms=10_000) as transport:
        await transport.resolve("http://a.looked-up.test:9/")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(NoThreadError):
                await in_daemon_thread(lambda: None, "none")
            heard = await transport.post("http://a.looked-up.test:9/", {}, Upload((b"{}",), 2))
    assert isinstance(heard, NoAnswer)
    assert (heard.message, heard.fatal) == (
        "cannot reach a.looked-up.test:9: no thread can be started",
        False,
    )
    assert "ulimit -u" in heard.hint


async def test_a_later_attempt_finds_a_corrected_address(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    addresses = iter(["127.0.0.2", "127.0.0.1"])
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        return real(next(addresses) if host == "moved.test" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("cirron_spool.settings.urls.is_loopback", lambda host: True)
    with ScriptedServer() as server:
        events: list[FlushEvent] = []
        result = await flush_spool(
            spool,
            api_url=f"http://moved.test:{server.port}",
            token=TOKEN,
            retries=1,
            verify=False,
            on_event=events.append,
        )
    assert (result.uploaded, result.exit_code) == (2, 0)
    [retry] = [event for event in events if isinstance(event, Retrying)]
    assert retry.message.endswith(f"cannot connect to moved.test:{server.port}: Connection refused")
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}


async def test_an_unknown_host_is_named(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)

    # Tests ask no name server: the lookup fails as it does without a network.
    def getaddrinfo(*args: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    result = await flush_spool(
        spool, api_url="http://spool.localhost:9", token=TOKEN, retries=0, verify=False
    )
    assert [failure.message for failure in result.failures] == [
        f"Network error uploading {batches[0].name}: cannot resolve spool.localhost: Name or service not known"
    ]
    assert result.exit_code == 4
