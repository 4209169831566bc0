"""Answers as bytes on the wire: whole, cut, late, early, endless, left over; and silence. Judged by what is deleted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import os
import random
import select
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import aiohttp
import anyio.lowlevel
import pytest
from aiohttp.client_proto import ResponseHandler

from cirron_spool import Failed, FlushEvent, FlushResult, Retrying, Sending, Warned, flush_spool
from cirron_spool.http.connection import Connection
from cirron_spool.http.transport import Transport
from cirron_spool.http.upload_body import Upload, UploadBody
from cirron_spool.protocol.answer import Answer as Heard
from cirron_spool.protocol.answer import NoAnswer
from support import ledger
from support.answers import Answer, Gate, html, json_answer, ok
from support.background import SAFETY_NET, closed_port
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot, write_batch

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_delays")]

TOKEN = "sk-transport-secret"


async def flush(server: ScriptedServer | SlowSink, spool: Path, **options: Any) -> FlushResult:
    return await flush_spool(spool, **{"api_url": server.url, "token": TOKEN, **options})


def big_batch(spool: Path, size: int, created_ns: int = 1) -> bytes:
    """A batch of `size` random bytes: its body is no smaller, so it does not vanish into the kernel's buffers."""
    body = random.Random(size).randbytes(size)
    write_batch(spool, created_ns, f"{created_ns:02x}", body)
    return body


# -- left-over answers ------------------------------------------------------------------------------------------


def client_sockets(port: int) -> list[socket.socket]:
    """Duplicates of this process's connections to `port`, from the client's side."""
    found: dict[int, socket.socket] = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own; or no socket
            number = os.dup(int(name))
            try:
                sock = socket.socket(fileno=number)
            except OSError:
                os.close(number)
                continue
            inode = os.fstat(number).st_ino
            if _peer(sock) == ("127.0.0.1", port) and inode not in found:
                found[inode] = sock
            else:
                sock.close()
    return list(found.values())


def _peer(sock: socket.socket) -> object:
    try:
        return sock.getpeername()
    except OSError:
        return None


def wait_for_left_over(port: int) -> None:
    """Block, with the loop, until bytes wait unread in the kernel on the kept-alive connection."""
    [sock] = client_sockets(port)
    with closing(sock):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        assert poll.poll(SAFETY_NET * 1000)


LEFT_OVER = ok().render()


def busy_loop() -> aiohttp.TraceConfig:
    """A session's way to wait a little before each request: what has come on its connections is read meanwhile."""

    async def turn(*args: object) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(turn)
    return trace


@pytest.mark.parametrize("status", [200, 503])
async def test_a_left_over_in_the_same_segment(spool: Path, status: int) -> None:
    """The second answer comes with the first. The next batch's own answer is a refusal: no 200 is left for it."""
    batches = sdk_batches(spool, 3, spans=TINY)
    left_over = json_answer({"success": True}, status).render()
    with ScriptedServer(ok(extra=left_over), Answer(404)) as server:
        result = await flush(server, spool)
    assert (result.uploaded, [failure.status for failure in result.failures]) == (1, [404])
    assert [request.batch_id for request in server.uploads] == [batch.batch_id for batch in batches[:2]]
    assert snapshot(spool) == batches[1:]


