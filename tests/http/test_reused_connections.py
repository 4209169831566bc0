"""A kept-alive connection that turns out dead costs no attempt, no delay and no word; a fresh one that dies does."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cirron_spool import FlushEvent, FlushResult, Retrying, Warned, flush_spool
from cirron_spool.http.transport import Transport
from cirron_spool.http.upload_body import Upload
from cirron_spool.protocol.answer import Answer as Heard
from cirron_spool.protocol.answer import NoAnswer
from support.answers import Answer, json_answer, ok
from support.background import closed_port
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot, write_batch
from support.wire import Request

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-reuse-secret"

# The server reads the request, or some of it, and ends the connection without a byte of an answer.
DEATHS = {
    "closed": ok(cut_after=0),
    "reset": ok(cut_after=0, reset=True),
    "closed within the body": ok(read_only=1, close=True),
    "reset within the body": ok(read_only=1, reset=True),
}


async def flush(server: ScriptedServer, spool: Path, **options: Any) -> tuple[FlushResult, list[FlushEvent]]:
    events: list[FlushEvent] = []
    result = await flush_spool(
        spool,
        **{"api_url": server.url, "token": TOKEN, "retries": 0, "on_event": events.append, **options},
    )
    return result, events


@pytest.mark.parametrize("own_session", [True, False])
@pytest.mark.parametrize("death", DEATHS)
async def test_a_dead_connection_is_replaced_at_once(spool: Path, death: str, own_session: bool) -> None:
    batches = sdk_batches(spool, 4, spans=20)
    with ScriptedServer(ok(), DEATHS[death], ok(), DEATHS[death]) as server:
        async with aiohttp.ClientSession() as session:
            result, events = await flush(server, spool, session=None if own_session else session)
    assert (result.uploaded, result.exit_code) == (4, 0)
    assert not [event for event in events if isinstance(event, Retrying | Warned)]
    assert [request.batch_id for request in server.uploads] == [
        batches[number].batch_id for number in (0, 1, 1, 2, 2, 3)
    ]
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}


@pytest.mark.parametrize("death", DEATHS)
async def test_it_is_replaced_once(spool: Path, death: str) -> None:
    batches = sdk_batches(spool, 2, spans=20)
    with ScriptedServer(ok(), DEATHS[death], DEATHS[death], ok()) as server:
        result, _ = await flush(server, spool)
    assert (result.uploaded, result.failed, result.exit_code) == (1, 1, 4)
    assert len(server.uploads) == 3
    assert len({request.connection for request in server.uploads}) == 2
    assert "Errno" not in result.failures[0].message
    assert "write request body" not in result.failures[0].message
    assert snapshot(spool) == batches[1:]


@pytest.mark.parametrize("death", DEATHS)
async def test_a_fresh_connection_that_dies_is_an_attempt(spool: Path, death: str) -> None:
    batches = sdk_batches(spool, 2, spans=20)
    with ScriptedServer(DEATHS[death]) as server:
        result, _ = await flush(server, spool, verify=False)
    assert (result.uploaded, result.exit_code, len(server.uploads)) == (0, 4, 1)
    assert snapshot(spool) == batches


async def test_a_first_byte_makes_it_an_attempt(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=20)
    with ScriptedServer(ok(), ok(cut_after=1)) as server:
        result, _ = await flush(server, spool)
    assert (result.uploaded, result.exit_code, len(server.uploads)) == (1, 4, 2)
    assert snapshot(spool) == batches[1:]


@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize("how", ["drop", "reset"])
async def test_a_server_that_closes_after_each_answer_and_does_not_say_so(
    spool: Path, how: str, in_flight: int
) -> None:
    batches = sdk_batches(spool, 20, spans=TINY)
    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=ok(**{how: True}))
        result, events = await flush(server, spool, in_flight=in_flight)
    assert (result.uploaded, result.exit_code) == (20, 0)
    assert not [event for event in events if isinstance(event, Retrying)]
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}


async def test_several_in_flight_try_one_dead_connection_each(spool: Path) -> None:
    """Each connection answers one upload and dies of the next: no batch tries several of the old ones."""
    batches = sdk_batches(spool, 30, spans=TINY)
    answered: set[int] = set()

    def answer(request: Request) -> Answer:
        first = request.connection not in answered
        answered.add(request.connection)
        return ok() if first else ok(cut_after=0)

    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=answer)
        result, events = await flush(server, spool, in_flight=4)
    assert (result.uploaded, result.exit_code) == (30, 0)
    assert not [event for event in events if isinstance(event, Retrying)]
    assert max(len(server.attempts(batch.batch_id)) for batch in batches) == 2
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}


@pytest.mark.parametrize("death", DEATHS)
async def test_a_streamed_body_is_opened_anew(
    spool: Path, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    monkeypatch.setattr("cirron_spool.pipeline.batch_reader.HELD_BYTES", 100_000)
    data = [random.Random(number).randbytes(2_000_000) for number in range(3)]
    for number, body in enumerate(data):
        write_batch(spool, number, f"{number:02x}", body)
    with ScriptedServer(ok(), DEATHS[death]) as server:
        result, events = await flush(server, spool)
    assert (result.uploaded, result.exit_code) == (3, 0)
    assert not [event for event in events if isinstance(event, Retrying)]
    assert server.delivered == {f"{number:02x}": body for number, body in enumerate(data)}


async def test_verification_and_refresh(spool: Path) -> None:
    with ScriptedServer() as server:
        status, refresh = f"{server.url}/api/cli/status", f"{server.url}/api/cli/auth/refresh"
        server.on("POST", "/api/cli/auth/refresh", json_answer({}), ok(cut_after=0), json_answer({}))
        server.on("GET", "/api/cli/status", json_answer({}, cut_after=0))
        async with Transport(timeout_ms=10_000) as transport:
            for _ in range(2):
                heard = await transport.post_json(refresh, {}, {"refresh_token": "r"})
                assert isinstance(heard, Heard)
            heard = await transport.get(status, {})
            assert isinstance(heard, Heard)
    assert len(server.seen("/api/cli/auth/refresh")) == 3
    assert len(server.seen("/api/cli/status")) == 2


async def test_what_cannot_be_connected_is_asked_once_an_attempt() -> None:
    async with Transport(timeout_ms=10_000) as transport:
        heard = await transport.post(f"http://127.0.0.1:{closed_port()}/", {}, Upload((b"{}",), 2))
    assert isinstance(heard, NoAnswer)
    assert heard.message.endswith("Connection refused")


# -- addresses --------------------------------------------------------------------------------------------------


async def test_a_later_attempt_finds_a_corrected_address(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    addresses = iter(["127.0.0.2", "127.0.0.1"])
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        return real(next(addresses) if host == "moved.test" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("cirron_spool.settings.load.is_loopback", lambda host: True)
    with ScriptedServer() as server:
        result, events = await flush(
            server, spool, api_url=f"http://moved.test:{server.port}", retries=1, verify=False
        )
    assert (result.uploaded, result.exit_code) == (2, 0)
    [retry] = [event for event in events if isinstance(event, Retrying)]
    assert retry.message.endswith(f"cannot connect to moved.test:{server.port}: Connection refused")
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}


async def test_the_end_of_an_answer_that_another_byte_follows() -> None:
    """An empty line behind an answer is no part of the next one: that is asked for on a fresh connection."""
    with ScriptedServer(Answer(204, extra=b"\r\n"), Answer(204)) as server:
        async with Transport(timeout_ms=10_000) as transport:
            for number in range(2):
                heard = await transport.post(
                    f"{server.url}/api/traces", {"X-Cirron-Batch-Id": f"0{number}"}, Upload((b"{}",), 2)
                )
                assert isinstance(heard, Heard)
