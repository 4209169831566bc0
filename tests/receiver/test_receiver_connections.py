"""Clients that stand still, come in crowds, break off, or are in the middle of something when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from asyncio.streams import FlowControlMixin

import aiohttp
import pytest

from cirron_spool.receiver.store import Store, Stored, Upload

from .conftest import TOKEN, Start, serve_environment

pytestmark = pytest.mark.anyio

HEAD = f"POST /api/traces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nX-Cirron-Batch-Id: ab\r\n".encode()


async def drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    """A byte at a time, until the other side has had enough."""
    try:
        for place in range(len(data)):
            writer.write(data[place : place + 1])
            await writer.drain()
            await asyncio.sleep(0.01)
    except ConnectionError:
        pass


async def ended(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_a_head_that_drips_in_is_cut_and_others_are_served(start: Start) -> None:
    async with start(header_timeout_s=0.2) as peer:
        reader, writer = await peer.connect()
        dripping = asyncio.create_task(drip(writer, HEAD + b"X: " + b"y" * 100_000))
        assert (await peer.post(b"{}")).status == 200
        assert (await ended(reader)).startswith(b"HTTP/1.1 408 ")  # although bytes still come
        dripping.cancel()
        writer.close()
        assert (await peer.post(b"{}")).status == 200


async def test_a_connection_that_says_nothing_is_cut(start: Start) -> None:
    async with start(header_timeout_s=0.1) as peer:
        reader, writer = await peer.connect()
        assert await ended(reader) == b""
        writer.close()


async def test_an_idle_kept_alive_connection_outlives_the_time_for_a_head(start: Start) -> None:
    async with start(header_timeout_s=0.1) as peer:
        first, writer = await peer.connect()
        for _ in range(2):
            writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await first.readuntil(b"\r\n\r\n")
            assert b" 404 " in head
            await first.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            silent, other = await peer.connect()
            await ended(silent)  # a newer connection has been cut meanwhile
            other.close()
        writer.write(b"GET /x")  # and a head started on the old one has its time again
        assert (await ended(first)).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_body_that_stands_still_is_cut_with_a_word(start: Start) -> None:
    async with start(body_timeout_s=0.2) as peer:
        reader, writer = await peer.connect()
        writer.write(HEAD + b'Content-Length: 100\r\n\r\n{"a"')
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer.lower()
        writer.close()
        assert peer.names == []


async def test_a_body_that_moves_is_not_cut(start: Start) -> None:
    text = b'{"created_ns":1}'
    async with start(body_timeout_s=0.15, header_timeout_s=0.15) as peer:
        reader, writer = await peer.connect()
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(text))
        for place in range(len(text)):
            writer.write(text[place : place + 1])
            # The silences add up to more than both limits, each is well below; a clean end of the wait is no event.
            await asyncio.sleep(0.03)
        assert b" 200 " in await reader.readline()
        writer.close()


@pytest.mark.thorough
async def test_more_connections_than_there_is_room_for(start: Start) -> None:
    async with start(max_connections=3) as peer:
        held = [await peer.connect() for _ in range(3)]
        # Their places are taken once the receiver has seen them; it answers in order of arrival.
        reader, writer = await peer.connect()
        writer.write(HEAD + b"Content-Length: 2\r\n\r\n{}")
        answer = await ended(reader)
        assert answer.startswith(b"HTTP/1.1 503 ")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"Retry-After: 1" in head
        assert json.loads(body) == {"success": False, "error": "Too many connections."}
        writer.close()
        # One that stays although it was turned away, saying nothing, is cut.
        stubborn, writer = await peer.connect()
        assert (await ended(stubborn)).startswith(b"HTTP/1.1 503 ")
        assert await asyncio.to_thread(_is_reset, writer.get_extra_info("socket").dup())
        writer.close()
        for _, other in held:
            other.close()
            await other.wait_closed()
        while True:  # the places are free when the receiver has seen them go
            answered = await peer.post(b"{}")
            if answered.status == 200:
                break
            assert answered.status == 503


def _is_reset(connection: socket.socket) -> bool:
    """Whether the peer has given the connection up altogether, not only said its last word."""
    connection.setblocking(True)
    with connection:
        while True:
            try:
                connection.send(b"x")
            except ConnectionError:
                return True
            threading.Event().wait(0.01)


async def test_a_crowd_is_served(start: Start) -> None:
    async with start() as peer:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            peer.session, own = session, peer.session
            answers = await asyncio.gather(*(peer.post_gzip(b"{}", f"{number:x}") for number in range(200)))
            peer.session = own
        assert {answer.status for answer in answers} == {200}
        assert len(peer.names) == 200


async def test_a_client_that_does_not_read_its_answers_is_cut(start: Start) -> None:
    async with start(body_timeout_s=0.3) as peer:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", peer.port))

        def ask_and_never_listen() -> bool:
            requests = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000
            with raw:
                while True:
                    try:
                        raw.sendall(requests)
                    except ConnectionError:
                        return True

        assert await asyncio.to_thread(ask_and_never_listen)
        assert (await peer.post(b"{}")).status == 200


async def test_garbage_harms_nobody(start: Start) -> None:
    async with start() as peer:
        for noise in (
            b"\x16\x03\x01\x02\x00",
            b"no http\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            HEAD + b"Content-Length: x\r\n\r\n",
        ):
            reader, writer = await peer.connect()
            writer.write(noise)
            writer.write_eof()
            await ended(reader)
            writer.close()
        reader, writer = await peer.connect()
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()
        assert (await peer.post(b"{}")).status == 200
        assert len(peer.names) == 1


async def test_a_request_in_flight_finishes_at_the_end(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    committing, go_on = threading.Event(), threading.Event()
    commit = Store.commit

    def slow(store: Store, temporary: str, batch_id: str, created_ns: int, size: int) -> Stored:
        committing.set()
        assert go_on.wait(30)
        return commit(store, temporary, batch_id, created_ns, size)

    monkeypatch.setattr(Store, "commit", slow)
    stopping = start(grace_s=30)
    peer = await stopping.__aenter__()
    reader, writer = await peer.connect()
    idle, other = await peer.connect()
    writer.write(HEAD + b"Content-Length: 2\r\n\r\n{}")
    await asyncio.to_thread(committing.wait)
    end = asyncio.create_task(stopping.__aexit__(None, None, None))
    assert await ended(idle) == b""  # closed at once
    assert not end.done()
    go_on.set()
    answer = await ended(reader)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer.lower()
    await end
    assert len(list(peer.folder.glob("*-ab.json"))) == 1
    for each in (writer, other):
        each.close()


async def test_a_request_that_does_not_finish_is_cut_and_leaves_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk = asyncio.Event()
    feed, loop = Upload.feed, asyncio.get_running_loop()

    def seen(upload: Upload, data: bytes) -> None:
        feed(upload, data)
        loop.call_soon_threadsafe(on_disk.set)

    monkeypatch.setattr(Upload, "feed", seen)
    async with start(grace_s=0.1) as peer:
        reader, writer = await peer.connect()
        writer.write(HEAD + b"Content-Length: 2000000\r\n\r\n" + b'{"a":"' + b"x" * 1_000_000)
        await writer.drain()
        await on_disk.wait()
        assert len(peer.names) == 1
    assert b" 200 " not in await ended(reader)
    writer.close()
    assert peer.names == []


async def test_a_sooner_deadline_rings_sooner(start: Start) -> None:
    """The time to read answers is shorter here than what is left of the first head's."""
    async with start(header_timeout_s=3600, body_timeout_s=0.2) as peer:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", peer.port))

        def ask_until_cut() -> bool:
            with raw:
                while True:
                    try:
                        raw.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000)
                    except ConnectionError:
                        return True

        assert await asyncio.to_thread(ask_until_cut)