@pytest.mark.parametrize("seen_by", ["kernel", "loop"])
@pytest.mark.parametrize("after", ["upload", "verification"])
async def test_a_left_over_that_comes_later(spool: Path, seen_by: str, after: str) -> None:
    """It arrives while the connection is idle: unread by the event loop, or read already."""
    batches = sdk_batches(spool, 3, spans=TINY)
    first = 1 if after == "upload" else 0  # the batch that must not take the left-over for its own answer
    gate = Gate()
    talkative = ok(extra=LEFT_OVER, extra_gate=gate)
    heard: list[FlushEvent] = []

    def hear(event: FlushEvent) -> None:
        heard.append(event)
        if isinstance(event, Sending) and event.name == batches[first].name:
            gate.open()
            wait_for_left_over(server.port)

    with ScriptedServer(*[talkative] * first, Answer(404)) as server:
        if after == "verification":
            server.on(
                "GET", "/api/cli/status", json_answer({"valid": True}, extra=LEFT_OVER, extra_gate=gate)
            )
        if seen_by == "loop":
            # A busy harness: the loop turns a few times between the flush's wish to send and the sending.
            async with aiohttp.ClientSession(trace_configs=[busy_loop()]) as session:
                result = await flush(server, spool, on_event=hear, session=session)
        else:
            result = await flush(server, spool, on_event=hear)
    assert (result.uploaded, [failure.status for failure in result.failures]) == (first, [404])
    assert snapshot(spool) == batches[first:]
    # The stale connection costs no attempt and no delay: a fresh one takes the batch at once.
    assert not [event for event in heard if isinstance(event, Retrying)]
    assert server.uploads[-1].connection == 2


async def test_garbage_between_two_answers(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(ok(extra=b"\r\nXXXX\r\n\r\n")) as server:
        result = await flush(server, spool)
    assert (result.uploaded, result.exit_code) == (2, 0)
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}


async def test_a_connection_closed_between_two_batches(spool: Path) -> None:
    batches = sdk_batches(spool, 4, spans=TINY)
    with ScriptedServer(ok(close=True), ok(drop=True), ok(reset=True)) as server:
        result = await flush(server, spool)
    assert (result.uploaded, result.exit_code) == (4, 0)
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}


# -- cut answers ------------------------------------------------------------------------------------------------

TEMPLATES = {
    "length": ok(),
    "chunked": ok(chunked=True),
    "http10": ok(http10=True),
    "close": ok(close=True),
}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("template", TEMPLATES)
async def test_an_answer_cut_at_any_byte_is_no_acknowledgement(
    spool: Path, template: str, reset: bool
) -> None:
    whole = TEMPLATES[template]
    wire = whole.render()
    [batch] = sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as server:
        for cut in range(len(wire)):
            server.script(ok(**_behaviour(whole), cut_after=cut, reset=reset))
            result = await flush(server, spool, retries=0, verify=False)
            assert (result.uploaded, result.exit_code) == (0, 4), f"cut after {cut}: {wire[:cut]!r}"
            assert snapshot(spool) == [batch]
        server.script(whole)
        assert (await flush(server, spool, verify=False)).uploaded == 1


def _behaviour(answer: Answer) -> dict[str, bool]:
    return {name: True for name in ("chunked", "http10", "close") if getattr(answer, name)}


async def test_a_cut_after_the_status_of_an_empty_answer(spool: Path) -> None:
    """204 has no body: nothing of it but its head can be missing."""
    wire = Answer(204).render()
    [batch] = sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as server:
        for cut in range(len(wire)):
            server.script(Answer(204, cut_after=cut))
            assert (await flush(server, spool, retries=0, verify=False)).uploaded == 0, cut
    assert snapshot(spool) == [batch]


