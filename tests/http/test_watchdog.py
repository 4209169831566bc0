"""An exchange that stalls is timed out in every state of its connection; a slow one is not."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cirron_spool import FlushResult, flush_spool
from cirron_spool.http.transport import Transport
from cirron_spool.http.upload_body import Upload
from cirron_spool.http.watchdog import Exchange, StallWatchdog
from cirron_spool.protocol.answer import Answer as Heard
from support import ledger
from support.answers import Answer, ok
from support.background import SAFETY_NET
from support.blocking import BlockingServer
from support.exchanges import cases, expected
from support.scripted import ScriptedServer
from support.spools import TINY, random_batch, sdk_batches, snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-watchdog-secret"


async def flush(server: ScriptedServer | SlowSink, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(spool, **{"api_url": server.url, "token": TOKEN, **options})


PARSERS = {"": "aiohttp._http_parser", "1": "aiohttp.http_parser"}


@pytest.mark.thorough
@pytest.mark.parametrize("without_extensions", PARSERS, ids=["parser in C", "parser in Python"])
def test_a_stall_in_any_state_of_a_connection_times_out(without_extensions: str) -> None:
    """All cases run at the same time, in a process of their own. Its end waits for no lookup."""
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


@pytest.mark.thorough
@pytest.mark.parametrize(
    "answer",
    [
        ok(hang=True),
        ok(stall_after_bytes=0),
        ok(stall_after_bytes=20),
        ok(stall_after_bytes=len(ok().render()) - 1),
        ok(drip=0.02),  # each byte arrives soon after the last, but the whole answer takes too long
    ],
    ids=["hang", "before", "head", "last byte", "drip"],
)
async def test_a_late_answer_times_out(spool: Path, answer: Answer) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(answer) as server:
        result = await flush(server, spool, timeout_ms=400, retries=0)
    assert [failure.message for failure in result.failures] == [
        f"Network error uploading {batches[0].name}: timed out after 400ms"
    ]
    assert (result.exit_code, result.skipped) == (4, 1)
    assert snapshot(spool) == batches


async def test_a_retry_after_a_timeout_sends_the_same_bytes(spool: Path) -> None:
    batches = sdk_batches(spool, 1)
    with ScriptedServer(ok(hang=True), ok(stall_after_bytes=3)) as server:
        result = await flush(server, spool, timeout_ms=200)
    assert (result.uploaded, len(server.uploads)) == (1, 3)
    assert len({(request.batch_id, request.body) for request in server.uploads}) == 1
    assert server.deliveries == [(batches[0].batch_id, batches[0].data)]


async def test_a_stalled_upload_times_out(spool: Path) -> None:
    random_batch(spool, 12_000_000)
    stuck = ok(read_only=1000, stall_before=True)
    with ScriptedServer(stuck, receive_buffer=4096) as server:
        result = await flush(server, spool, timeout_ms=300, retries=0, verify=False)
        received = server.uploads[0].received
    assert [failure.message for failure in result.failures] == [
        "Network error uploading 00000000000000000001-01.json: timed out after 300ms"
    ]
    assert received == 1000
    assert server.delivered == {}


async def test_a_connection_that_is_not_accepted_times_out(spool: Path) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        address = listener.getsockname()
        url = f"http://127.0.0.1:{address[1]}"
        result = await flush_spool(spool, api_url=url, token=TOKEN, timeout_ms=300, retries=0)
    [failure] = result.failures
    assert failure.message == f"Network error uploading {batches[0].name}: timed out after 300ms"
    assert result.exit_code == 4


async def test_a_timeout_leaves_no_cancellation_behind() -> None:
    watchdog = StallWatchdog(0.01)
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(TimeoutError):
        with watchdog.watch(Exchange()):
            await asyncio.Event().wait()
    assert task.cancelling() == 0
    watchdog.close()


async def test_a_cancellation_during_a_timeout_stays_a_cancellation() -> None:
    watchdog = StallWatchdog(60)
    exchange = Exchange()

    async def stall() -> None:
        with watchdog.watch(exchange):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(stall())
    await asyncio.sleep(0)
    exchange.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    watchdog.close()


async def test_a_cancellation_without_a_timeout_stays_a_cancellation() -> None:
    watchdog = StallWatchdog(60)

    async def stall() -> None:
        with watchdog.watch(Exchange()):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(stall())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    watchdog.close()


# -- slow uploads ----------------------------------------------------------------------------------------------


class SlowSink(BlockingServer):
    """A slow link: reads one upload in small pieces, with a pause before each, then answers 200."""

    def __init__(self, sips: int, pause_s: float, sip_bytes: int = 65536) -> None:
        super().__init__()
        self._sips, self._pause_s, self._sip_bytes = sips, pause_s, sip_bytes
        self.body = b""
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, sip_bytes)

    def serve(self) -> None:
        sock, _ = self.listener.accept()
        with sock, sock.makefile("rb", buffering=0) as stream:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += stream.read(1) or b"\r\n\r\n"
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            for _ in range(self._sips):
                time.sleep(self._pause_s)  # the slow link itself
                self.body += stream.read(self._sip_bytes) or b""
            while len(self.body) < length and (piece := stream.read(65536)):
                self.body += piece
            if len(self.body) == length:
                body = gzip.decompress(self.body)
                with ledger.lock:
                    ledger.acknowledge("01", body)
                    sock.sendall(ok().render())
            stream.read(1)  # until the client closes


@pytest.mark.thorough
async def test_a_slow_upload_does_not_time_out(spool: Path) -> None:
    """It takes three times the limit. For most of that time no byte leaves the process's own buffers."""
    body = random_batch(spool, 6_000_000)
    with SlowSink(sips=30, pause_s=0.1) as sink:
        began = time.monotonic()
        result = await flush_spool(
            spool, api_url=sink.url, token=TOKEN, timeout_ms=1000, retries=0, verify=False
        )
        assert time.monotonic() - began > 3
    assert (result.uploaded, result.failures) == (1, ())
    assert gzip.decompress(sink.body) == body


@pytest.mark.thorough
async def test_the_progress_of_a_slow_upload_is_reported() -> None:
    """The number of bytes grows with each report, and stays within the length of the body."""
    body = gzip.compress(random.Random(1).randbytes(3_000_000))
    reported: list[int] = []
    with SlowSink(sips=20, pause_s=0.1) as sink:
        async with Transport(timeout_ms=1000) as transport:
            upload = Upload((body,), len(body), progress=reported.append)
            heard = await transport.post(f"{sink.url}/api/traces", {}, upload)
    assert isinstance(heard, Heard)
    assert len(reported) > 3
    assert reported == sorted(set(reported))
    assert 0 < reported[0] < reported[-1] <= len(body)


@pytest.mark.thorough
async def test_a_slow_upload_in_a_single_write_does_not_time_out(spool: Path) -> None:
    """The kernel has no room for the 200 KB, so most of them wait in the process during the write."""
    body = random_batch(spool, 200_000)

    def narrow(address: Any) -> socket.socket:
        sock = socket.socket(*address[:3])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        return sock

    with SlowSink(sips=24, pause_s=0.1, sip_bytes=8192) as sink:
        connector = aiohttp.TCPConnector(socket_factory=narrow)
        async with aiohttp.ClientSession(connector=connector) as session:
            began = time.monotonic()
            result = await flush(sink, spool, session=session, timeout_ms=1000, retries=0, verify=False)
            assert time.monotonic() - began > 2
    assert (result.uploaded, result.failures) == (1, ())
    assert gzip.decompress(sink.body) == body
