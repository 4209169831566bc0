"""The silence limit fires in every state of a connection, and a dead connection is noticed without it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cirron_spool.concurrency.threads import in_daemon_thread
from cirron_spool.errors import NoThreadError
from cirron_spool.http.resolver import Resolver
from cirron_spool.http.transport import Transport
from cirron_spool.http.upload_body import Upload
from cirron_spool.protocol.answer import NoAnswer
from support.background import SAFETY_NET
from support.exchanges import cases, expected

PARSERS = {"": "aiohttp._http_parser", "1": "aiohttp.http_parser"}


@pytest.mark.parametrize("without_extensions", PARSERS, ids=["parser in C", "parser in Python"])
def test_every_state_of_a_connection_comes_to_its_end(without_extensions: str) -> None:
    """All cases run at the same time, in a process of their own; its end waits for no look-up either."""
    done = subprocess.run(
        [sys.executable, "-m", "support.exchanges"],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "AIOHTTP_NO_EXTENSIONS": without_extensions},
        capture_output=True,
        timeout=4 * SAFETY_NET,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    if not without_extensions and result["parser"] != PARSERS[""]:
        pytest.skip("aiohttp has no parser in C here")
    assert result["parser"] == PARSERS[without_extensions]
    assert result["outcomes"] == {str(case): expected(case) for case in cases()}


# -- look-ups ---------------------------------------------------------------------------------------------------


class NameServers:
    """Look-ups of `*.looked-up.test` wait until `answer` is set, and are counted; all others are the system's."""

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
async def test_a_look_up_that_is_not_answered_says_so(name_servers: NameServers) -> None:
    async with Transport(timeout_ms=200) as transport:
        heard = await transport.post("http://a.looked-up.test:9/", {}, Upload((b"{}",), 2))
    assert heard == NoAnswer("timed out after 200ms while looking up a.looked-up.test")


@pytest.mark.anyio
async def test_connections_share_a_look_up_and_later_ones_ask_anew(name_servers: NameServers) -> None:
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
async def test_a_look_up_that_everybody_gave_up_is_not_joined(name_servers: NameServers) -> None:
    resolver = Resolver()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(resolver.resolve("a.looked-up.test", 80), 0.05)
    assert len(name_servers.asked) == 2


@pytest.mark.anyio
async def test_a_name_that_no_name_server_can_know() -> None:
    async with Transport(timeout_ms=10_000) as transport:
        heard = await transport.post(f"http://{'a' * 64}.test:9/", {}, Upload((b"{}",), 2))
    assert isinstance(heard, NoAnswer)
    assert heard.message.startswith("cannot resolve ")


@pytest.mark.anyio
async def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
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