async def test_http10_closed_early_is_seen_where_it_can_be(spool: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    text = Answer(200, headers=[("Content-Type", "text/plain")], body=b"ok", http10=True)
    with ScriptedServer(text) as server:
        assert (await flush(server, spool)).uploaded == 1


@pytest.mark.parametrize("how", ["reset", "stalled"])
@pytest.mark.parametrize("left", [0, 1, 5])
async def test_http10_text_that_does_not_end_in_order(spool: Path, how: str, left: int) -> None:
    """Only the close marks the end of such an answer: a reset, and our own giving up, are no close."""
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


# -- odd but legal, and illegal ---------------------------------------------------------------------------------


async def test_interim_answers_are_read_past(spool: Path) -> None:
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


async def test_switching_protocols_is_a_stop(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n"
    with ScriptedServer(Answer(raw=switch + LEFT_OVER, drop=True)) as server:
        result = await flush(server, spool)
    assert [failure.message for failure in result.failures] == [f"Unexpected HTTP 101 for {batches[0].name}"]
    assert (result.exit_code, len(server.uploads)) == (1, 1)
    assert snapshot(spool) == batches


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00" * 100,
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
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


async def test_an_early_refusal_is_judged_and_the_connection_closed(spool: Path) -> None:
    big_batch(spool, 12_000_000)
    early = Answer(413, reason="Too Large", before_body=True, close=True, read_only=1)
    with ScriptedServer(early, receive_buffer=4096) as server:
        result = await flush(server, spool, verify=False)
    assert [failure.message for failure in result.failures] == [
        "Rejected 00000000000000000001-01.json: HTTP 413 Too Large"
    ]
    assert not server.uploads[0].complete


async def test_an_early_success_is_no_acknowledgement(spool: Path) -> None:
    body = big_batch(spool, 12_000_000)
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
    big_batch(spool, 12_000_000)
    early = ok(before_body=True, close=True, read_only=1000)
    with ScriptedServer(*[early] * 2, receive_buffer=4096) as server:
        result = await flush(server, spool, verify=False, retries=1)
    assert (result.uploaded, result.failed, result.exit_code) == (0, 1, 4)
    assert server.delivered == {}


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


async def test_an_endless_answer_is_not_read_to_its_end(spool: Path) -> None:
    """The server would send a hundred megabytes; it gets rid of what its and our kernel hold, and then an end."""
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


async def test_cookies_are_ignored(spool: Path) -> None:
    sdk_batches(spool, 3, spans=TINY)
    cookie = ("Set-Cookie", "session=1; Path=/")
    with ScriptedServer(ok(headers=[cookie]), ok(headers=[cookie])) as server:
        server.on("GET", "/api/cli/status", json_answer({"valid": True}, headers=[cookie]))
        await flush(server, spool)
    assert len(server.requests) == 4
    assert not any("cookie" in request.headers for request in server.requests)


async def test_a_captive_portal_is_no_acknowledgement(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    events: list[FlushEvent] = []
    with ScriptedServer(html()) as server:
        server.on("GET", "/api/cli/status", html())
        result = await flush(server, spool, on_event=events.append)
    assert (result.uploaded, result.failed, result.exit_code) == (0, 1, 1)
    [failed] = [event for event in events if isinstance(event, Failed)]
    assert "captive portal" in failed.hint
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "Could not verify auth before flush: the answer is not the expected JSON. Proceeding anyway."
    ]
    assert snapshot(spool) == batches


# -- resets and refusals ----------------------------------------------------------------------------------------


async def test_reset_in_mid_body_and_after_it(spool: Path) -> None:
    body = big_batch(spool, 3_000_000)
    script = [ok(read_only=10_000, reset=True), ok(cut_after=0, reset=True), ok(read_only=1)]
    with ScriptedServer(*script) as server:
        result = await flush(server, spool)
    assert (result.uploaded, len(server.uploads)) == (1, 4)
    assert {request.batch_id for request in server.uploads} == {"01"}
    assert server.uploads[1].body == server.uploads[3].body
    assert server.deliveries == [("01", body)]


async def test_a_refused_connection(spool: Path) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    port = closed_port()
    events: list[FlushEvent] = []
    result = await flush_spool(
        spool, api_url=f"http://127.0.0.1:{port}", token=TOKEN, retries=1, on_event=events.append
    )
    said = f"cannot connect to 127.0.0.1:{port}: Connection refused"
    assert [f.message for f in result.failures] == [f"Network error uploading {batches[0].name}: {said}"]
    assert [event.message for event in events if isinstance(event, Warned)] == [
        f"Could not verify auth before flush: {said}. Proceeding anyway."
    ]
    assert (result.exit_code, result.skipped) == (4, 1)


async def test_an_unknown_host(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)

    # No name server is asked by a test: the resolver fails as it does without a network.
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


# -- silence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        ok(hang=True),
        ok(stall_after_bytes=0),
        ok(stall_after_bytes=20),
        ok(stall_after_bytes=len(ok().render()) - 1),
        ok(drip=0.02),  # each byte comes soon after the last one: the whole answer does not come in time
    ],
    ids=["hang", "before", "head", "last byte", "drip"],
)
async def test_an_answer_that_does_not_come_in_time(spool: Path, answer: Answer) -> None:
    batches = sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(answer) as server:
        result = await flush(server, spool, timeout_ms=400, retries=0)
    assert [failure.message for failure in result.failures] == [
        f"Network error uploading {batches[0].name}: timed out after 400ms"
    ]
    assert (result.exit_code, result.skipped) == (4, 1)
    assert snapshot(spool) == batches


