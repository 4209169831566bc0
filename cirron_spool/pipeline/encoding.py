"""Compress files to request bodies with one gzip library, in one call or as a stream.

The output is deterministic: the header has no time stamp, and all blocks have one size. A retry sends the same bytes.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from cirron_spool.errors import ConfigError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

# docs/contract.md, Upload: a file of more than 1024 bytes is compressed.
GZIP_ABOVE_BYTES = 1024

# zlib adds 16 to the window bits for a gzip envelope. Negative bits mean no envelope.
_IN_GZIP = 16

# RFC 1952: a header without time stamp, name and system. RFC 1951: an empty last block.
# The CRC-32 and the length modulo 2**32 follow.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK = b"\x03\x00"
# Blocks in the helper thread: one that it compresses, and one that waits.
# docs/performance.md has the rates of one and two threads.
_HELPERS_BLOCKS = 2
# Finished parts that may wait for an older part of the helper thread.
_PARTS_BEHIND = 2


class Compressor(Protocol):
    """A streaming compressor of zlib, isal or zlib-ng."""

    def compress(self, data: bytes, /) -> bytes:
        """The next part of the output; often empty."""

    def flush(self, mode: int, /) -> bytes:
        """The rest of the output."""


@dataclass(frozen=True, slots=True)
class GzipLibrary:
    """One gzip implementation: its name, levels, default level and functions.

    ``compress`` returns bytes as one gzip member, at a level. ``deflater`` returns a raw deflate compressor, at a
    level. It may refer to the preceding 2**``window_bits`` bytes. ``crc32`` continues a CRC.
    """

    name: str
    levels: range
    default_level: int
    window_bits: int
    compress: Callable[[bytes, int], bytes]
    deflater: Callable[[int, bytes], Compressor]
    crc32: Callable[[bytes, int], int]


def _library(name: str, module: Any, levels: range, default_level: int, window_bits: int) -> GzipLibrary:
    """The library of a ``module`` with zlib's functions."""

    def deflater(level: int, before: bytes) -> Compressor:
        dictionary = {"zdict": before} if before else {}
        made: Compressor = module.compressobj(level, module.DEFLATED, -window_bits, **dictionary)
        return made

    return GzipLibrary(
        name=name,
        levels=levels,
        default_level=default_level,
        window_bits=window_bits,
        compress=partial(module.compress, wbits=_IN_GZIP + window_bits),
        deflater=deflater,
        crc32=module.crc32,
    )


def _isal() -> GzipLibrary:
    from isal import isal_zlib

    # docs/performance.md has the rates and ratios. Traces repeat themselves from record to record,
    # so a small window finds nearly all matches and is faster.
    return _library("isal", isal_zlib, range(4), default_level=1, window_bits=12)


def _zlib_ng() -> GzipLibrary:
    from zlib_ng import zlib_ng

    # Level 1 is faster, but sends 40 % more bytes (docs/performance.md).
    return _library("zlib-ng", zlib_ng, range(1, 10), default_level=2, window_bits=13)


def _zlib() -> GzipLibrary:
    # Level 6 is 2.7 times slower for 12 % fewer bytes (docs/performance.md).
    return _library("zlib", zlib, range(1, 10), default_level=1, window_bits=15)


# In order of preference. Only zlib exists on every platform.
_LIBRARIES: dict[str, Callable[[], GzipLibrary]] = {"isal": _isal, "zlib-ng": _zlib_ng, "zlib": _zlib}
GZIP_LIBRARIES = ("auto", *_LIBRARIES)


