"""The limits of the prefetch, the compression, and the place of the disk work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Tuning:
    """The limits of the prefetch, the compression, and the place of the disk work.

    ``prefetch_batches`` and ``prefetch_bytes`` (of request body) limit the batches that are read ahead.
    ``gzip_library`` is "auto", "isal", "zlib-ng" or "zlib". ``gzip_level`` None is the library's fast default. A file
    is read and compressed in chunks of ``chunk_bytes``.

    ``disk_work`` "thread" does all disk work in one thread, so that the caller's event loop never touches the disk.
    "inline" reads, compresses and deletes small batches in the event loop. It is faster on a fast link, and is for an
    event loop that serves nothing else.
    """

    # The defaults are results of `python -m benchmarks tune`: docs/performance.md has the figures.
    prefetch_batches: int = 64
    prefetch_bytes: int = 4 * 1024 * 1024
    gzip_library: str = "auto"
    gzip_level: int | None = None
    chunk_bytes: int = 256 * 1024
    disk_work: Literal["thread", "inline"] = "thread"
