"""The bounds of prefetch and the choice of compression."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a flush holds ready and how it compresses.

    ``prefetch_batches`` and ``prefetch_bytes`` (of request body) bound what waits ready beside what is in flight.
    ``gzip_library`` is "auto", "isal", "zlib-ng" or "zlib"; ``gzip_level`` None is the library's fast default.
    ``chunk_bytes`` is how much of a file is read and compressed at a time. Files of up to ``in_loop_bytes`` are read
    and compressed in the event loop itself, while an answer is waited for, as long as the disk proves quick, and so are
    those of up to DELETED_IN_LOOP_BYTES deleted; 0 leaves all of that to a thread.
    """

    # The defaults are what `python -m benchmarks tune` found; the figures are seconds, as multiples of the default's,
    # without latency on two cores (typical batches, but chunk_bytes: batches of 10 MB).
    # 1: 1.86, 4: 1.27, 8: 1.16, 16: 1.08, 24: 1.07, 32: 1.04, 128: 0.98; on ext4 0.98 to 1.02 from 4 on. The more, the
    # longer the thread works at a stretch, which a ticker in the loop feels: its 99th percentile is 1.4 ms late with
    # 24, 1.5 with 48, 1.8 with 64, and at worst 1.7, 3.5 and 2.9.
    prefetch_batches: int = 64
    prefetch_bytes: int = 4 * 1024 * 1024
    gzip_library: str = "auto"
    gzip_level: int | None = None
    # 32 KiB: 1.91, 64: 1.29, 128: 1.11, 512: 0.97, 4 MiB: 1.01 and 15 MB more memory.
    chunk_bytes: int = 256 * 1024
    # 0: 1.35, 8 and 16 KiB: 1.00, 64: 1.13, 128: 1.06; on ext4, where a delete takes longer, 128: 1.26; with batches of
    # 8 to 16 KB 0: 1.51, 8: 1.19, 16 and more: 1.01. Batches of one size take as long in the thread as in the loop at
    # 32 KB (0.98 at 48, 0.94 at 64).
    in_loop_bytes: int = 32 * 1024