@pytest.mark.thorough
async def test_a_client_that_pauses_its_reading_loses_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused, resumed = asyncio.Event(), asyncio.Event()
    pause, resume = FlowControlMixin.pause_writing, FlowControlMixin.resume_writing

    def seen_pause(protocol: FlowControlMixin) -> None:
        pause(protocol)
        paused.set()

    def seen_resume(protocol: FlowControlMixin) -> None:
        resume(protocol)
        resumed.set()

    monkeypatch.setattr(FlowControlMixin, "pause_writing", seen_pause)
    monkeypatch.setattr(FlowControlMixin, "resume_writing", seen_resume)
    count = 40_000  # some 7 MB of answers, more than both ends' buffers hold
    async with start() as peer:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", peer.port))

        def ask() -> None:
            raw.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" * count + b"GET / HTTP/1.0\r\n\r\n")

        def listen() -> int:
            found, rest = 0, b""
            while data := raw.recv(1 << 16):
                rest += data
                found += rest.count(b"HTTP/1.")
                rest = rest[-6:]
            return found

        with raw:
            asking = asyncio.create_task(asyncio.to_thread(ask))
            await paused.wait()
            assert not resumed.is_set()
            assert await asyncio.to_thread(listen) == count + 1
            assert resumed.is_set()
            await asking


TRACES = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"

