"""Each upload arrives with its own body and its own headers, whatever was sent before it on the connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from aiohttp.client_proto import ResponseHandler

from cirron_spool import FlushResult, flush_spool
from cirron_spool.http.transport import Transport
from cirron_spool.http.upload_body import Upload, UploadBody
from cirron_spool.protocol.answer import Answer as Heard
from cirron_spool.protocol.answer import NoAnswer
from support.answers import Answer, Gate, json_answer, ok
from support.background import SAFETY_NET, closed_port
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot, write_batch
from support.wire import Request

pytestmark = pytest.mark.anyio

TOKEN = "sk-body-secret"


async def flush(server: ScriptedServer, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(spool, **{"api_url": server.url, "token": TOKEN, "retries": 0, **options})


def upload_headers(request: Request) -> dict[str, str | None]:
    names = ("content-encoding", "content-length", "transfer-encoding", "content-type", "authorization")
    return {name: request.headers.get(name) for name in names}


@pytest.mark.parametrize("in_flight", [1, 3])
async def test_each_batch_arrives_with_its_own_body(spool: Path, in_flight: int) -> None:
    batches = sdk_batches(spool, 12, spans=TINY)
    with ScriptedServer() as server:
        assert (await flush(server, spool, in_flight=in_flight)).uploaded == 12
    assert {request.batch_id: request.body for request in server.uploads} == {
        batch.batch_id: batch.data for batch in batches
    }


async def test_each_batch_arrives_with_its_own_headers(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain, compressed and chunked batches in every order of two."""
    monkeypatch.setattr("cirron_spool.pipeline.batch_reader.HELD_BYTES", 100_000)
    sizes = {"plain": 90, "gzip": 5000, "chunked": 3_000_000}
    data = {kind: random.Random(size).randbytes(size) for kind, size in sizes.items()}
    order = ["plain", "plain", "gzip", "plain", "chunked", "gzip", "gzip", "chunked", "chunked", "plain"]
    for number, kind in enumerate(order):
        write_batch(spool, number + 1, f"{number:02x}", data[kind])
    with ScriptedServer() as server:
        assert (await flush(server, spool)).uploaded == len(order)
    assert [request.batch_id for request in server.uploads] == [
        f"{number:02x}" for number in range(len(order))
    ]
    for kind, request in zip(order, server.uploads, strict=True):
        assert upload_headers(request) == {
            "content-encoding": None if kind == "plain" else "gzip",
            "content-length": None if kind == "chunked" else str(len(request.body)),
            "transfer-encoding": "chunked" if kind == "chunked" else None,
            "content-type": "application/json",
            "authorization": f"Bearer {TOKEN}",
        }
        body = request.body if kind == "plain" else gzip.decompress(request.body)
        assert body == data[kind]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(503), id="temporary failure"),
        pytest.param(Answer(400), id="rejected"),
        pytest.param(ok(close=True), id="connection closed"),
        pytest.param(Answer(200, body=b"x" * 70_000), id="longer than 64 KB"),
        pytest.param(json_answer({"success": True}, extra=ok().render()), id="followed by another"),
    ],
)
async def test_the_batch_after_any_answer_arrives_whole(spool: Path, answer: Answer) -> None:
    batches = sdk_batches(spool, 3, spans=20)
    with ScriptedServer(ok(), answer) as server:
        result = await flush(server, spool, keep_going=True, quarantine=True)
        assert result.uploaded >= 2
    last = server.uploads[-1]
    assert gzip.decompress(last.body) == batches[-1].data
    assert upload_headers(last)["content-length"] == str(len(last.body))


async def test_the_upload_after_a_cancelled_one_arrives_whole() -> None:
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


async def test_the_middlewares_of_a_callers_session_see_each_batch(spool: Path) -> None:
    """A middleware may send a request twice, or ask for the text of its body, which an upload does not have."""
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
    assert snapshot(spool) == []


