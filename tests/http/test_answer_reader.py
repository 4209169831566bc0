"""Answers that are cut, early, endless, compressed or no HTTP, judged by the batches that a flush deletes."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import FlushEvent, FlushResult, Retrying, flush_spool
from cirron_spool.http.transport import Transport
from cirron_spool.http.upload_body import Upload
from cirron_spool.protocol.answer import Answer as Heard
from support.answers import Answer, ok
from support.background import SAFETY_NET
from support.client_sockets import client_sockets, wait_for_unread_bytes
from support.scripted import ScriptedServer
from support.spools import TINY, random_batch, sdk_batches, snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-answer-secret"


async def flush(server: ScriptedServer, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(spool, **{"api_url": server.url, "token": TOKEN, **options})


# -- cut answers -----------------------------------------------------------------------------------------------


TEMPLATES = {
    "length": ok(),
    "chunked": ok(chunked=True),
    "http10": ok(http10=True),
    "close": ok(close=True),
}


@pytest.mark.thorough
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("template", TEMPLATES)
async def test_an_answer_cut_at_any_byte_is_no_acknowledgement(
    spool: Path, template: str, reset: bool
) -> None:
    whole = TEMPLATES[template]
    wire = whole.render()
    [batch] = sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as server:
        for cut in range(0, len(wire), 3 if reset else 1):
            server.script(ok(**_behaviour(whole), cut_after=cut, reset=reset))
            result = await flush(server, spool, retries=0, verify=False)
            assert (result.uploaded, result.exit_code) == (0, 4), f"cut after {cut}: {wire[:cut]!r}"
            assert snapshot(spool) == [batch]
        server.script(whole)
        assert (await flush(server, spool, verify=False)).uploaded == 1


def _behaviour(answer: Answer) -> dict[str, bool]:
    return {name: True for name in ("chunked", "http10", "close") if getattr(answer, name)}


async def test_an_answer_without_a_body_cut_at_any_byte_is_no_acknowledgement(spool: Path) -> None:
    """A 204 has only a head."""
    wire = Answer(204).render()
    [batch] = sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as server:
        for cut in range(len(wire)):
            server.script(Answer(204, cut_after=cut))
            assert (await flush(server, spool, retries=0, verify=False)).uploaded == 0, cut
    assert snapshot(spool) == [batch]


async def test_an_http10_answer_that_ends_with_the_connection_acknowledges(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    text = Answer(200, headers=[("Content-Type", "text/plain")], body=b"ok", http10=True)
    with ScriptedServer(text) as server:
        assert (await flush(server, spool)).uploaded == 1


@pytest.mark.parametrize("how", ["reset", "stalled"])
@pytest.mark.parametrize("left", [0, 1, 5])
async def test_an_http10_answer_without_an_orderly_end_is_no_acknowledgement(
    spool: Path, how: str, left: int
) -> None:
    """Only an orderly close marks the end of such an answer. A reset and a timeout do not."""
    batches = sdk_batches(spool, 1, spans=TINY)
    text: dict[str, Any] = {"headers": [("Content-Type", "text/plain")], "body": b"accepted", "http10": True}
    size = len(Answer(**text).render()) - left
    if how == "reset":
        answer = Answer(**text, cut_after=size, reset=True) if left else Answer(**text, reset=True)
    else:
        answer = (
            Answer(**text, stall_after_bytes=size) if left else Answer(**text, stall_after_bytes=size - 1)
        )
    with ScriptedServer(Answer(**{**answer.__dict__, "acknowledges": False})) as server:
        result = await flush(server, spool, retries=0, timeout_ms=300, verify=False)
    assert (result.uploaded, result.exit_code) == (0, 4)
    assert snapshot(spool) == batches


# -- interim answers, and answers that are no HTTP -------------------------------------------------------------


async def test_interim_answers_are_skipped(spool: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(ok(interim=[100, 103]), Answer(404, interim=[100] * 50)) as server:
        result = await flush(server, spool)
    assert (result.uploaded, [failure.status for failure in result.failures]) == (1, [404])


async def test_endless_interim_answers_are_bounded(spool: Path) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    endless = Answer(raw=Answer(103).render() * 100_000, drop=True)
    with ScriptedServer(endless) as server:
        result = await flush(server, spool, retries=0, timeout_ms=5_000)
    assert (result.uploaded, result.exit_code) == (0, 4)
    assert snapshot(spool) == batches


async def test_switching_protocols_stops_the_flush(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n"
    with ScriptedServer(Answer(raw=switch + ok().render(), drop=True)) as server:
        result = await flush(server, spool)
    assert [failure.message for failure in result.failures] == [f"Unexpected HTTP 101 for {batches[0].name}"]
    assert (result.exit_code, len(server.uploads)) == (1, 1)
    assert snapshot(spool) == batches


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00" * 100,
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x50",
        b"",
    ],
)
async def test_garbage_is_no_acknowledgement(spool: Path, raw: bytes) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer(*[Answer(raw=raw, drop=True)] * 2) as server:
        result = await flush(server, spool, retries=1, verify=False)
    assert (result.uploaded, result.failed, result.exit_code, len(server.uploads)) == (0, 1, 4, 2)
    assert "Network error uploading" in result.failures[0].message
    assert snapshot(spool) == batches


# -- early answers ---------------------------------------------------------------------------------------------


async def test_an_early_refusal_is_judged_and_the_connection_closed(spool: Path) -> None:
    random_batch(spool, 12_000_000)
    early = Answer(413, reason="Too Large", before_body=True, close=True, read_only=1)
    with ScriptedServer(early, receive_buffer=4096) as server:
        result = await flush(server, spool, verify=False)
    assert [failure.message for failure in result.failures] == [
        "Rejected 00000000000000000001-01.json: HTTP 413 Too Large"
    ]
    assert not server.uploads[0].complete


async def test_an_early_success_is_no_acknowledgement(spool: Path) -> None:
    body = random_batch(spool, 12_000_000)
    early = ok(before_body=True)
    with ScriptedServer(early, receive_buffer=4096) as server:
        events: list[FlushEvent] = []
        result = await flush(server, spool, verify=False, on_event=events.append)
    retried = [event.message for event in events if isinstance(event, Retrying)]
    assert len(retried) == 1
    assert retried[0].endswith("HTTP 200, but the answer came before the batch was sent")
    assert (result.uploaded, len(server.uploads)) == (1, 2)
    assert server.uploads[1].connection != server.uploads[0].connection
    assert server.deliveries[-1] == ("01", body)


async def test_an_early_success_for_half_a_batch_is_no_acknowledgement(spool: Path) -> None:
    random_batch(spool, 12_000_000)
    early = ok(before_body=True, close=True, read_only=1000)
    with ScriptedServer(*[early] * 2, receive_buffer=4096) as server:
        result = await flush(server, spool, verify=False, retries=1)
    assert (result.uploaded, result.failed, result.exit_code) == (0, 1, 4)
    assert server.delivered == {}


async def test_an_early_refusal_is_read_although_the_next_write_fails() -> None:
    closed = threading.Event()

    def refuse(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(1)
            sock.sendall(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfull")
        closed.set()  # a reset, since bytes of the request are unread

    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        closed.wait(SAFETY_NET)  # blocks the event loop, which would read the answer
        yield b"x" * 1000

    @contextlib.asynccontextmanager
    async def stream() -> AsyncIterator[AsyncIterator[bytes]]:
        yield parts()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=refuse, args=(listener,))
        server.start()
        async with Transport(timeout_ms=30_000) as transport:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/traces"
            outcome = await transport.post(url, {}, Upload(length=3000, stream=stream))
        server.join()
    assert isinstance(outcome, Heard), outcome
    assert (outcome.status, outcome.body, outcome.early) == (413, b"full", True)


async def test_an_early_answer_ends_the_connection_although_the_server_reads_no_more() -> None:
    """An orderly close would wait until the server has read the rest of the body."""
    done, ended = asyncio.Event(), asyncio.Event()

    def unsent_bytes() -> int:
        [exchange] = transport._watchdog._watched
        return 0 if exchange.connection is None else exchange.connection.unsent_bytes()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        unsent = 0
        try:
            while not unsent or unsent != unsent_bytes():  # until the kernel takes no more of the body
                unsent = unsent_bytes()
                for _ in range(100):
                    await asyncio.sleep(0)
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nfull")
            await done.wait()
        finally:
            writer.transport.abort()
            ended.set()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=4096)
    port = server.sockets[0].getsockname()[1]
    body = bytes(12_000_000)
    async with Transport(timeout_ms=60_000) as transport:
        heard = await transport.post(f"http://127.0.0.1:{port}/api/traces", {}, Upload((body,), len(body)))
        assert isinstance(heard, Heard)
        assert (heard.status, heard.early) == (413, True)
        async with asyncio.timeout(SAFETY_NET):
            while open_sockets := client_sockets(port):
                for sock in open_sockets:
                    sock.close()
                await asyncio.sleep(0)
    done.set()
    await ended.wait()
    server.close()
    await asyncio.sleep(0)  # the aborted transport closes its socket


# -- limits ----------------------------------------------------------------------------------------------------


async def test_a_huge_answer_is_read_up_to_64_kb(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    fits = Answer(200, headers=[("Content-Type", "text/plain")], body=b"x" * 65536)
    too_long = Answer(200, headers=[("Content-Type", "text/plain")], body=b"x" * 65537)
    with ScriptedServer(fits, too_long) as server:
        result = await flush(server, spool, retries=0)
    assert result.uploaded == 1
    [failure] = result.failures
    assert failure.message.endswith("HTTP 200, but the answer was cut or too long")
    assert snapshot(spool) == batches[1:]


@pytest.mark.parametrize("over", [0, 1])
async def test_an_answer_in_one_segment_is_read_up_to_64_kb(over: int) -> None:
    """The whole answer is in the kernel before the event loop reads."""
    body = b"x" * (64 * 1024 + over)
    answer = Answer(200, body=body)
    whole = len(answer.render())

    def on_sent() -> None:
        wait_for_unread_bytes(server.port)
        [sock] = client_sockets(server.port)
        deadline = time.monotonic() + SAFETY_NET
        with closing(sock):
            while len(sock.recv(whole, socket.MSG_PEEK)) < whole:
                assert time.monotonic() < deadline

    with ScriptedServer(answer) as server:
        async with Transport(timeout_ms=10_000) as transport:
            heard = await transport.post(
                f"{server.url}/api/traces",
                {"X-Cirron-Batch-Id": "0a"},
                Upload((b"{}",), 2, on_sent=on_sent),
            )
    assert isinstance(heard, Heard)
    assert (len(heard.body), heard.complete) == (64 * 1024, not over)


async def test_an_endless_answer_is_not_read_to_its_end(spool: Path) -> None:
    """The server cannot send its 100 MB: the client ends the connection."""
    batches = sdk_batches(spool, 1, spans=TINY)
    endless = Answer(500, body=b"x" * 100_000_000)
    with ScriptedServer(endless) as server:
        result = await flush(server, spool, retries=0)
        assert [failure.status for failure in result.failures] == [500]
        assert not server.uploads[0].answered
    assert snapshot(spool) == batches


@pytest.mark.parametrize(
    "headers",
    [[(f"X-{number}", "y" * 1000) for number in range(1000)], [("X-Long", "y" * 100_000)]],
    ids=["many", "long"],
)
async def test_endless_headers_are_bounded(spool: Path, headers: list[tuple[str, str]]) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer(Answer(200, headers=headers, close=True)) as server:
        result = await flush(server, spool, retries=0)
    assert (result.uploaded, result.exit_code) == (0, 4)
    assert "the answer is not HTTP" in result.failures[0].message
    assert snapshot(spool) == batches


async def test_a_compressed_answer_is_never_decoded(spool: Path) -> None:
    bomb = gzip.compress(b"[" + b" " * 50_000_000 + b"]")
    batches = sdk_batches(spool, 1, spans=TINY)
    headers = [("Content-Encoding", "gzip"), ("Content-Type", "application/json")]
    with ScriptedServer(Answer(200, headers=headers, body=bomb)) as server:
        result = await flush(server, spool, retries=0)
    assert result.failures[0].message.endswith(
        "HTTP 200, but the answer is compressed, which was not asked for"
    )
    assert {request.headers["accept-encoding"] for request in server.requests} == {"identity"}
    assert snapshot(spool) == batches