async def test_silence_is_retried_with_the_same_bytes(spool: Path) -> None:
    batches = sdk_batches(spool, 1)
    with ScriptedServer(ok(hang=True), ok(stall_after_bytes=3)) as server:
        result = await flush(server, spool, timeout_ms=200)
    assert (result.uploaded, len(server.uploads)) == (1, 3)
    assert len({(request.batch_id, request.body) for request in server.uploads}) == 1
    assert server.deliveries == [(batches[0].batch_id, batches[0].data)]


async def test_an_upload_that_does_not_move_is_cut(spool: Path) -> None:
    big_batch(spool, 12_000_000)
    stuck = ok(read_only=1000, stall_before=True)
    with ScriptedServer(stuck, receive_buffer=4096) as server:
        result = await flush(server, spool, timeout_ms=300, retries=0, verify=False)
        received = server.uploads[0].received
    assert [failure.message for failure in result.failures] == [
        "Network error uploading 00000000000000000001-01.json: timed out after 300ms"
    ]
    assert received == 1000
    assert server.delivered == {}


class SlowSink:
    """Reads one upload in small sips, with a pause before each, then answers 200. A link that is slow, not dead."""

    def __init__(self, sips: int, pause_s: float, sip_bytes: int = 65536) -> None:
        self._sips, self._pause_s, self._sip_bytes = sips, pause_s, sip_bytes
        self.body = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, sip_bytes)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()
        self._thread.join(SAFETY_NET)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock, sock.makefile("rb", buffering=0) as stream:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += stream.read(1) or b"\r\n\r\n"
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            for _ in range(self._sips):
                time.sleep(self._pause_s)  # the slowness itself, not a wait for something
                self.body += stream.read(self._sip_bytes) or b""
            while len(self.body) < length and (piece := stream.read(65536)):
                self.body += piece
            if len(self.body) == length:
                body = gzip.decompress(self.body)
                with ledger.lock:
                    ledger.acknowledge("01", body)
                    sock.sendall(LEFT_OVER)
            stream.read(1)  # until the client closes


async def test_a_slow_upload_that_moves_is_not_cut(spool: Path) -> None:
    """It takes three times the limit, and for most of that time no byte leaves this process's own buffers."""
    body = big_batch(spool, 6_000_000)
    with SlowSink(sips=30, pause_s=0.1) as sink:
        began = time.monotonic()
        result = await flush_spool(
            spool, api_url=sink.url, token=TOKEN, timeout_ms=1000, retries=0, verify=False
        )
        assert time.monotonic() - began > 3
    assert (result.uploaded, result.failures) == (1, ())
    assert gzip.decompress(sink.body) == body


async def test_the_bytes_of_a_slow_upload_are_told_while_it_goes() -> None:
    """Compared with what the peer has read: its kernel and ours may hold some more, never less."""
    body = gzip.compress(random.Random(1).randbytes(3_000_000))
    told: list[int] = []
    with SlowSink(sips=20, pause_s=0.1) as sink:
        async with Transport(timeout_ms=1000) as transport:
            upload = Upload((body,), len(body), progress=told.append)
            heard = await transport.post(f"{sink.url}/api/traces", {}, upload)
    assert isinstance(heard, Heard)
    assert len(told) > 3
    assert told == sorted(set(told))
    assert 0 < told[0] < told[-1] <= len(body)