async def test_an_answered_body_is_not_held() -> None:
    """A body may be 8 MiB, and the next upload may be far away."""
    part = bytes(100_000)
    references = sys.getrefcount(part)
    with ScriptedServer() as server:
        async with Transport(timeout_ms=10_000) as transport:
            headers = {"X-Cirron-Batch-Id": "01"}
            await transport.post(f"{server.url}/api/traces", headers, Upload((part,), len(part)))
            assert sys.getrefcount(part) == references


# -- the write, and the call after it --------------------------------------------------------------------------


async def test_on_sent_is_called_after_the_write_and_before_the_answer() -> None:
    gate = Gate()
    calls: list[str] = []

    def on_sent() -> None:
        calls.append("sent")
        gate.open()  # the answer waits for it

    with ScriptedServer(ok(stall_before=gate)) as server:
        async with Transport(timeout_ms=10_000) as transport:
            heard = await transport.post(
                f"{server.url}/api/traces",
                {"X-Cirron-Batch-Id": "0a"},
                Upload((b"{", b"}"), 2, on_sent=on_sent),
            )
    assert isinstance(heard, Heard)
    assert heard.status == 200
    assert calls == ["sent"]


async def test_on_sent_is_not_called_without_a_connection() -> None:
    calls: list[str] = []
    upload = Upload((b"{}",), 2, on_sent=lambda: calls.append("sent"))
    async with Transport(timeout_ms=10_000) as transport:
        assert isinstance(
            await transport.post(f"http://127.0.0.1:{closed_port()}/api/traces", {}, upload), NoAnswer
        )
    assert calls == []


async def test_a_connection_that_closes_at_the_end_of_a_stream_leaves_no_unretrieved_exception() -> None:
    """The event loop would print the traceback of an exception that was never retrieved."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))

    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        [body] = transport._watchdog._watched
        async with asyncio.timeout(SAFETY_NET):
            while not isinstance(body, UploadBody) or body.connection is None or body.connection.is_open:
                await anyio.lowlevel.checkpoint()

    @contextlib.asynccontextmanager
    async def stream() -> AsyncIterator[AsyncIterator[bytes]]:
        yield parts()

    with ScriptedServer(ok(read_only=500, reset=True)) as server:
        async with Transport(timeout_ms=60_000) as transport:
            outcome = await transport.post(server.url + "/api/traces", {}, Upload(length=None, stream=stream))
    assert isinstance(outcome, NoAnswer)
    gc.collect()  # asyncio reports the exception when its task is freed
    await asyncio.sleep(0)
    assert unheard == []


class OpenTransport(asyncio.Transport):
    """A transport that is open and whose buffer is always empty."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._protocol = protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


class UnlimitedWriter:
    """A writer on which no write ever waits, as with a kernel that has room for all."""

    def __init__(self) -> None:
        self.written = 0
        self.protocol = ResponseHandler(asyncio.get_running_loop())
        self.protocol.transport = OpenTransport(self.protocol)

    async def write(self, piece: bytes | memoryview) -> None:
        self.written += len(piece)


@pytest.mark.parametrize("part", [8 * 1024 * 1024, 100_000, 1000], ids=["whole", "in parts", "in crumbs"])
async def test_other_tasks_get_turns_during_a_large_write(part: int) -> None:
    size = 8 * 1024 * 1024
    parts = tuple(bytes(min(part, size - start)) for start in range(0, size, part))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    writer: Any = UnlimitedWriter()
    body = UploadBody(Upload(parts, size))
    neighbour = asyncio.ensure_future(other())
    await body.write(writer)
    neighbour.cancel()
    assert writer.written == size
    # A turn after each 256 KiB, or after the part that exceeds them.
    assert turns >= size // (256 * 1024 + (part if part < 256 * 1024 else 0)) - 1


async def test_the_stall_limit_starts_with_the_write_and_not_with_the_connection() -> None:
    """The time to connect is no stall of the upload."""
    body = UploadBody(Upload((b"{}",), 2))
    connected = time.monotonic()
    seen: list[float] = []

    class Writer(UnlimitedWriter):
        async def write(self, piece: bytes | memoryview) -> None:
            seen.append(body.last_progress)

    writer: Any = Writer()
    await body.write(writer)
    assert seen
    assert seen[0] >= connected
