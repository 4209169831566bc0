"""A request that is sent again and again: each time on the wire it says its own, whatever the one before it said."""

from __future__ import annotations

import contextlib
import gzip
import random
import sys
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from cirron_spool import FlushResult, flush_spool
from cirron_spool.http.transport import Transport
from cirron_spool.http.upload_body import Upload
from cirron_spool.protocol.answer import Answer as Heard
from support.answers import Answer, Gate, json_answer, ok
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot, write_batch
from support.wire import Request

pytestmark = pytest.mark.anyio

TOKEN = "sk-post-secret"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The bodies that aiohttp has made a request for; nothing else shows how many it made."""
    bodies: list[object] = []
    make = aiohttp.ClientRequest.__init__

    def making(request: aiohttp.ClientRequest, *args: Any, **options: Any) -> None:
        if options.get("data") is not None:
            bodies.append(options["data"])
        make(request, *args, **options)

    monkeypatch.setattr(aiohttp.ClientRequest, "__init__", making)
    return bodies


async def flush(server: ScriptedServer, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(spool, **{"api_url": server.url, "token": TOKEN, "retries": 0, **options})


def says(request: Request) -> dict[str, str | None]:
    names = ("content-encoding", "content-length", "transfer-encoding", "content-type", "authorization")
    return {name: request.headers.get(name) for name in names}


@pytest.mark.parametrize("in_flight", [1, 3])
async def test_a_flush_makes_a_request_for_each_batch_in_flight_and_not_for_each_batch(
    spool: Path, made: list[object], in_flight: int
) -> None:
    batches = sdk_batches(spool, 12, spans=TINY)
    with ScriptedServer() as server:
        assert (await flush(server, spool, in_flight=in_flight)).uploaded == 12
    assert sorted(request.body for request in server.uploads) == sorted(batch.data for batch in batches)
    assert 1 <= len(made) <= in_flight


async def test_each_says_its_own(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones as they are, larger ones compressed, the largest in chunks: in every order of two."""
    monkeypatch.setattr("cirron_spool.pipeline.read_ahead.HELD_BYTES", 100_000)
    data = {
        kind: random.Random(size).randbytes(size) for kind, size in [("s", 90), ("l", 5000), ("h", 3_000_000)]
    }
    kinds = "sslshllhhs"
    for number, kind in enumerate(kinds):
        write_batch(spool, number + 1, f"{number:02x}", data[kind])
    with ScriptedServer() as server:
        assert (await flush(server, spool)).uploaded == len(kinds)
    assert [request.batch_id for request in server.uploads] == [
        f"{number:02x}" for number in range(len(kinds))
    ]
    for kind, request in zip(kinds, server.uploads, strict=True):
        assert says(request) == {
            "content-encoding": None if kind == "s" else "gzip",
            "content-length": None if kind == "h" else str(len(request.body)),
            "transfer-encoding": "chunked" if kind == "h" else None,
            "content-type": "application/json",
            "authorization": f"Bearer {TOKEN}",
        }
        assert (request.body if kind == "s" else gzip.decompress(request.body)) == data[kind]


@pytest.mark.parametrize(
    ("answer", "makes"),
    [
        pytest.param(Answer(503), 1, id="later"),
        pytest.param(Answer(400), 1, id="rejected"),
        pytest.param(ok(close=True), 1, id="closed"),
        pytest.param(Answer(200, body=b"x" * 70_000), 2, id="too long"),
        pytest.param(json_answer({"success": True}, extra=ok().render()), 1, id="and another"),
    ],
)
async def test_after_an_answer_of_any_kind_the_next_is_whole(
    spool: Path, made: list[object], answer: Answer, makes: int
) -> None:
    """One that was not answered in order is not sent again: what is left of it is not known."""
    batches = sdk_batches(spool, 3, spans=20)
    with ScriptedServer(ok(), answer) as server:
        result = await flush(server, spool, keep_going=True, quarantine=True)
        assert result.uploaded >= 2
    last = server.uploads[-1]
    assert gzip.decompress(last.body) == batches[-1].data
    assert says(last)["content-length"] == str(len(last.body))
    assert len(made) == makes


async def test_one_that_is_cancelled_is_not_sent_again(made: list[object]) -> None:
    never = Gate()
    with ScriptedServer(ok(stall_before=never), ok()) as server:
        async with Transport(timeout_ms=10_000) as transport:
            url = f"{server.url}/api/traces"
            with anyio.CancelScope() as scope:
                upload = Upload((b"[1]",), 3, None, scope.cancel)
                await transport.post(url, {"X-Cirron-Batch-Id": "01"}, upload)
            never.open()
            heard = await transport.post(url, {"X-Cirron-Batch-Id": "02"}, Upload((b"[]",), 2))
    assert isinstance(heard, Heard)
    assert heard.status == 200
    assert (server.uploads[-1].batch_id, server.uploads[-1].body) == ("02", b"[]")
    assert len(made) == 2


async def test_the_middlewares_of_a_callers_session_see_each_batch(spool: Path, made: list[object]) -> None:
    """They may send one twice, or ask for its text, which it does not have."""
    batches = sdk_batches(spool, 3, spans=TINY)
    seen: list[str | None] = []

    async def twice(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        seen.append(request.headers.get("X-Cirron-Batch-Id"))
        with contextlib.suppress(TypeError):
            assert isinstance(request.body, aiohttp.Payload)
            await request.body.as_bytes()
            raise AssertionError("a body has a text form")
        first = await handler(request)
        await first.read()
        return await handler(request)

    with ScriptedServer() as server:
        async with aiohttp.ClientSession(middlewares=[twice]) as session:
            result = await flush(server, spool, session=session, verify=False)
    assert result.uploaded == 3
    assert seen == [batch.batch_id for batch in batches]
    assert [request.body for request in server.uploads] == [batch.data for batch in batches for _ in range(2)]
    assert len(made) == 3
    assert snapshot(spool) == []


async def test_a_body_is_not_held_once_it_was_answered() -> None:
    """The next may be long in coming, or streamed and so by a request of its own: 8 MiB would stay meanwhile."""
    part = bytes(100_000)
    held_before = sys.getrefcount(part)
    with ScriptedServer() as server:
        async with Transport(timeout_ms=10_000) as transport:
            headers = {"X-Cirron-Batch-Id": "01"}
            await transport.post(f"{server.url}/api/traces", headers, Upload((part,), len(part)))
            assert sys.getrefcount(part) == held_before
