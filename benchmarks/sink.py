"""A server that reads a body, throws it away and answers 200: as little server as HTTP/1.1 allows.

It runs in a process of its own (``python -m benchmarks.sink``), so that what it costs is not in the figures. It
speaks just enough of the platform's side for a flush to succeed (``GET /api/cli/status``, ``POST /api/traces``),
delays its answers (``--latency-ms``), reads no faster than a link would carry (``--bandwidth``, shared by all
connections), and counts what arrived, so that a run that did not deliver everything is never taken for a fast one:

* ``GET /sink`` answers the counts as JSON, ``POST /sink/reset`` starts them again;
* after ``POST /sink/reset?proof`` it also decompresses every body and keeps the CRC-32 of what was in it.

It ends when its standard input does, so that it never outlives the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import selectors
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

# One read may fill this much: large enough that 10 MB bodies take few turns of the loop, and one a connection.
READ_BYTES = 1 << 20
# With a link to imitate, small reads and a small socket buffer: a body must not vanish into the kernel at once.
LINK_READ_BYTES = 16 << 10
LINK_SOCKET_BYTES = 64 << 10
# Pausing costs two calls and a timer's precision, so a connection pauses when it is this far ahead of the link.
LINK_SLACK_SECONDS = 0.001

MAX_HEAD_BYTES = 64 << 10

ACKNOWLEDGED = b'{"success":true}'
STATUS = json.dumps(
    {
        "valid": True,
        "token": {"name": "benchmark", "expiresAt": "2999-01-01T00:00:00.000Z"},
        "user": {"email": "benchmark@localhost", "name": "Benchmark"},
        "organization": {"name": "Benchmark"},
    }
).encode()


class Link:
    """A shared line of ``bytes_per_second``: the moment at which everything handed over so far is across."""

    def __init__(self, bytes_per_second: float | None) -> None:
        self._rate = bytes_per_second
        self._free_at = 0.0

    def carry(self, count: int, now: float) -> float:
        """Seconds from ``now`` until ``count`` more bytes are across."""
        if self._rate is None:
            return 0.0
        self._free_at = max(self._free_at, now) + count / self._rate
        return self._free_at - now

    def ahead(self, now: float) -> float:
        """Seconds until the line is free."""
        return max(0.0, self._free_at - now)


class Proof:
    """What was in one body: length and CRC-32 of the JSON, decompressed when it says that it is gzip."""

    def __init__(self, gzipped: bool) -> None:
        self._decoder = zlib.decompressobj(31) if gzipped else None
        self.length = 0
        self.crc = 0
        self.intact = True

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the body."""
        if self._decoder is None:
            self._count(piece)
            return
        try:
            while piece:
                if self._decoder.eof:  # gzip allows several members, one behind the other
                    self._decoder = zlib.decompressobj(31)
                self._count(self._decoder.decompress(piece))
                piece = self._decoder.unused_data
        except zlib.error:
            self.intact = False

    def _count(self, plain: bytes) -> None:
        self.length += len(plain)
        self.crc = zlib.crc32(plain, self.crc)

    def seal(self) -> list[int]:
        """``[length, crc]``; a length of -1 when the body was not what it said it was."""
        whole = self.intact and (self._decoder is None or self._decoder.eof)
        return [self.length if whole else -1, self.crc]


class Tally:
    """What has arrived since the last reset."""

    def __init__(self, proof: bool = False) -> None:
        self.proving = proof
        self.begun: list[str] = []
        self.finished = 0
        self.sent_bytes = 0
        self.trailer_bytes = 0
        self.open = 0
        self.open_most = 0
        self.connections = 0
        self.first_ns = 0
        self.verified_ns = 0
        self.proofs: dict[str, list[int]] = {}

    def as_json(self) -> dict[str, Any]:
        """The counts, as ``GET /sink`` answers them.

        ``begun`` are the batch ids in the order in which their requests began; ``sent_bytes`` the bodies as they
        were on the wire; ``trailer_bytes`` the lengths that the gzip trailers state (or the plain bodies have);
        ``open_most`` the requests that were ever in flight together; times are of ``time.monotonic_ns``.
        """
        return {
            "begun": self.begun,
            "finished": self.finished,
            "sent_bytes": self.sent_bytes,
            "trailer_bytes": self.trailer_bytes,
            "open_most": self.open_most,
            "connections": self.connections,
            "first_ns": self.first_ns,
            "verified_ns": self.verified_ns,
            "proofs": self.proofs,
        }


