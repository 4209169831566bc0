"""Bytes to a request body: as they are up to 1 KB, gzip above; whole where it fits, streamed where it does not.

The gzip library is chosen once. Its output is deterministic: no time stamp in the header, blocks of one size. A retry
sends the same bytes.
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

# zlib's way to say "in a gzip envelope": added to the bits of the window; without any envelope they are negative.
_IN_GZIP = 16

# The envelope of a stream whose blocks are compressed beside each other (RFC 1952): no time stamp, no name, the
# system unknown; and behind the blocks an empty last one (RFC 1951), the CRC-32 and the length modulo 2**32.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK = b"\x03\x00"
# The thread that reads a stream compresses it, too, and one other helps. Two reach 1.6 times one (1160 against 710 MB/s
# of JSON); a third gains nothing on two cores, and a training run wants the others.
# So many blocks are the helper's: one that it compresses and one for when it is done. More only wait.
_HELPERS_BLOCKS = 2
# Compressed parts that may wait for an older one of the helper's.
_PARTS_BEHIND = 2


class Compressor(Protocol):
    """A streaming compressor, as zlib, isal and zlib-ng have it."""

    def compress(self, data: bytes, /) -> bytes:
        """The next part of the output; often empty."""

    def flush(self, mode: int, /) -> bytes:
        """The rest of the output."""


@dataclass(frozen=True, slots=True)
class GzipLibrary:
    """One gzip implementation: its name, levels, default level and functions.

    ``compress`` makes a gzip member of bytes at a level. ``deflater`` makes a raw deflate stream at a level. The
    stream may refer to the preceding 2**``window_bits`` bytes. ``crc32`` continues a CRC.
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

    # One level for every link: docs/performance.md has the rates and ratios. A small window suits traces, which
    # repeat themselves from record to record: there are fewer far matches, and less to search.
    return _library("isal", isal_zlib, range(4), default_level=1, window_bits=12)


def _zlib_ng() -> GzipLibrary:
    from zlib_ng import zlib_ng

    # Level 1 is faster, but sends 40 % more bytes (docs/performance.md).
    return _library("zlib-ng", zlib_ng, range(1, 10), default_level=2, window_bits=13)


def _zlib() -> GzipLibrary:
    # Level 6 is 2.7 times slower for 12 % fewer bytes (docs/performance.md).
    return _library("zlib", zlib, range(1, 10), default_level=1, window_bits=15)


# In order of preference; each but the last may have no wheel for a platform.
_LIBRARIES: dict[str, Callable[[], GzipLibrary]] = {"isal": _isal, "zlib-ng": _zlib_ng, "zlib": _zlib}
GZIP_LIBRARIES = ("auto", *_LIBRARIES)


class Encoder:
    """Makes request bodies with one gzip library and level.

    ``library`` is "auto" (the fastest that is installed) or a name in GZIP_LIBRARIES; ``level`` None takes the
    library's default. Raises ConfigError for a library that is not installed or a level that it does not know.
    """

    def __init__(self, library: str = "auto", level: int | None = None) -> None:
        self.library = _find(library)
        self.level = self.library.default_level if level is None else level
        if self.level not in self.library.levels:
            first, last = self.library.levels[0], self.library.levels[-1]
            raise ConfigError(
                f"There is no gzip level {level} in {self.library.name}. Choose one from {first} to {last}."
            )
        # Made when it is first given work, which happens for large batches alone, and not on a single core.
        self._helper: ThreadPoolExecutor | None = None
        self._helpers_blocks = _HELPERS_BLOCKS if _cores() > 1 else 0

    def close(self) -> None:
        """Let the helper go; streams that are not at their end go on without."""
        self._helpers_blocks = 0
        if self._helper is not None:
            self._helper.shutdown(wait=False, cancel_futures=True)

    def gzip(self, data: bytes) -> bytes:
        """``data`` as one gzip member."""
        return self.library.compress(data, self.level)

    def gzip_parts(self, blocks: Iterator[bytes]) -> Generator[bytes, None, None]:
        """The gzip stream of ``blocks``, in parts that are never empty; two blocks are compressed at a time."""
        crc = size = 0
        # A block that knows the end of the one before it costs no bytes for standing alone.
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
            # A block that the helper has not started is compressed here.
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
        """Have the helper compress a block. None where its thread cannot be started: then there is no helper."""
        try:
            if self._helper is None:
                # While the interpreter ends, this cannot be imported any more.
                from concurrent.futures import ThreadPoolExecutor

                self._helper = ThreadPoolExecutor(1, "cirron-spool gzip")
            return self._helper.submit(self._deflate, block, before)
        except (RuntimeError, MemoryError):
            self._helpers_blocks = 0
            return None

    def _deflate(self, block: bytes, before: bytes) -> bytes:
        """One block, ended on a byte's border so that the next can follow it."""
        # A thread that never pauses keeps its core for 3 ms. The event loop would wake late: docs/performance.md.
        _yield_core()
        deflater = self.library.deflater(self.level, before)
        return deflater.compress(block) + deflater.flush(zlib.Z_SYNC_FLUSH)


def _yield_core() -> None:
    """Let another thread have this core, if one wants it."""
    if hasattr(os, "sched_yield"):
        os.sched_yield()


def _is_pending(part: Future[bytes] | bytes) -> bool:
    return isinstance(part, Future) and not part.done()


def _bytes_of(part: Future[bytes] | bytes) -> bytes:
    return part.result() if isinstance(part, Future) else part


def _cores() -> int:
    """The processors that this process may use."""
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
