"""Connections that are reused: stale ones, and unsolicited bytes that arrive on them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import pytest

from cirron_spool import FlushEvent, FlushResult, Retrying, Sending, Warned, flush_spool
from cirron_spool.http.connection import Connection
from cirron_spool.http.transport import Transport
from cirron_spool.http.upload_body import Upload
from cirron_spool.protocol.answer import Answer as Heard
from support import tls
from support.answers import Answer, Gate, json_answer, ok
from support.background import SAFETY_NET
from support.blocking import BlockingServer
from support.client_sockets import wait_for_unread_bytes
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot, write_batch
from support.wire import Request

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-connection-secret"


# The server reads the request, or a part of it, and ends the connection without a byte of an answer.
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


# -- stale connections -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_session", [True, False])
@pytest.mark.parametrize("death", DEATHS)
async def test_a_stale_connection_is_replaced_at_once(spool: Path, death: str, own_session: bool) -> None:
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
async def test_a_stale_connection_is_replaced_only_once(spool: Path, death: str) -> None:
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
async def test_a_new_connection_that_ends_costs_an_attempt(spool: Path, death: str) -> None:
    batches = sdk_batches(spool, 2, spans=20)
    with ScriptedServer(DEATHS[death]) as server:
        result, _ = await flush(server, spool, verify=False)
    assert (result.uploaded, result.exit_code, len(server.uploads)) == (0, 4, 1)
    assert snapshot(spool) == batches


async def test_a_reused_connection_that_ends_within_the_answer_costs_an_attempt(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=20)
    with ScriptedServer(ok(), ok(cut_after=1)) as server:
        result, _ = await flush(server, spool)
    assert (result.uploaded, result.exit_code, len(server.uploads)) == (1, 4, 2)
    assert snapshot(spool) == batches[1:]


@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize("how", ["drop", "reset"])
async def test_a_server_that_closes_after_each_answer_without_notice_costs_no_attempt(
    spool: Path, how: str, in_flight: int
) -> None:
    batches = sdk_batches(spool, 20, spans=TINY)
    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=ok(**{how: True}))
        result, events = await flush(server, spool, in_flight=in_flight)
    assert (result.uploaded, result.exit_code) == (20, 0)
    assert not [event for event in events if isinstance(event, Retrying)]
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}


async def test_each_batch_in_flight_tries_one_stale_connection_at_most(spool: Path) -> None:
    """Each connection answers one upload and ends at the next one. No batch tries a second old connection."""
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
async def test_a_streamed_body_is_opened_again_for_a_new_connection(
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


async def test_verification_and_refresh_replace_a_stale_connection(spool: Path) -> None:
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


async def test_a_closed_connection_is_freed() -> None:
    with ScriptedServer() as server:
        server.script(ok(close=True), ok(close=True), ok())
        async with aiohttp.ClientSession() as session:
            async with Transport(timeout_ms=10_000, session=session) as transport:
                for number in range(3):
                    await transport.post(
                        f"{server.url}/api/traces", {"X-Cirron-Batch-Id": f"0{number}"}, Upload((b"{}",), 2)
                    )
                async with asyncio.timeout(SAFETY_NET):
                    while sum(isinstance(thing, Connection) for thing in gc.get_objects()) > 1:
                        await anyio.lowlevel.checkpoint()
                        gc.collect()
    assert server.connections == 3


# -- unsolicited bytes -----------------------------------------------------------------------------------------


UNSOLICITED = ok().render()


def busy_loop() -> aiohttp.TraceConfig:
    """Give the event loop some turns before each request, so that it reads the bytes that have arrived."""

    async def turn(*args: object) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(turn)
    return trace


@pytest.mark.parametrize("status", [200, 503])
async def test_an_unsolicited_answer_in_the_same_segment_acknowledges_nothing(
    spool: Path, status: int
) -> None:
    """The second answer arrives with the first. The next batch's own answer is a refusal."""
    batches = sdk_batches(spool, 3, spans=TINY)
    unsolicited = json_answer({"success": True}, status).render()
    with ScriptedServer(ok(extra=unsolicited), Answer(404)) as server:
        result, _ = await flush(server, spool, retries=3)
    assert (result.uploaded, [failure.status for failure in result.failures]) == (1, [404])
    assert [request.batch_id for request in server.uploads] == [batch.batch_id for batch in batches[:2]]
    assert snapshot(spool) == batches[1:]