class Sink:
    """What all connections share."""

    def __init__(self, loop: asyncio.AbstractEventLoop, latency_ms: float, bandwidth: float | None) -> None:
        self.loop = loop
        self.latency = latency_ms / 1000
        self.link = Link(bandwidth)
        self.read_bytes = READ_BYTES if bandwidth is None else LINK_READ_BYTES
        self.tally = Tally()


class ChunkedBody:
    """Finds the end of a chunked body; ``feed`` hands the payload on and returns what lies behind the end."""

    def __init__(self, payload: Callable[[bytes], None]) -> None:
        self._payload = payload
        self._line = b""
        self._left = 0  # of the chunk, with the CRLF behind it
        self._trailers = False
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Read ``data``; the bytes behind the body's end, when it has ended."""
        while data and not self.done:
            if self._left:
                piece, data = data[: self._left], data[self._left :]
                keep = len(piece) - max(0, 2 - (self._left - len(piece)))
                self._left -= len(piece)
                if keep > 0:
                    self._payload(piece[:keep])
                continue
            line, newline, rest = data.partition(b"\n")
            self._line += line
            data = rest
            if newline:
                self._take_line(self._line.strip())
                self._line = b""
        return data

    def _take_line(self, line: bytes) -> None:
        if self._trailers:
            self.done = not line
            return
        size = int(line.partition(b";")[0], 16)
        self._trailers = size == 0
        self._left = size + 2 if size else 0


