"""Starting a sink in a process of its own, asking it what arrived, and ending it."""

from __future__ import annotations

import http.client
import json
import re
import select
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from benchmarks.environment import REPOSITORY, child_environment
from benchmarks.errors import BenchmarkError
from benchmarks.spools import Workspace
from cirron_spool.spool.names import batch_id_of, is_batch_name
from cirron_spool.text import printable

TOKEN = "sk-benchmark"  # noqa: S105 - no secret: the sinks here take any
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Network:
    """What a sink's answers are like: milliseconds of delay each, and bytes a second of the line (None: no limit)."""

    latency_ms: float = 0.0
    bandwidth: float | None = None

    def flags(self) -> list[str]:
        """For the sinks' command lines."""
        flags = ["--latency-ms", f"{self.latency_ms:g}"]
        if self.bandwidth is not None:
            flags += ["--bandwidth", f"{self.bandwidth:.0f}"]
        return flags


@dataclass
class Arrived:
    """What a sink received since its last reset; None where that sink cannot tell.

    ``begun`` are batch ids in the order in which their requests began; ``proofs`` the length and CRC-32 of each
    batch's JSON; ``trailer_bytes`` JSON bytes by the gzip trailers; ``open_most`` the most requests in flight together.
    """

    batches: int
    begun: list[str]
    in_order: bool
    sent_bytes: int | None = None
    trailer_bytes: int | None = None
    open_most: int | None = None
    connections: int | None = None
    first_ns: int | None = None
    verified_ns: int | None = None
    proofs: dict[str, list[int]] = field(default_factory=dict)


class Sink(Protocol):
    """A server to deliver to."""

    url: str

    def reset(self, proof: bool) -> None:
        """Forget what arrived; with ``proof``, look inside every body from here on."""

    def arrived(self) -> Arrived:
        """What arrived since the last reset."""


class AnswerOnly:
    """``python -m benchmarks.sink``."""

    def __init__(self, url: str) -> None:
        self.url = url

    def reset(self, proof: bool) -> None:
        self._ask("POST", "/sink/reset" + ("?proof" if proof else ""))

    def arrived(self) -> Arrived:
        told = json.loads(self._ask("GET", "/sink"))
        return Arrived(
            batches=told["finished"],
            begun=told["begun"],
            in_order=True,
            sent_bytes=told["sent_bytes"],
            trailer_bytes=told["trailer_bytes"],
            open_most=told["open_most"],
            connections=told["connections"],
            first_ns=told["first_ns"],
            verified_ns=told["verified_ns"],
            proofs=told["proofs"],
        )

    def _ask(self, method: str, target: str) -> bytes:
        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=_START_SECONDS)
        with closing(connection):
            connection.request(method, target, headers={"Connection": "close"})
            return connection.getresponse().read()


class Receiver:
    """The real receiver, which stores what it acknowledges: what arrived is what is in its store."""

    def __init__(self, url: str, store: Path) -> None:
        self.url = url
        self._store = store
        self._proof = False

    def reset(self, proof: bool) -> None:
        self._proof = proof
        for path in self._batches():
            path.unlink()

    def arrived(self) -> Arrived:
        paths = self._batches()
        ids = [batch_id_of(path.name) for path in paths]
        sizes = sum(path.stat().st_size for path in paths)
        arrived = Arrived(batches=len(ids), begun=ids, in_order=False, trailer_bytes=sizes)
        if self._proof:
            for path, batch_id in zip(paths, ids, strict=True):
                data = path.read_bytes()
                arrived.proofs[batch_id] = [len(data), zlib.crc32(data)]
        return arrived

    def _batches(self) -> list[Path]:
        return sorted(path for path in self._store.rglob("*.json") if is_batch_name(path.name))


@contextmanager
def start(kind: str, network: Network, workspace: Workspace) -> Iterator[Sink]:
    """Start a sink: ``answer-only`` or ``receiver``; it is gone when the block is left."""
    if kind == "answer-only":
        command = [sys.executable, "-m", "benchmarks.sink", *network.flags()]
        store = None
    else:
        store = workspace.fresh("received")
        command = [sys.executable, "-m", "cirron_spool", "receive", "--store", str(store), "--port", "0"]
        command += ["--token", TOKEN, *network.flags()]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        env=child_environment(workspace.folder),
    )
    try:
        url = _address(process, kind)
        yield AnswerOnly(url) if store is None else Receiver(url, store)
    finally:
        _stop(process)


def _address(process: subprocess.Popen[bytes], kind: str) -> str:
    assert process.stdout is not None and process.stderr is not None
    deadline = time.monotonic() + _START_SECONDS
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        piece = process.stdout.read1(4096) if ready else b""  # type: ignore[attr-defined]  # a pipe of Popen is buffered; its type is IO
        if not piece:
            why = "it was not ready in time" if not ready else last_line(process.stderr.read())
            raise BenchmarkError(f"The {kind} sink did not start: {why}")
        line += piece
    found = re.search(rb"http://[0-9a-z.:\[\]]*[0-9]", line)
    if found is None:
        raise BenchmarkError(
            f"The {kind} sink did not say where it listens: {line.decode(errors='replace').strip()}"
        )
    return found[0].decode()


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def last_line(text: bytes) -> str:
    """The last line with anything on it: where Python and Node say what was wrong."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return printable(lines[-1].strip()) if lines else "it said nothing"