async def test_a_slow_upload_in_one_write_is_not_cut_while_it_moves(spool: Path) -> None:
    """A batch of 200 KB that the kernel has no room for: most waits in this process, in the midst of its write."""
    body = big_batch(spool, 200_000)

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


async def test_a_connection_that_nobody_accepts_is_timed_out(spool: Path) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        address = listener.getsockname()
        url = f"http://127.0.0.1:{address[1]}"
        result = await flush_spool(spool, api_url=url, token=TOKEN, timeout_ms=300, retries=0)
    [failure] = result.failures
    assert failure.message == f"Network error uploading {batches[0].name}: timed out after 300ms"
    assert result.exit_code == 4


# -- the caller's session ---------------------------------------------------------------------------------------


async def test_a_session_of_the_caller_is_used_and_left_open(spool: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    with ScriptedServer(ok(headers=[("Set-Cookie", "theirs=1")])) as server:
        async with aiohttp.ClientSession(headers={"X-Theirs": "1"}) as session:
            result = await flush(server, spool, session=session)
            assert not session.closed
            async with session.get(f"{server.url}/api/cli/status") as response:
                assert response.status == 200
                assert (await response.json())["valid"] is True
    assert result.uploaded == 2
    assert {request.headers["x-theirs"] for request in server.requests} == {"1"}
    assert {request.headers["user-agent"] for request in server.uploads} == {
        server.uploads[0].headers["x-cirron-sdk-version"]
    }
    assert server.connections == 1


async def test_a_session_that_follows_redirects_does_not_follow_ours(spool: Path) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    with ScriptedServer() as elsewhere, ScriptedServer() as server:
        server.script(Answer(307, headers=[("Location", f"{elsewhere.url}/api/traces")]))
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            result = await flush(server, spool, session=session, verify=False)
    assert (result.exit_code, elsewhere.requests) == (1, [])
    assert snapshot(spool) == batches


async def test_a_closed_session_raises_and_keeps(spool: Path) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)
    session = aiohttp.ClientSession()
    await session.close()
    with ScriptedServer() as server, pytest.raises(RuntimeError, match="Session is closed"):
        await flush(server, spool, session=session)
    assert server.requests == []
    assert snapshot(spool) == batches


# -- the room itself --------------------------------------------------------------------------------------------


async def test_the_transport_by_itself() -> None:
    with ScriptedServer() as server:
        closed = Transport(timeout_ms=1000)
        with pytest.raises(RuntimeError, match="not open"):
            await closed.get(f"{server.url}/api/cli/status", {})
        async with Transport(timeout_ms=1000) as transport:
            got = await transport.get(f"{server.url}/api/cli/status", {"Authorization": "Bearer t"})
            assert isinstance(got, Heard)
            assert (got.status, got.complete, got.delimited, got.early) == (200, True, True, False)
            sent = await transport.post(
                f"{server.url}/api/traces", {"X-Cirron-Batch-Id": "0a"}, Upload((b"{", b"}"), 2)
            )
            assert isinstance(sent, Heard)
            assert sent.sent == 2
            assert server.connections == 1
    assert [request.body for request in server.uploads] == [b"{}"]


async def test_the_moment_comes_when_the_body_is_on_its_way_and_before_its_answer() -> None:
    gate = Gate()
    moments: list[str] = []

    def on_sent() -> None:
        moments.append("now")
        gate.open()  # which the answer waits for

    with ScriptedServer(ok(stall_before=gate)) as server:
        async with Transport(timeout_ms=10_000) as transport:
            heard = await transport.post(
                f"{server.url}/api/traces",
                {"X-Cirron-Batch-Id": "0a"},
                Upload((b"{", b"}"), 2, on_sent=on_sent),
            )
    assert isinstance(heard, Heard)
    assert heard.status == 200
    assert moments == ["now"]


