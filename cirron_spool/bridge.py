"""The crossing between an event loop and the thread that works for it on the disk.

A hop into a thread pool and back costs 55 to 78 µs a call, half of what a whole upload on a fast link takes. One
thread that lives as long as the flush, and is only woken when there is something to do, costs a fraction of that.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")
E = TypeVar("E")
R = TypeVar("R")

# How long leaving waits for a thread that is inside the file system. One that a dead network mount holds is left
# behind: it is a daemon that owns nothing but a descriptor, and an exit must not hang on it.
_LEAVE_S = 2.0


async def complete(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work`` to its end even if the awaiting task is cancelled meanwhile; the cancellation follows it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()


class Ahead(Generic[T, E, R]):
    """An async iterator over ``source``, which a thread runs ahead of its consumer; the thread runs errands, too.

    The thread stops while ``max_items`` items, or items of ``max_weight`` together by ``weigh``, wait to be taken;
    one item may go beyond the weight, since it is known only once it is made. An exception of ``source`` is raised
    where its item would have been taken.

    ``put`` hands the thread an errand and never waits. Errands are done by ``errand`` in their order, before the next
    item is made and whenever ``source`` calls ``run_errands``; ``settled(n)`` waits until at most n are not done, and
    ``results`` are what they came to. Leaving the context waits until every errand is done: no errand is dropped.
    """

    def __init__(
        self,
        source: Iterator[T],
        *,
        max_items: int,
        max_weight: int,
        weigh: Callable[[T], int],
        name: str,
        errand: Callable[[E], R] | None = None,
    ) -> None:
        self._source = source
        self._max_items = max_items
        self._max_weight = max_weight
        self._weigh = weigh
        self._errand = errand
        self._ready: deque[tuple[T, int]] = deque()
        self._weight = 0
        self._todo: deque[E] = deque()
        self._done: deque[R] = deque()
        self._outstanding = 0
        self._exhausted = False
        self._source_error: BaseException | None = None
        self._errand_error: BaseException | None = None
        self._closing = False
        self._finished = False
        self._asleep = False
        self._waiter: asyncio.Future[None] | None = None
        self._condition = threading.Condition(threading.Lock())
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    # -- for the event loop --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await complete(self._leave())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        with self._condition:
            while not self._ready:
                if self._source_error is not None:
                    raise self._source_error
                if self._exhausted or self._finished:
                    raise StopAsyncIteration
                self._rouse()
                await self._sleep()
            item, weight = self._ready.popleft()
            self._weight -= weight
            # Waking a thread costs more than making a small batch ready: let it sleep until half is taken. An errand
            # wakes it anyway.
            if self._asleep and (
                len(self._ready) * 2 <= self._max_items or self._weight * 2 <= self._max_weight
            ):
                self._rouse()
            return item

    def put(self, item: E) -> None:
        """Hand ``item`` to the thread as an errand; returns at once."""
        with self._condition:
            self._todo.append(item)
            self._outstanding += 1
            self._rouse()

    async def settled(self, at_most: int = 0) -> None:
        """Wait until at most ``at_most`` errands are not done yet. Raises what ``errand`` raised, if it did."""
        if self._outstanding <= at_most and self._errand_error is None:
            return  # the common case takes no lock: behind our back the count only falls
        with self._condition:
            while self._outstanding > at_most and self._errand_error is None and not self._finished:
                await self._sleep()
            if self._errand_error is not None:
                raise self._errand_error

    def results(self) -> Iterator[R]:
        """What the errands that are done came to, each once, in their order."""
        while self._done:
            yield self._done.popleft()

    def _rouse(self) -> None:
        if self._asleep:
            self._asleep = False
            self._condition.notify()

    async def _sleep(self) -> None:
        """Wait for the thread's next sign. Call with the condition held; returns with it held."""
        waiter = self._waiter = self._loop.create_future()
        self._condition.release()
        try:
            await waiter
        finally:
            self._condition.acquire()
            if self._waiter is waiter:
                self._waiter = None

    async def _leave(self) -> None:
        with suppress(BaseException):  # raised by settled() already, or nobody asked
            await self.settled()
        with self._condition:
            self._closing = True
            self._rouse()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                with self._condition:
                    while not self._finished:
                        await self._sleep()

    # -- for the thread ------------------------------------------------------------------------------------------------

    def run_errands(self) -> None:
        """Do the errands that wait. For ``source``, in the midst of an item that takes long."""
        while self._todo and self._errand is not None:
            result = self._errand(self._todo[0])
            with self._condition:
                self._todo.popleft()
                self._done.append(result)
                self._outstanding -= 1
                self._wake()

    def _main(self) -> None:
        try:
            self._make_items()
            self._errands_until_closed()
        except BaseException as error:  # noqa: BLE001  # a bug, since expected failures are results: settled() raises it
            with self._condition:
                self._errand_error = error
        finally:
            with self._condition:
                self._finished = True
                self._wake()

    def _make_items(self) -> None:
        try:
            for item in self._source:
                weight = self._weigh(item)
                with self._condition:
                    self._ready.append((item, weight))
                    self._weight += weight
                    self._wake()
                del item
                if not self._wait_for_room():
                    break
        except BaseException as error:  # noqa: BLE001  # handed to the consumer, which raises it
            with self._condition:
                self._source_error = error
        finally:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
            with self._condition:
                self._exhausted = True
                self._wake()

    def _wait_for_room(self) -> bool:
        """Run errands until another item may be made; False when none is wanted any more."""
        while True:
            self.run_errands()
            with self._condition:
                if self._closing:
                    return False
                if self._todo:
                    continue
                if len(self._ready) < self._max_items and self._weight < self._max_weight:
                    return True
                self._nap()

    def _errands_until_closed(self) -> None:
        while True:
            self.run_errands()
            with self._condition:
                if self._todo:
                    continue
                if self._closing:
                    return
                self._nap()

    def _nap(self) -> None:
        self._asleep = True
        self._condition.wait()
        self._asleep = False

    def _wake(self) -> None:
        """Resume the coroutine that waits, if one does. Call with the condition held."""
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            with suppress(RuntimeError):  # the loop was closed under us: nobody is there to be told
                self._loop.call_soon_threadsafe(_resolve, waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
