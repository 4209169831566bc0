"""An HTTP/1.1 server that discards request bodies and acknowledges each batch.

``python -m benchmarks.sink`` runs the server in its own process and ends when its standard input ends. Each connection
has one thread with blocking calls: an event loop would cost more than the request. The answer to a batch is delayed by
``--latency-ms``. All connections together read at most ``--bandwidth`` bytes a second.

``POST /sink/refuse?503`` answers each further batch with that status and counts none; without a status it ends that.
``GET /sink`` returns the :class:`Tally` as JSON. ``POST /sink/reset`` starts a new tally. ``POST /sink/reset?proof``
also records the length and the CRC-32 of the JSON in each body.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import BinaryIO, cast

TRACES = b"POST /api/traces"
READ_BYTES = 256 << 10
# A small socket buffer, so that a body does not vanish into the kernel when a link is imitated.
LINK_SOCKET_BYTES = 64 << 10
LINK_READ_BYTES = 16 << 10

ACKNOWLEDGED = b'{"success":true}'
STATUS = json.dumps(
    {
        "valid": True,
        "token": {"name": "benchmark", "expiresAt": "2999-01-01T00:00:00.000Z"},
        "user": {"email": "benchmark@localhost", "name": "Benchmark"},
        "organization": {"name": "Benchmark"},
    }
).encode()


@dataclass
class Tally:
    """The requests since the last reset.

    ``started`` lists batch ids in the order of their request heads, ``started_ns`` their times. ``finished`` counts
    answers. ``sent_bytes`` counts body bytes on the wire, ``trailer_bytes`` JSON bytes by the gzip trailers.
    ``open_most`` is the largest number of batches in flight. Times are from ``time.monotonic_ns``. ``proofs`` maps
    batch ids to ``[length, CRC-32]``.
    """

    proving: bool = False
    started: list[str] = field(default_factory=list)
    started_ns: list[int] = field(default_factory=list)
    finished: int = 0
    sent_bytes: int = 0
    trailer_bytes: int = 0
    open: int = 0
    open_most: int = 0
    first_ns: int = 0
    verified_ns: int = 0
    proofs: dict[str, list[int]] = field(default_factory=dict)


def fingerprint(file: BinaryIO) -> list[int]:
    """``[length, CRC-32]`` of a file; the length is -1 for a damaged gzip stream."""
    length, crc = 0, 0
    try:
        while piece := file.read(READ_BYTES):
            length += len(piece)
            crc = zlib.crc32(piece, crc)
    except (OSError, EOFError, zlib.error):
        return [-1, 0]
    return [length, crc]


class Sink:
    """The state that all connections share, and the handler of one connection."""

    def __init__(self, latency_ms: float, bandwidth: float | None) -> None:
        self._latency = latency_ms / 1000
        self._bandwidth = bandwidth
        self._read_bytes = LINK_READ_BYTES if bandwidth else READ_BYTES
        self._link_free_at = 0.0
        self._lock = threading.Lock()
        self._tally = Tally()
        self._refusal = 0

    def handle(self, connection: socket.socket) -> None:
        """Answer the requests of one connection until its end."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A lost connection is the client's concern: a delivery without all its batches is no measurement.
        with connection, connection.makefile("rb", buffering=self._read_bytes) as file, suppress(OSError):
            stream = cast("io.BufferedReader", file)
            while head := stream.readline():
                request = head.rpartition(b" ")[0]
                fields = dict(_fields(stream))
                body = _body(stream, fields, self._read_bytes)
                status, answer = self._answer(request, fields, body)
                connection.sendall(
                    b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                    % (status, b"OK" if status == 200 else b"Not Found", len(answer), answer)
                )

    def _answer(self, request: bytes, fields: dict[bytes, bytes], body: Iterator[bytes]) -> tuple[int, bytes]:
        tally = self._tally
        if request == TRACES and not self._refusal:
            self._take_batch(tally, fields, body)
            return 200, ACKNOWLEDGED
        for _ in body:
            pass
        if request == TRACES:
            return self._refusal, b'{"error":"refused by the benchmark"}'
        if request.startswith(b"POST /sink/refuse"):
            self._refusal = int(request.partition(b"?")[2] or 0)
            return 200, b"{}"
        if request == b"GET /api/cli/status":
            time.sleep(self._latency)
            tally.verified_ns = time.monotonic_ns()
            return 200, STATUS
        if request == b"GET /sink":
            return 200, json.dumps(asdict(tally)).encode()
        if request.startswith(b"POST /sink/reset"):
            self._tally = Tally(proving=request.endswith(b"?proof"))
            return 200, b"{}"
        return 404, b'{"error":"not found"}'

    def _take_batch(self, tally: Tally, fields: dict[bytes, bytes], body: Iterator[bytes]) -> None:
        batch_id = fields.get(b"x-cirron-batch-id", b"").decode("latin-1")
        with self._lock:
            tally.first_ns = tally.first_ns or time.monotonic_ns()
            tally.started.append(batch_id)
            tally.started_ns.append(time.monotonic_ns())
            tally.open += 1
            tally.open_most = max(tally.open_most, tally.open)
        size, tail, kept = 0, b"", bytearray()
        for piece in body:
            size += len(piece)
            tail = (tail + piece[-4:])[-4:]
            if tally.proving:
                kept += piece
            if self._bandwidth:
                self._carry(len(piece), self._bandwidth)
        if self._latency:
            time.sleep(self._latency)
        gzipped = fields.get(b"content-encoding") == b"gzip"
        with self._lock:
            tally.sent_bytes += size
            tally.trailer_bytes += int.from_bytes(tail, "little") if gzipped else size
            tally.finished += 1
            tally.open -= 1
            if tally.proving:
                plain = io.BytesIO(kept)
                tally.proofs[batch_id] = fingerprint(
                    cast("BinaryIO", gzip.GzipFile(fileobj=plain)) if gzipped else plain
                )

    def _carry(self, count: int, bandwidth: float) -> None:
        """Wait until ``count`` more bytes have crossed the shared link."""
        with self._lock:
            self._link_free_at = max(self._link_free_at, time.monotonic()) + count / bandwidth
            wait = self._link_free_at - time.monotonic()
        time.sleep(max(0.0, wait))


def _fields(stream: io.BufferedReader) -> Iterator[tuple[bytes, bytes]]:
    """The header fields; names in lower case."""
    while line := stream.readline().strip():
        name, _, value = line.partition(b":")
        yield name.lower(), value.strip()


def _body(stream: io.BufferedReader, fields: dict[bytes, bytes], most: int) -> Iterator[bytes]:
    """The body in pieces of at most ``most`` bytes."""
    if fields.get(b"transfer-encoding", b"").lower() != b"chunked":
        yield from _pieces(stream, int(fields.get(b"content-length", b"0")), most)
        return
    while size := int(stream.readline().partition(b";")[0], 16):
        yield from _pieces(stream, size, most)
        stream.readline()
    while stream.readline().strip():  # trailers
        pass


def _pieces(stream: io.BufferedReader, left: int, most: int) -> Iterator[bytes]:
    while left:
        piece = stream.read1(min(left, most))
        if not piece:
            raise ConnectionResetError
        left -= len(piece)
        yield piece


def main() -> None:
    """Listen on a free loopback port, print the URL as a line of JSON, and serve until stdin ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sink")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--bandwidth", type=float, metavar="BYTES_PER_SECOND")
    options = parser.parse_args()
    sink = Sink(options.latency_ms, options.bandwidth)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    if options.bandwidth:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LINK_SOCKET_BYTES)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=sink.handle, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}"}), flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