@pytest.mark.parametrize("over", [0, 1])
async def test_an_answer_that_comes_at_once_is_read_up_to_64_kb(over: int) -> None:
    """The event loop, busy with other things, finds all of it in the kernel with the headers."""
    body = b"x" * (64 * 1024 + over)
    answer = Answer(200, body=body)
    whole = len(answer.render())

    def on_sent() -> None:
        wait_for_left_over(server.port)
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


async def test_a_connection_that_was_closed_is_remembered_no_longer() -> None:
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


async def test_a_body_that_never_left_has_no_moment() -> None:
    moments: list[str] = []
    upload = Upload((b"{}",), 2, on_sent=lambda: moments.append("now"))
    async with Transport(timeout_ms=10_000) as transport:
        assert isinstance(
            await transport.post(f"http://127.0.0.1:{closed_port()}/api/traces", {}, upload), NoAnswer
        )
    assert moments == []


class Nowhere(asyncio.Transport):
    """Open, and always empty."""

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


class Insatiable:
    """A connection whose kernel has room for everything at once: no write ever waits."""

    def __init__(self) -> None:
        self.written = 0
        self.protocol = ResponseHandler(asyncio.get_running_loop())
        self.protocol.transport = Nowhere(self.protocol)

    async def write(self, piece: bytes | memoryview) -> None:
        self.written += len(piece)


@pytest.mark.parametrize("part", [8 * 1024 * 1024, 100_000, 1000], ids=["whole", "in parts", "in crumbs"])
async def test_the_others_in_the_loop_have_their_turns_while_a_body_goes_out(part: int) -> None:
    size = 8 * 1024 * 1024
    parts = tuple(bytes(min(part, size - start)) for start in range(0, size, part))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    writer: Any = Insatiable()
    body = UploadBody(Upload(parts, size))
    neighbour = asyncio.ensure_future(other())
    await body.write(writer)
    neighbour.cancel()
    assert writer.written == size
    # A turn after each 256 KiB; a smaller part may run over that.
    assert turns >= size // (256 * 1024 + (part if part < 256 * 1024 else 0)) - 1


async def test_the_limit_runs_from_the_write_however_long_the_connection_took() -> None:
    """A connection has a limit of its own: what it took is no silence of the upload."""
    body = UploadBody(Upload((b"{}",), 2))
    connected = time.monotonic()
    seen: list[float] = []

    class Writer(Insatiable):
        async def write(self, piece: bytes | memoryview) -> None:
            seen.append(body.last_progress)

    writer: Any = Writer()
    await body.write(writer)
    assert seen
    assert seen[0] >= connected


class Greeter:
    """Says something on every connection before it is asked anything, as an SSH server does; here, a success."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(SAFETY_NET)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        greeted = []
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                sock, _ = self._listener.accept()
                sock.sendall(LEFT_OVER)
                greeted.append(sock)
        for sock in greeted:
            sock.close()


@pytest.mark.parametrize("seen_by", ["kernel", "loop"])
async def test_a_server_that_talks_without_being_asked(spool: Path, seen_by: str) -> None:
    batches = sdk_batches(spool, 1, spans=TINY)

    async def greeted(*args: object) -> None:
        wait_for_left_over(server.port)
        for _ in range(20 if seen_by == "loop" else 0):
            await asyncio.sleep(0)

    # Between the connection and the first request on it, its greeting comes.
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


async def test_an_early_refusal_is_heard_though_the_next_write_fails() -> None:
    closed = threading.Event()

    def refuse(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(1)
            sock.sendall(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfull")
        closed.set()  # with unread bytes of the request: a reset

    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        closed.wait(SAFETY_NET)  # without a turn of the loop, in which the answer would be read
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


async def test_a_connection_that_closes_at_the_end_of_a_stream_is_an_answer_that_did_not_come() -> None:
    """And not an exception of a task that nobody asks: people would see its traceback."""
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
    gc.collect()  # an exception that nobody retrieved is told when its task goes
    await asyncio.sleep(0)
    assert unheard == []
