"""The public ``Client``: several flushes share its connections, token and throttle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cirron_spool import Client, ConfigError, FlushEvent, NotAuthenticatedError, Warned, flush_spool
from support.answers import Answer, Gate, ok
from support.scripted import ScriptedServer
from support.spools import snapshot, write_batch

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-client-secret"


def fill(directory: Path, prefix: str, count: int = 3) -> Path:
    """Write ``count`` batches and return the directory."""
    for index in range(count):
        write_batch(directory, index + 1, f"{prefix}{index}")
    return directory


def ids(server: ScriptedServer) -> list[str]:
    return [batch_id for batch_id, _ in server.deliveries]


async def test_flushes_one_after_another_use_one_connection(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "a", "a"), fill(tmp_path / "b", "b")
    with ScriptedServer() as server:
        async with Client(api_url=server.url, token=TOKEN) as client:
            results = [await flush_spool(directory, client=client) for directory in (first, second)]
        assert server.connections == 1
        assert len(server.seen("/api/cli/status")) == 1  # a token that was found valid is not verified again
    assert [result.uploaded for result in results] == [3, 3]
    assert ids(server) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert {request.token for request in server.uploads} == {TOKEN}
    assert snapshot(first) == snapshot(second) == []


async def test_flushes_at_once_deliver_each_batch_once(tmp_path: Path) -> None:
    directories = [fill(tmp_path / name, name) for name in "abc"]
    with ScriptedServer() as server:
        async with Client(api_url=server.url, token=TOKEN) as client:
            results = await asyncio.gather(*(flush_spool(each, client=client) for each in directories))
        assert len(server.seen("/api/cli/status")) == 1
    assert [result.uploaded for result in results] == [3, 3, 3]
    assert sorted(ids(server)) == [f"{name}{index}" for name in "abc" for index in range(3)]
    assert [snapshot(each) for each in directories] == [[], [], []]


async def test_a_renewed_token_serves_the_other_flushes(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auth": {"accessToken": "expired-0", "refreshToken": "refresh-0"}}))
    directories = [fill(tmp_path / name, name) for name in "ab"]
    with ScriptedServer(check_auth=True) as server:
        async with Client(api_url=server.url, config_path=config) as client:
            await asyncio.gather(*(flush_spool(each, client=client) for each in directories))
        assert server.platform.rotations == 1
    assert {request.token for request in server.uploads} == {"access-1"}
    assert sorted(ids(server)) == ["a0", "a1", "a2", "b0", "b1", "b2"]


async def test_a_pause_that_the_server_asks_for_holds_the_next_flush(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "a", "a", 1), fill(tmp_path / "b", "b", 1)
    paused = asyncio.Event()

    def on_event(event: FlushEvent) -> None:
        if isinstance(event, Warned):
            paused.set()

    with ScriptedServer(Answer(503, headers=[("Retry-After", "110")])) as server:
        async with Client(api_url=server.url, token=TOKEN, retries=0) as client:
            await flush_spool(first, client=client)
            waiting = asyncio.ensure_future(flush_spool(second, client=client, on_event=on_event))
            done = asyncio.ensure_future(paused.wait())
            await asyncio.wait([waiting, done], return_when=asyncio.FIRST_COMPLETED)
            done.cancel()
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])
        assert len(server.uploads) == 1
    assert len(snapshot(first)) == len(snapshot(second)) == 1


async def test_a_cancelled_flush_loses_nothing_and_leaves_the_others_alone(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "a", "a"), fill(tmp_path / "b", "b")
    gate = Gate()
    with ScriptedServer(ok(stall_before=gate)) as server:
        async with Client(api_url=server.url, token=TOKEN) as client:
            cancelled = asyncio.ensure_future(flush_spool(first, client=client))
            await server.arrived(1)
            other = asyncio.ensure_future(flush_spool(second, client=client))
            await server.arrived(2)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            gate.open()
            assert (await other).uploaded == 3
            assert len(snapshot(first)) == 3
            assert (await flush_spool(first, client=client)).uploaded == 3
    assert snapshot(first) == snapshot(second) == []
    assert server.delivered.keys() == {"a0", "a1", "a2", "b0", "b1", "b2"}


async def test_a_given_session_stays_open(tmp_path: Path) -> None:
    directory = fill(tmp_path / "a", "a")
    with ScriptedServer() as server:
        async with aiohttp.ClientSession() as session:
            async with Client(api_url=server.url, token=TOKEN, session=session) as client:
                await flush_spool(directory, client=client)
            assert not session.closed
    assert ids(server) == ["a0", "a1", "a2"]


@pytest.mark.parametrize(
    "option",
    ["api_url", "token", "config_path", "timeout_ms", "retries", "allow_http", "origins", "session"],
)
async def test_an_option_of_the_client_is_refused_by_a_flush(tmp_path: Path, option: str) -> None:
    directory = fill(tmp_path / "a", "a")
    values: dict[str, Any] = {"timeout_ms": 1000, "retries": 0, "allow_http": False, "origins": {}}
    with ScriptedServer() as server:
        async with Client(api_url=server.url, token=TOKEN) as client:
            with pytest.raises(ConfigError, match=f"^{option} is an option of the client"):
                await flush_spool(directory, client=client, **{option: values.get(option, "given")})
        assert server.requests == []
    assert len(snapshot(directory)) == 3


@pytest.mark.parametrize("is_closed", [False, True], ids=["before", "after"])
async def test_a_client_that_is_not_open_is_refused(tmp_path: Path, is_closed: bool) -> None:
    directory = fill(tmp_path / "a", "a")
    client = Client(api_url="http://127.0.0.1:1", token=TOKEN)
    if is_closed:
        async with client:
            pass
    with pytest.raises(RuntimeError, match="not open"):
        await flush_spool(directory, client=client)
    assert len(snapshot(directory)) == 3


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Client(api_url="http://127.0.0.1:1"), NotAuthenticatedError),
        (lambda: Client(api_url="no address", token=TOKEN), ConfigError),
    ],
    ids=["no token", "bad address"],
)
async def test_entering_raises_for_unusable_settings(
    make: Callable[[], Client], error: type[Exception]
) -> None:
    client = make()
    with pytest.raises(error):
        await client.__aenter__()
    with pytest.raises(RuntimeError, match="not open"):
        _ = client.platform


async def test_an_open_client_is_not_opened_again(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "a", "a"), fill(tmp_path / "b", "b")
    with ScriptedServer() as server:
        client = Client(api_url=server.url, token=TOKEN)
        async with client:
            with pytest.raises(RuntimeError, match="The client is open already"):
                await client.__aenter__()
            assert (await flush_spool(first, client=client)).uploaded == 3
        async with client:  # closed, it may be
            assert (await flush_spool(second, client=client)).uploaded == 3


async def test_a_client_that_could_not_be_opened_may_be_opened_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client()
    with pytest.raises(NotAuthenticatedError):
        await client.__aenter__()
    monkeypatch.setenv("CIRRON_API_KEY", TOKEN)
    with ScriptedServer() as server:
        monkeypatch.setenv("CIRRON_API_ENDPOINT", server.url)
        async with client:
            assert (await flush_spool(fill(tmp_path, "a"), client=client)).uploaded == 3


async def test_a_client_of_another_event_loop_is_refused(tmp_path: Path) -> None:
    directory = fill(tmp_path, "a")
    with ScriptedServer() as server:
        async with Client(api_url=server.url, token=TOKEN) as client:
            flushing = partial(asyncio.run, flush_spool(directory, client=client))
            with pytest.raises(RuntimeError, match="The client belongs to another event loop"):
                await asyncio.to_thread(flushing)
            assert server.uploads == []
            assert (await flush_spool(directory, client=client)).uploaded == 3