class Connection(asyncio.BufferedProtocol):
    """One kept-alive connection; requests follow one another, answers in the same order."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = bytearray(sink.read_bytes)
        self._view = memoryview(self._buffer)
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._left = 0
        self._chunked: ChunkedBody | None = None
        self._in_body = False
        self._counted = False
        self._posts = False
        # of the request being read
        self._target = b""
        self._batch_id = ""
        self._gzipped = False
        self._close = False
        self._proof: Proof | None = None
        self._tail = b""
        self._body_bytes = 0
        self._tally = sink.tally

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._posts and self._in_body:
            self._tally.open -= 1
        self._transport = None

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        if self._in_body and self._chunked is None and nbytes <= self._left and self._proof is None:
            self._count_body(self._view[:nbytes])  # the common case of a large body: nothing is copied
            self._left -= nbytes
        else:
            self._read(bytes(self._view[:nbytes]))
        if self._in_body and self._chunked is None and not self._left:
            self._finish()
        self._hold_to_the_link()

    # -- HTTP

    def _read(self, data: bytes) -> None:
        while data:
            if not self._in_body:
                self._head += data
                end = self._head.find(b"\r\n\r\n")
                if end < 0:
                    if len(self._head) > MAX_HEAD_BYTES and self._transport is not None:
                        self._transport.abort()
                    return
                data = self._head[end + 4 :]
                head, self._head = self._head[:end], b""
                self._begin(head)
                if self._chunked is None and not self._left:
                    self._finish()
                continue
            if self._chunked is not None:
                data = self._chunked.feed(data)
                if self._chunked.done:
                    self._finish()
            else:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                self._count_body(piece)
                if not self._left:
                    self._finish()

    def _begin(self, head: bytes) -> None:
        request, *lines = head.split(b"\r\n")
        method, _, rest = request.partition(b" ")
        target, _, version = rest.partition(b" ")
        fields = {}
        for line in lines:
            name, _, value = line.partition(b":")
            fields[name.lower()] = value.strip()
        self._in_body = True
        self._target = method + b" " + target
        self._tally = self._sink.tally
        self._posts = self._target == b"POST /api/traces"
        self._close = version == b"HTTP/1.0" or fields.get(b"connection", b"").lower() == b"close"
        self._gzipped = fields.get(b"content-encoding") == b"gzip"
        self._left = int(fields.get(b"content-length", b"0"))
        self._chunked = None
        if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
            self._chunked = ChunkedBody(self._count_body)
        self._tail = b""
        self._body_bytes = 0
        self._proof = None
        if self._posts:
            self._begin_batch(fields)
        if fields.get(b"expect", b"").lower() == b"100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _begin_batch(self, fields: dict[bytes, bytes]) -> None:
        tally = self._tally
        self._batch_id = fields.get(b"x-cirron-batch-id", b"").decode("latin-1")
        if not tally.begun:
            tally.first_ns = time.monotonic_ns()
        tally.begun.append(self._batch_id)
        tally.open += 1
        tally.open_most = max(tally.open_most, tally.open)
        if not self._counted:
            self._counted = True
            tally.connections += 1
        if tally.proving:
            self._proof = Proof(self._gzipped)

    def _count_body(self, piece: bytes | memoryview) -> None:
        self._body_bytes += len(piece)
        self._sink.link.carry(len(piece), self._sink.loop.time())
        self._tail = (self._tail + bytes(piece[-4:]))[-4:]
        if self._proof is not None:
            self._proof.feed(bytes(piece))

    def _finish(self) -> None:
        self._in_body = False
        self._chunked = None
        if self._posts:
            tally = self._tally
            tally.sent_bytes += self._body_bytes
            tally.trailer_bytes += int.from_bytes(self._tail, "little") if self._gzipped else self._body_bytes
            if self._proof is not None:
                tally.proofs[self._batch_id] = self._proof.seal()
            self._answer_later(200, ACKNOWLEDGED, batch=tally)
        elif self._target == b"GET /api/cli/status":
            self._answer_later(200, STATUS, verification=self._tally)
        elif self._target == b"GET /sink":
            self._answer(200, json.dumps(self._sink.tally.as_json()).encode())
        elif self._target.startswith(b"POST /sink/reset"):
            self._sink.tally = Tally(proof=self._target.endswith(b"?proof"))
            self._answer(200, b"{}")
        else:
            self._answer_later(404, b'{"error":"not found"}')

    def _answer_later(
        self, status: int, body: bytes, batch: Tally | None = None, verification: Tally | None = None
    ) -> None:
        delay = self._sink.latency + self._sink.link.ahead(self._sink.loop.time())
        if delay > 0:
            self._sink.loop.call_later(delay, self._answer, status, body, batch, verification)
        else:
            self._answer(status, body, batch, verification)

    def _answer(
        self, status: int, body: bytes, batch: Tally | None = None, verification: Tally | None = None
    ) -> None:
        if batch is not None:
            batch.finished += 1
            batch.open -= 1
        if verification is not None:
            verification.verified_ns = time.monotonic_ns()
        if self._transport is None or self._transport.is_closing():
            return
        reason = b"OK" if status == 200 else b"Not Found"
        self._transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (status, reason, len(body), body)
        )
        if self._close:
            self._transport.close()

    # -- the link

    def _hold_to_the_link(self) -> None:
        ahead = self._sink.link.ahead(self._sink.loop.time())
        transport = self._transport
        if ahead < LINK_SLACK_SECONDS or transport is None or transport.is_closing():
            return
        transport.pause_reading()
        self._sink.loop.call_later(ahead, self._go_on)

    def _go_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


async def serve(latency_ms: float, bandwidth: float | None) -> None:
    """Listen on a free port of the loopback, say where as one line of JSON, and serve until stdin ends."""
    loop = asyncio.get_running_loop()
    sink = Sink(loop, latency_ms, bandwidth)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    if bandwidth is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LINK_SOCKET_BYTES)
    server = await loop.create_server(lambda: Connection(sink), sock=listener)
    over = asyncio.Event()

    def wait_for_the_end() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    await over.wait()
    server.close()


def main() -> None:
    """The sink's own process."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sink", description="Read, discard, answer 200."
    )
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--bandwidth", type=float, default=None, metavar="BYTES_PER_SECOND")
    options = parser.parse_args()
    # select() takes microseconds where epoll rounds up to the next millisecond, which would add to every latency.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(serve(options.latency_ms, options.bandwidth))


if __name__ == "__main__":
    main()
