"""Read request bodies in the event loop, and store them in a thread."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from cirron_spool.receiver.answers import RefusedError
from cirron_spool.receiver.connections import Request
from cirron_spool.receiver.incoming import IncomingFile
from cirron_spool.receiver.shaping import Shaping
from cirron_spool.text import printable, reason

# A thread gets a longer body in parts of this size, which bounds memory. It gets a shorter body at once, since one call
# to a thread costs as much as the decompression of a typical batch.
_HOP_BYTES = 256 << 10

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

_Result = TypeVar("_Result")


class Intake:
    """Reads the bodies of uploads, no faster than ``shaping`` allows, and stores them in ``threads``."""

    def __init__(self, threads: Executor, shaping: Shaping) -> None:
        self._threads = threads
        self._shaping = shaping

    async def run(self, work: Callable[..., _Result], *arguments: object) -> _Result:
        """The result of blocking ``work`` in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def store(
        self, request: Request, upload: IncomingFile[_Result], *, noun: str, limit: int, directory: str
    ) -> _Result:
        """Read the body of at most ``limit`` bytes, and store it in a thread.

        Raises RefusedError: 413 for a longer body, 500 and 507 if ``directory`` cannot store the ``noun``, and the
        errors of ``upload``.
        """
        try:
            return await self._store(request, upload, noun, limit)
        except OSError as error:
            failure = f"Could not store a {noun} in {printable(directory)}: {reason(error)}."
            raise RefusedError(507 if error.errno in _NO_SPACE else 500, failure) from None

    async def _store(self, request: Request, upload: IncomingFile[_Result], noun: str, limit: int) -> _Result:
        _check_size(request.head.length or 0, limit, noun)
        received = 0
        held = bytearray()
        started = False
        try:
            while chunk := await request.read():
                received += len(chunk)
                _check_size(received, limit, noun)
                await self._shaping.body(len(chunk))
                held += chunk
                if len(held) >= _HOP_BYTES:
                    started = True
                    part = bytes(held)
                    held.clear()
                    await self.run(upload.feed, part)
            return await self.run(upload.store_all, bytes(held))
        except BaseException as error:
            if started:
                # After a cancellation, a call in a thread may still run. discard() waits for it there.
                discarding = self._threads.submit(upload.discard)
                if isinstance(error, Exception):
                    await asyncio.wrap_future(discarding)
            raise


def _check_size(size: int, limit: int, noun: str) -> None:
    if size > limit:
        raise RefusedError(413, f"The {noun} is larger than {limit} bytes.")
