"""The memory of a receiver does not depend on what comes."""

from __future__ import annotations

import gzip
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .conftest import Serve

pytestmark = pytest.mark.anyio

MEGABYTE = 1 << 20


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
async def test_the_peak_stays_where_it_is_whatever_comes(serve: Serve) -> None:
    """Big batches, hostile nesting that would be twenty times its size as objects, and a bomb."""

    def peak() -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10

    async def long(item: bytes, megabytes: int) -> AsyncIterator[bytes]:
        part = item * (MEGABYTE // len(item))
        yield b'{"a":[' + item.rstrip(b",") + b","
        for _ in range(megabytes):
            yield part
        yield b"0]}"

    async with serve("max_bytes=28_000_000") as (process, peer):
        for number in range(3):
            assert (await peer.post(b"{}", f"{number}")).status == 200
        before = peak()
        assert (await peer.post(long(b'{"id":"0123","v":[1.5,NaN]},', 24), "a1")).status == 200
        assert (await peer.post(long(b"[],", 16), "a2")).status == 200
        assert (await peer.post(long(b'"' + b"x" * 900_000 + b'",', 24), "a3")).status == 200
        packed = gzip.compress(b"".join([part async for part in long(b"[[1],{}],", 24)]), 1)
        assert (await peer.post(packed, "a4", Content_Encoding="gzip")).status == 200
        bomb = gzip.compress(b'{"a":"', 1) + gzip.compress(b"x" * 10_000_000, 9) * 50
        assert (await peer.post(bomb, "a5", Content_Encoding="gzip")).status == 413
        assert (await peer.post(long(b"[],", 30), "a6")).status == 413
        # The threads' own heaps are most of it; the bodies are 20 to 500 MB, the first as objects 600 MB.
        assert peak() - before < 24_000_000