class Encoder:
    """Compresses with one gzip library and level.

    ``library`` is "auto" (the fastest installed one) or a name in GZIP_LIBRARIES. ``level`` None is the library's
    default. Raises ConfigError for a missing library and for an unknown level.
    """

    def __init__(self, library: str = "auto", level: int | None = None) -> None:
        self.library = _find(library)
        self.level = self.library.default_level if level is None else level
        if self.level not in self.library.levels:
            first, last = self.library.levels[0], self.library.levels[-1]
            raise ConfigError(
                f"There is no gzip level {level} in {self.library.name}. Choose one from {first} to {last}."
            )
        # Created for the first large batch, if there is more than one core.
        self._helper: ThreadPoolExecutor | None = None
        self._helpers_blocks = _HELPERS_BLOCKS if _cores() > 1 else 0

    def close(self) -> None:
        """End the helper thread. Unfinished streams continue without it."""
        self._helpers_blocks = 0
        if self._helper is not None:
            self._helper.shutdown(wait=False, cancel_futures=True)

    def gzip(self, data: bytes) -> bytes:
        """``data`` as one gzip member."""
        return self.library.compress(data, self.level)

    def gzip_parts(self, blocks: Iterator[bytes]) -> Generator[bytes, None, None]:
        """The gzip stream of ``blocks`` in non-empty parts. Two threads compress two blocks at a time."""
        crc = size = 0
        # The end of the preceding block is the dictionary of the next one. It keeps the ratio of one stream.
        window = 1 << self.library.window_bits
        before = b""
        head = _GZIP_HEADER
        parts: deque[Future[bytes] | bytes] = deque()
        helpers_last: tuple[bytes, bytes] = b"", b""
        try:
            for block in blocks:
                helped = None
                if sum(map(_is_pending, parts)) < self._helpers_blocks:
                    helped = self._submit_to_helper(block, before)
                if helped is not None:
                    helpers_last = block, before
                parts.append(self._deflate(block, before) if helped is None else helped)
                crc = self.library.crc32(block, crc)
                size += len(block)
                before = (before + block if len(block) < window else block)[-window:]
                while parts and (
                    len(parts) > self._helpers_blocks + _PARTS_BEHIND or not _is_pending(parts[0])
                ):
                    yield head + _bytes_of(parts.popleft())
                    head = b""
            # The helper may not have started the last block. It is then compressed here.
            for index in reversed(range(len(parts))):
                part = parts[index]
                if isinstance(part, Future):
                    if part.cancel():
                        parts[index] = self._deflate(*helpers_last)
                    break
            while parts:
                yield head + _bytes_of(parts.popleft())
                head = b""
        finally:
            for part in parts:
                if isinstance(part, Future):
                    part.cancel()
        yield head + _LAST_BLOCK + crc.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")

    def _submit_to_helper(self, block: bytes, before: bytes) -> Future[bytes] | None:
        """Submit a block to the helper thread. None if the thread cannot be started."""
        try:
            if self._helper is None:
                # This import fails while the interpreter ends.
                from concurrent.futures import ThreadPoolExecutor

                self._helper = ThreadPoolExecutor(1, "cirron-spool gzip")
            return self._helper.submit(self._deflate, block, before)
        except (RuntimeError, MemoryError):
            self._helpers_blocks = 0
            return None

    def _deflate(self, block: bytes, before: bytes) -> bytes:
        """Compress one block. It ends on a byte boundary, so the next one can follow."""
        # Without a yield the thread keeps its core for 3 ms, and delays the event loop (docs/performance.md).
        _yield_core()
        deflater = self.library.deflater(self.level, before)
        return deflater.compress(block) + deflater.flush(zlib.Z_SYNC_FLUSH)


def _yield_core() -> None:
    """Yield the core to another thread."""
    if hasattr(os, "sched_yield"):
        os.sched_yield()


def _is_pending(part: Future[bytes] | bytes) -> bool:
    return isinstance(part, Future) and not part.done()


def _bytes_of(part: Future[bytes] | bytes) -> bytes:
    return part.result() if isinstance(part, Future) else part


def _cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _find(name: str) -> GzipLibrary:
    if name == "auto":
        for make in _LIBRARIES.values():
            try:
                return make()
            except ImportError:
                continue
    make_named = _LIBRARIES.get(name)
    if make_named is None:
        raise ConfigError(f"There is no gzip library {name!r}. Choose one of: {', '.join(GZIP_LIBRARIES)}.")
    try:
        return make_named()
    except ImportError:
        raise ConfigError(
            f"The gzip library {name} is not installed. Install it, or use --gzip-library auto."
        ) from None