@pytest.mark.parametrize("seen_by", ["kernel", "loop"])
@pytest.mark.parametrize("after", ["upload", "verification"])
async def test_an_unsolicited_answer_on_an_idle_connection_acknowledges_nothing(
    spool: Path, seen_by: str, after: str
) -> None:
    """It arrives while the connection is idle. The event loop has read it, or it is still in the kernel."""
    batches = sdk_batches(spool, 3, spans=TINY)
    first = 1 if after == "upload" else 0  # the batch that must not take it for its own answer
    gate = Gate()
    talkative = ok(extra=UNSOLICITED, extra_gate=gate)
    heard: list[FlushEvent] = []

    def hear(event: FlushEvent) -> None:
        heard.append(event)
        if isinstance(event, Sending) and event.name == batches[first].name:
            gate.open()
            wait_for_unread_bytes(server.port)

    with ScriptedServer(*[talkative] * first, Answer(404)) as server:
        if after == "verification":
            server.on(
                "GET", "/api/cli/status", json_answer({"valid": True}, extra=UNSOLICITED, extra_gate=gate)
            )
        if seen_by == "loop":
            # The event loop reads the bytes before the request is sent.
            async with aiohttp.ClientSession(trace_configs=[busy_loop()]) as session:
                result, _ = await flush(server, spool, retries=3, on_event=hear, session=session)
        else:
            result, _ = await flush(server, spool, retries=3, on_event=hear)
    assert (result.uploaded, [failure.status for failure in result.failures]) == (first, [404])
    assert snapshot(spool) == batches[first:]
    # No attempt and no delay: the batch is sent on a new connection at once.
    assert not [event for event in heard if isinstance(event, Retrying)]
    assert server.uploads[-1].connection == 2


async def test_garbage_between_two_answers_costs_no_batch(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(ok(extra=b"\r\nXXXX\r\n\r\n")) as server:
        result, _ = await flush(server, spool, retries=3)
    assert (result.uploaded, result.exit_code) == (2, 0)
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}


async def test_bytes_after_an_answer_without_a_body_end_the_connection() -> None:
    """The empty line is not part of the next answer: the next request uses a new connection."""
    with ScriptedServer(Answer(204, extra=b"\r\n"), Answer(204)) as server:
        async with Transport(timeout_ms=10_000) as transport:
            for number in range(2):
                heard = await transport.post(
                    f"{server.url}/api/traces", {"X-Cirron-Batch-Id": f"0{number}"}, Upload((b"{}",), 2)
                )
                assert isinstance(heard, Heard)


class Greeter(BlockingServer):
    """Sends a success on every connection before the first request, as an SSH server sends its banner."""

    def serve(self) -> None:
        greeted = []
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                sock, _ = self.listener.accept()
                sock.sendall(UNSOLICITED)
                greeted.append(sock)
        for sock in greeted:
            sock.close()


@pytest.mark.parametrize("seen_by", ["kernel", "loop"])
async def test_a_server_that_sends_before_the_first_request_acknowledges_nothing(
    spool: Path, seen_by: str
) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)

    async def greeted(*args: object) -> None:
        wait_for_unread_bytes(server.port)
        for _ in range(20 if seen_by == "loop" else 0):
            await asyncio.sleep(0)

    # The answer arrives between the connection and its first request.
    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(greeted)
    with Greeter() as server:
        async with aiohttp.ClientSession(trace_configs=[trace]) as session:
            result = await flush_spool(
                spool,
                api_url=f"http://127.0.0.1:{server.port}",
                token=TOKEN,
                retries=1,
                timeout_ms=1000,
                verify=False,
                session=session,
            )
    assert (result.uploaded, result.exit_code) == (0, 4)
    assert snapshot(spool) == batches


async def test_unread_session_tickets_do_not_make_a_new_connection_unusable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.AUTHORITY))
    # Whether the tickets are read before the request depends on microseconds. Here they never are.
    monkeypatch.setattr("cirron_spool.http.connection._has_unread_bytes", lambda sock: True)
    with ScriptedServer(tls=tls.server_context()) as server:
        async with Transport(timeout_ms=10_000) as transport:
            await transport.post(f"{server.url}/api/traces", {"X-Cirron-Batch-Id": "0a"}, Upload((b"{}",), 2))
    assert (server.connections, len(server.uploads)) == (1, 1)
