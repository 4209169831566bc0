"""The two crossings between an event loop and a thread: one that runs ahead of the loop, one that follows it.

A hop into a thread pool and back costs 55 to 78 µs a call, half of what a whole upload on a fast link takes. A
thread that lives as long as the flush and is only woken when one side really waits costs a tenth of that.
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


class _Crossing:
    """A daemon thread, a lock, and a way to wake one waiting coroutine."""

    def __init__(self, name: str) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._closing = False
        self._finished = False
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def _run(self) -> None:
        raise NotImplementedError

    def _main(self) -> None:
        try:
            self._run()
        finally:
            with self._condition:
                self._finished = True
                self._wake()

    def _wake(self) -> None:
        """Resume the coroutine that waits, if one does. Call with the condition held, from the thread."""
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            with suppress(RuntimeError):  # the loop was closed under us: nobody is there to be told
                self._loop.call_soon_threadsafe(_resolve, waiter)

    async def _sleep_until_woken(self) -> None:
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
        """Tell the thread to end and wait until it has, for a moment."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                with self._condition:
                    while not self._finished:
                        await self._sleep_until_woken()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Ahead(_Crossing, Generic[T]):
    """An async iterator over ``source``, which a thread runs ahead of its consumer.

    The thread stops while ``max_items`` items, or items of ``max_weight`` together by ``weigh``, wait to be taken;
    one item may go beyond the weight, since it is known only once it is made. An exception of ``source`` is raised
    where its item would have been taken. Leaving the context closes ``source`` in the thread.
    """

    def __init__(
        self, source: Iterator[T], *, max_items: int, max_weight: int, weigh: Callable[[T], int], name: str
    ) -> None:
        super().__init__(name)
        self._source = source
        self._max_items = max_items
        self._max_weight = max_weight
        self._weigh = weigh
        self._ready: deque[tuple[T, int]] = deque()
        self._weight = 0
        self._error: BaseException | None = None

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
                if self._error is not None:
                    raise self._error
                if self._finished:
                    raise StopAsyncIteration
                await self._sleep_until_woken()
            item, weight = self._ready.popleft()
            self._weight -= weight
            self._condition.notify()
            return item

    def _run(self) -> None:
        try:
            for item in self._source:
                weight = self._weigh(item)
                with self._condition:
                    if self._closing:
                        return
                    self._ready.append((item, weight))
                    self._weight += weight
                    self._wake()
                    while len(self._ready) >= self._max_items or self._weight >= self._max_weight:
                        if self._closing:
                            return
                        self._condition.wait()
                del item
        except BaseException as error:  # noqa: BLE001  # handed to the consumer, which raises it
            with self._condition:
                self._error = error
        finally:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()


class Behind(_Crossing, Generic[T, R]):
    """A thread that does ``work`` on each item it is given, in order, while the loop goes on.

    ``put`` never waits. ``settled(n)`` waits until at most n items are not done. Results are taken with ``results``
    in the order of the items. Leaving the context waits until all that was put is done: no work is dropped.
    """

    def __init__(self, work: Callable[[T], R], *, name: str) -> None:
        super().__init__(name)
        self._work = work
        self._todo: deque[T] = deque()
        self._done: deque[R] = deque()
        self._outstanding = 0
        self._error: BaseException | None = None

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await complete(self._finish())

    def put(self, item: T) -> None:
        """Hand ``item`` over; returns at once."""
        with self._condition:
            self._todo.append(item)
            self._outstanding += 1
            self._condition.notify()

    async def settled(self, at_most: int = 0) -> None:
        """Wait until at most ``at_most`` items are not done yet. Raises what ``work`` raised, if it did."""
        if self._outstanding <= at_most and self._error is None:
            return  # the common case takes no lock: the count only ever falls behind our back
        with self._condition:
            while self._outstanding > at_most and self._error is None:
                await self._sleep_until_woken()
            if self._error is not None:
                raise self._error

    def results(self) -> Iterator[R]:
        """What is done and was not taken yet."""
        while self._done:
            yield self._done.popleft()

    async def _finish(self) -> None:
        with suppress(BaseException):
            await self.settled()
        await self._leave()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._todo:
                    if self._closing:
                        return
                    self._condition.wait()
                item = self._todo.popleft()
            try:
                result = self._work(item)
            except BaseException as error:  # noqa: BLE001  # a bug, since expected failures are results: settled() raises it
                with self._condition:
                    self._error = error
                    self._outstanding -= 1
                    self._wake()
                return
            with self._condition:
                self._done.append(result)
                self._outstanding -= 1
                self._wake()
