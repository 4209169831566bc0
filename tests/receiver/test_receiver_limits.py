"""Sizes and rates: what is refused, what is held, what shaping does."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cirron_spool.receiver.shaping import Shaping
from cirron_spool.receiver.store import Upload

from .conftest import TOKEN, Peer, Start

pytestmark = pytest.mark.anyio

MEGABYTE = 1 << 20


async def whole(answering: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    head = await answering.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head.split(b" ")[1]), json.loads(await answering.readexactly(length))


async def begin(peer: Peer, *head: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await peer.connect()
    lines = (
        "POST /api/traces HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {TOKEN}",
        "X-Cirron-Batch-Id: ab",
        *head,
    )
    writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    return reader, writer


async def test_a_length_over_the_limit_is_refused_before_the_body(start: Start) -> None:
    async with start(max_bytes=1_000) as peer:
        reader, writer = await begin(peer, "Content-Length: 1001")
        assert await whole(reader) == (
            413,
            {"success": False, "error": "The batch is larger than 1000 bytes."},
        )
        writer.close()
        exact = b'{"a":"' + b"x" * 992 + b'"}'
        assert len(exact) == 1_000
        assert (await peer.post(exact)).status == 200


async def test_chunks_are_refused_as_soon_as_they_are_over_the_limit(start: Start) -> None:
    async with start(max_bytes=1_000) as peer:
        reader, writer = await begin(peer, "Transfer-Encoding: chunked")
        writer.write(b"3e8\r\n" + b" " * 1_000 + b"\r\n1\r\n \r\n")
        assert (await whole(reader))[0] == 413  # though the body has not ended
        writer.close()
        assert peer.names == []


@pytest.mark.thorough
async def test_a_bomb_is_refused(start: Start) -> None:
    async with start(max_bytes=MEGABYTE) as peer:
        bomb = gzip.compress(b'{"a":"' + bytes(200 * MEGABYTE).replace(b"\0", b"x") + b'"}', 1)
        assert len(bomb) < MEGABYTE
        assert (await peer.post(bomb, Content_Encoding="gzip")).status == 413
        assert peer.names == []
        assert (await peer.post(b"{}")).status == 200


async def test_long_bodies_are_taken_in_part_by_part(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    feed = Upload.feed

    def seen(upload: Upload, data: bytes) -> None:
        nonlocal largest
        largest = max(largest, len(data))
        feed(upload, data)

    monkeypatch.setattr(Upload, "feed", seen)
    text = b'{"created_ns":1,"a":["' + os.urandom(3 * MEGABYTE).hex().encode() + b'"]}'
    async with start() as peer:
        assert (await peer.post_gzip(text)).status == 200
        assert (await peer.post(text, "cd")).status == 200
        assert [(peer.folder / name).read_bytes() for name in peer.names] == [text, text]
        assert largest < MEGABYTE
        # What breaks off or is wrong after parts of it are on the disk leaves nothing there.
        assert (await peer.post(text[:-1], "ef")).status == 400
        reader, writer = await begin(peer, f"Content-Length: {len(text)}")
        writer.write(text[:-1])
        await writer.drain()
        writer.write_eof()
        await reader.read()
        writer.close()
    assert len(list(peer.folder.glob("*.json"))) == 2
    assert peer.names == [path.name for path in sorted(peer.folder.glob("*.json"))]


class Clock:
    """Stands in for the loop's time and for sleeping, so that rates are exact and take no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.slept: list[float] = []

        async def sleep(seconds: float) -> None:
            self.slept.append(round(seconds, 6))

        monkeypatch.setattr("cirron_spool.receiver.shaping.asyncio.sleep", sleep)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now, raising=False)


async def test_bandwidth_is_shared_and_not_saved_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        clock = Clock(patched)
        link = Shaping(0, 1_000)
        await link.body(500)
        await link.body(500)  # another connection, behind the first
        clock.now += 0.25
        await link.body(250)
        clock.now += 60
        await link.body(100)
        await link.answer()
        assert clock.slept == [0.5, 1.0, 1.0, 0.1]


async def test_latency_comes_before_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        clock = Clock(patched)
        await Shaping(20, None).answer()
        await Shaping(20, None).body(1_000_000)
        assert clock.slept == [0.02]


async def test_a_shaped_receiver_takes_its_time(start: Start) -> None:
    loop = asyncio.get_running_loop()
    async with start(latency_ms=50, bandwidth=1_000_000) as peer:
        started = loop.time()
        assert (await peer.request("GET", "/nothing")).status == 404
        assert loop.time() - started >= 0.05
        started = loop.time()
        assert (await peer.post(b'{"a":"' + b"x" * 200_000 + b'"}')).status == 200
        assert loop.time() - started >= 0.25


_SERVE = """
import resource, sys
from pathlib import Path
from cirron_spool.receiver.app import ReceiverOptions, serve
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(serve(ReceiverOptions(store=Path(sys.argv[2]))))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit counts the descriptors of Linux")
@pytest.mark.parametrize("descriptors", [3, 5, 6, 7, 8])
def test_a_start_without_descriptors_is_one_line(tmp_path: Path, descriptors: int) -> None:
    """Each limit is met at another step: the event loop, the folder, the lock, the listener."""
    done = subprocess.run(
        [sys.executable, "-c", _SERVE, str(descriptors), str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (4, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: This process may open no further file. ")
