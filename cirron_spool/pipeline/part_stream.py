"""The parts of a large body, produced by a thread ahead of their upload."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Generator
from types import TracebackType
from typing import Self

from cirron_spool.concurrency.shield import complete
from cirron_spool.concurrency.threads import call_from_thread, start

# Longest wait for the thread at the end. A dead mount can hold it for ever; it is then abandoned.
_LEAVE_S = 2.0


class PartStream:
    """An async iterator over ``parts``. While the context is open, a thread produces up to ``max_bytes`` ahead.

    An exception of ``parts`` is raised in place of the next part. Entering the context raises NoThreadError.
    """

    def __init__(self, parts: Generator[bytes, None, None], max_bytes: int) -> None:
        self._parts = parts
        self._max_bytes = max_bytes
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._main, name="cirron-spool stream", daemon=True)
        # Guards the two fields below it, which the thread and the event loop share.
        self._room = threading.Condition()
        self._ahead_bytes = 0
        self._closed = False
        # Fields of the event loop only. The event reports a part or the end.
        self._waiting: deque[bytes] = deque()
        self._end: BaseException | None = None
        self._progress = asyncio.Event()

    async def __aenter__(self) -> Self:
        start(self._thread)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._room:
            self._closed = True
            self._room.notify()
        await complete(self._leave())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._waiting:
            if self._end is not None:
                raise self._end
            await self._wait()
        part = self._waiting.popleft()
        with self._room:
            self._ahead_bytes -= len(part)
            self._room.notify()
        return part

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(_LEAVE_S):
                while self._end is None:
                    await self._wait()
        except TimeoutError:
            pass

    async def _wait(self) -> None:
        """Wait for the thread's next report."""
        self._progress.clear()
        await self._progress.wait()

    def _report(self, part: bytes, end: BaseException | None) -> None:
        if end is None:
            self._waiting.append(part)
        else:
            self._end = end
        self._progress.set()

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _main(self) -> None:
        end: BaseException = StopAsyncIteration()
        try:
            for part in self._parts:
                if not self._wait_for_room(len(part)):
                    break
                call_from_thread(self._loop, self._report, part, None)
        except BaseException as error:  # noqa: BLE001  # raised where the part is taken
            end = error
        finally:
            self._parts.close()
        call_from_thread(self._loop, self._report, b"", end)

    def _wait_for_room(self, size: int) -> bool:
        """Wait for room for ``size`` more bytes; False when the stream is closed."""
        with self._room:
            self._room.wait_for(lambda: self._closed or self._ahead_bytes < self._max_bytes)
            self._ahead_bytes += size
            return not self._closed