# Every state in which the receiver waits for a client: what was sent until then, and the statuses that come back when
# nothing more does.
STATES: dict[str, tuple[bytes, list[bytes]]] = {
    "connected": (b"", []),
    "an empty line sent": (b"\r\n", []),
    "in the request line": (b"POST /api", [b"408"]),
    "behind the request line": (b"POST /api/traces HTTP/1.1\r\n", [b"408"]),
    "in a header": (HEAD[:-5], [b"408"]),
    "before the end of the head": (HEAD + b"Content-Length: 2\r\n", [b"408"]),
    "before the body": (HEAD + b"Content-Length: 2\r\n\r\n", [b"408"]),
    "in the body": (HEAD + b"Content-Length: 2\r\n\r\n{", [b"408"]),
    "far into the body": (HEAD + b'Content-Length: 900000\r\n\r\n{"a":"' + b"x" * 600_000, [b"408"]),
    "before the first chunk": (TRACES, [b"408"]),
    "in a chunk's size": (TRACES + b"1", [b"408"]),
    "in a chunk's extension": (TRACES + b"1;a", [b"408"]),
    "between a size's two last bytes": (TRACES + b"1\r", [b"408"]),
    "behind a chunk's size": (TRACES + b"1\r\n", [b"408"]),
    "in a chunk": (TRACES + b"2\r\n{", [b"408"]),
    "behind a chunk": (TRACES + b"2\r\n{}", [b"408"]),
    "behind a chunk's end": (TRACES + b"2\r\n{}\r\n", [b"408"]),
    "behind the last chunk": (TRACES + b"2\r\n{}\r\n0\r\n", [b"408"]),
    "in a trailer": (TRACES + b"2\r\n{}\r\n0\r\nX-A: ", [b"408"]),
    "behind a trailer": (TRACES + b"2\r\n{}\r\n0\r\nX-A: 1\r\n", [b"408"]),
    "asked to go on": (HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n", [b"100", b"408"]),
    "between requests": (GET, [b"200"]),
    "between uploads": (HEAD + b'Content-Length: 16\r\n\r\n{"created_ns":1}', [b"200"]),
    "in a second head": (GET + b"GET", [b"200", b"408"]),
    "in a second body": (GET + TRACES + b"1", [b"200", b"408"]),
    "refused before the body": (HEAD.replace(b"Id: ab", b"Id: x") + b"Content-Length: 2\r\n\r\n", [b"400"]),
    "refused in the body": (TRACES + b"Z", [b"400"]),
    "refused in the head": (b"GARBAGE\r\n", [b"400"]),
}


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["is silent", "stops sending"])
@pytest.mark.parametrize("state", STATES)
async def test_no_state_of_a_connection_lasts(start: Start, state: str, how: str) -> None:
    sent, silent = STATES[state]
    async with start(header_timeout_s=0.1, body_timeout_s=0.1, keepalive_s=0.1, max_connections=2) as peer:
        reader, writer = await peer.connect()
        writer.write(sent)
        await writer.drain()
        if how == "stops sending":
            writer.write_eof()
        # Ends at all, which nothing but the receiver's limits can bring about when the client is silent.
        answers = re.findall(rb"HTTP/1\.1 (\d+) ", await ended(reader))
        # What breaks off is known to be wrong at once, and what stands still after a time.
        assert answers == (
            silent if how == "is silent" else [b"400" if it == b"408" else it for it in silent]
        )
        writer.close()
        assert [name for name in peer.names if name.endswith(".part")] == []
        assert len(peer.names) == (state == "between uploads")
        # Its place is free again.
        for number in range(3):
            assert (await peer.post(b"{}", f"{number}")).status == 200


@pytest.mark.thorough
@pytest.mark.parametrize("state", STATES)
async def test_it_ends_from_every_state(start: Start, state: str) -> None:
    sent, _ = STATES[state]
    async with start(grace_s=0.1) as peer:
        reader, writer = await peer.connect()
        writer.write(sent)
        await writer.drain()
        assert (await peer.post(b"{}", "cd")).status == 200  # answered after the other was read
    answers = re.findall(rb"HTTP/1\.1 (\d+) ", await ended(reader))
    assert b"408" not in answers
    writer.close()
    assert [name for name in peer.names if name.endswith(".part")] == []


@pytest.mark.thorough
async def test_one_turned_away_that_stays_is_closed(start: Start) -> None:
    async with start(max_connections=1) as peer:
        first, writer = await peer.connect()
        writer.write(GET)
        await first.readline()
        second, other = await peer.connect()
        assert (await ended(second)).startswith(b"HTTP/1.1 503 ")
        # Half of the connection is still open, and it is silent.
        assert await asyncio.to_thread(_is_reset, other.get_extra_info("socket").dup())
        for each in (writer, other):
            each.close()


@pytest.mark.thorough
async def test_the_last_answer_to_a_client_that_does_not_read_is_not_waited_for(start: Start) -> None:
    async with start(body_timeout_s=0.1) as peer:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", peer.port))
        raw.setblocking(False)
        loop = asyncio.get_running_loop()

        async def ask() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    await loop.sock_sendall(raw, GET * 1_000)

        with raw:
            await ask()  # ends when the receiver gives the connection up
        assert (await peer.post(b"{}")).status == 200


def test_aiohttp_is_not_needed() -> None:
    """It has two parsers, of which users have one or the other. The receiver is the same with both."""
    code = "import sys; import cirron_spool.receiver.app; print([m for m in sys.modules if m.startswith('aiohttp')])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=serve_environment(), capture_output=True, check=True
    )
    assert done.stdout == b"[]\n"
