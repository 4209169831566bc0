"""The crossing between an event loop and the thread that works for it on the disk.

A hop into a thread pool and back costs 55 to 78 µs a call, half of what a whole upload on a fast link takes. One
thread that lives as long as the flush, and is only woken when there is something to do, costs a fraction of that.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from enum import Enum, auto
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio

from cirron_spool.pace import Pace

T = TypeVar("T")
E = TypeVar("E")
R = TypeVar("R")

# How long leaving waits for a thread that is inside the file system. One that a dead network mount holds is left
# behind: it is a daemon that owns nothing but a descriptor, and an exit must not hang on it.
_LEAVE_S = 2.0
# Before 3.12 aiohttp writes a request in a task, which begins a turn of the loop later: work that went before it would
# hold the request up instead of hiding behind it (1,000 typical batches without latency: 1.19 times as long).
_TASKS_BEGIN_A_TURN_LATER = sys.version_info < (3, 12)


async def complete(work: Coroutine[Any, Any, R], grace_s: float | None = None) -> R:
    """Await ``work`` to its end even if the awaiting task is cancelled meanwhile; the cancellation follows it.

    With ``grace_s`` the work is cancelled itself so many seconds after the awaiting task. An error of the work's own
    goes before the cancellation.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        if grace_s is not None:
            asyncio.get_running_loop().call_later(grace_s, task.cancel)
        # anyio cancels a scope's tasks again at each turn of the loop until they have left it, asyncio as often as it
        # is asked to.
        with anyio.CancelScope(shield=True):
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        raise
    return task.result()


class Ahead(Generic[T, E, R]):
    """An async iterator over ``source``, which a thread runs ahead of its consumer; the thread runs errands, too.

    The thread stops while ``max_items`` items, or items of ``max_weight`` together by ``weigh``, wait to be taken;
    one item may go beyond the weight, since it is known only once it is made. An exception of ``source`` is raised
    where its item would have been taken.

    ``put`` hands the thread an errand and never waits. Errands are done by ``errand`` in their order, before the next
    item is made and whenever ``source`` calls ``run_errands``; ``settled(n)`` waits until at most n are not done, and
    ``results`` are what they came to. Leaving the context waits until every errand is done: no errand is dropped.

    With ``brief`` the event loop does the work itself once the thread's has proved quick: while the thread sleeps, and
    after everything else in the loop had its turn, it does the errands that wait and makes one item, turn by turn
    until its store is full. ``brief`` makes the next item of ``source`` in a short time, or returns None where that
    may take long and leaves it to the thread; ``is_brief`` says whether an errand takes a short time.

    Neither side ever takes a lock: an append or a popleft is whole, and what is not written by one side alone belongs
    to the thread but while it sleeps on an empty inbox.
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
        brief: Callable[[], T | None] | None = None,
        is_brief: Callable[[E], bool] = lambda _: True,
    ) -> None:
        self._source = source
        self._max_items = max_items
        self._max_weight = max_weight
        self._weigh = weigh
        self._errand = errand
        self._brief = brief
        self._is_brief = is_brief
        self._pace = Pace()
        # Written by the thread alone.
        self._heeded = 0
        self._asleep_at = -1
        self._asked = False  # since the last item was begun
        self._finished = False
        # Written by whoever works: the thread, or the event loop while the thread sleeps.
        self._ready: deque[tuple[T, int]] = deque()
        self._made_weight = 0
        self._results: deque[R] = deque()
        self._errands_done = 0
        self._exhausted = False
        self._source_error: BaseException | None = None
        self._errand_error: BaseException | None = None
        # Written by the event loop alone.
        self._taken_weight = 0
        self._errands_put = 0
        self._held_back: deque[E] = deque()
        self._posted = 0
        self._told = False  # of an errand's error
        self._nudging = False
        self._waiter: asyncio.Future[None] | None = None
        # Errands, and signs: LOOK to look for room again, LEAVE to end.
        self._inbox: SimpleQueue[E | _Sign] = SimpleQueue()
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
        if error is None and self._errand_error is not None and not self._told:
            raise self._errand_error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._ready:
            if self._exhausted and not self._ready:  # asked again: the last item may have come in between
                if self._source_error is not None:
                    raise self._source_error
                raise StopAsyncIteration
            self._nudge()
            await self._signed(lambda: bool(self._ready) or self._exhausted)
        item, weight = self._ready.popleft()
        self._taken_weight += weight
        # Waking a thread costs more than making a small batch ready: let it sleep until half is taken. An errand
        # wakes it anyway.
        if self._is_half_empty():
            self._nudge_soon()
        return item

    def put(self, item: E) -> None:
        """Hand ``item`` to the thread as an errand; returns at once."""
        self._errands_put += 1
        self._held_back.append(item)
        self._nudge_soon()

    async def settled(self, at_most: int = 0) -> None:
        """Wait until at most ``at_most`` errands are not done yet. Raises what ``errand`` raised, if it did."""
        while self._errands_put - self._errands_done > at_most and not self._finished:
            self._nudge()
            await self._signed(lambda: self._errands_put - self._errands_done <= at_most or self._finished)
        if self._errand_error is not None:
            self._told = True
            raise self._errand_error

    def results(self) -> Iterator[R]:
        """What the errands that are done came to, each once, in their order."""
        while self._results:
            yield self._results.popleft()

    def _nudge_soon(self) -> None:
        """Nudge once the loop has nothing else to do: until then a thread would only wait for the interpreter."""
        if self._nudging:
            return
        self._nudging = True
        if _TASKS_BEGIN_A_TURN_LATER:
            self._loop.call_soon(self._loop.call_soon, self._nudge)
        else:
            self._loop.call_soon(self._nudge)

    def _nudge(self) -> None:
        """Have what was held back done, and room looked for: here, if that is brief, else by the thread."""
        self._nudging = False
        asleep = self._asleep_at == self._posted
        if self._brief and self._pace.quick and asleep and all(map(self._is_brief, self._held_back)):
            self._work_here(self._brief)
        elif self._held_back:
            while self._held_back:
                self._post(self._held_back.popleft())
        else:
            self._post(_Sign.LOOK)

    def _work_here(self, brief: Callable[[], T | None]) -> None:
        """Do what the thread would do, while it sleeps."""
        began = time.perf_counter()
        try:
            while self._held_back:
                self._run_errand(self._held_back.popleft())
        except _Left:
            self._post(_Sign.LEAVE)
            return
        if not self._exhausted and not self._is_full():
            try:
                item = brief()
            except StopIteration:
                self._exhausted = True
            except BaseException as error:  # noqa: BLE001  # handed to the consumer, which raises it
                self._source_error = error
                self._exhausted = True
            else:
                if item is None:
                    self._post(_Sign.LOOK)
                else:
                    self._add(item)
                    if not self._is_full():
                        self._nudge_soon()
        self._pace.done_in_loop(time.perf_counter() - began)

    def _post(self, message: E | _Sign) -> None:
        self._posted += 1
        self._inbox.put(message)

    async def _signed(self, arrived: Callable[[], bool]) -> None:
        """Wait for the thread's next sign, unless what is waited for has arrived meanwhile."""
        waiter = self._waiter = self._loop.create_future()
        try:
            # Asked after the waiter is in place: the thread looks for it after each thing that it does.
            if not arrived():
                await waiter
        finally:
            self._waiter = None

    async def _leave(self) -> None:
        while self._errands_put > self._errands_done and not self._finished:
            self._nudge()
            await self._signed(lambda: self._errands_put == self._errands_done or self._finished)
        self._post(_Sign.LEAVE)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                while not self._finished:
                    await self._signed(lambda: self._finished)

    # -- for the thread ------------------------------------------------------------------------------------------------

    def run_errands(self) -> None:
        """Do the errands that wait. For ``source``, in the midst of an item that takes long."""
        with suppress(Empty):
            while True:
                self._heed(self._inbox.get_nowait())

    def _main(self) -> None:
        try:
            self._make_items()
            while True:
                self._sleep()
        except _Left:
            pass
        finally:
            self._exhausted = self._finished = True
            self._sign()

    def _make_items(self) -> None:
        try:
            began = time.perf_counter()
            for item in self._source:
                self._add(item)
                del item
                self._pace.tried(time.perf_counter() - began)
                self._sign()
                self.run_errands()
                # Once the work is quick the loop makes the items, and the thread sleeps until it is asked for one that
                # may take long. To fill the store first would have it contend for the interpreter all that time.
                while self._brief is not None and self._pace.quick and not self._asked:
                    self._sleep(hand_over=not self._is_full())
                if self._is_full():
                    # Errands wake the thread for each batch; items it then makes by the half store. To make one each
                    # time would have it contend with the loop for the interpreter all the time.
                    while not self._is_half_empty():
                        self._sleep()
                if self._exhausted:  # by the loop
                    return
                self._asked = False
                began = time.perf_counter()
        except _Left:
            raise
        except BaseException as error:  # noqa: BLE001  # handed to the consumer, which raises it
            self._source_error = error
        finally:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
            self._exhausted = True
            self._sign()

    def _add(self, item: T) -> None:
        weight = self._weigh(item)
        self._made_weight += weight
        self._ready.append((item, weight))

    @property
    def _waiting_weight(self) -> int:
        return self._made_weight - self._taken_weight

    def _is_full(self) -> bool:
        return len(self._ready) >= self._max_items or self._waiting_weight >= self._max_weight

    def _is_half_empty(self) -> bool:
        return len(self._ready) * 2 <= self._max_items and self._waiting_weight * 2 <= self._max_weight

    def _sleep(self, *, hand_over: bool = False) -> None:
        """Wait for a message and heed it. Nothing was posted that is not heeded: the loop may work meanwhile.

        With ``hand_over`` the loop is told to, which without a consumer that takes or puts would not come to it.
        """
        self._asleep_at = self._heeded
        if hand_over:
            self._call(self._nudge_soon)
        self._heed(self._inbox.get())

    def _heed(self, message: E | _Sign) -> None:
        self._heeded += 1
        if message is _Sign.LEAVE:
            raise _Left
        if message is _Sign.LOOK:
            self._asked = True
        else:
            began = time.perf_counter()
            self._run_errand(message)
            self._pace.tried(time.perf_counter() - began)
            self._sign()

    def _run_errand(self, errand: E) -> None:
        if self._errand is None:
            return
        try:
            result = self._errand(errand)
        except BaseException as error:  # noqa: BLE001  # a bug, since expected failures are results: settled() raises it
            self._errand_error = error
            raise _Left from None
        self._results.append(result)
        self._errands_done += 1

    def _sign(self) -> None:
        """Resume the coroutine that waits, if one does."""
        waiter = self._waiter
        if waiter is not None:
            self._call(_resolve, waiter)

    def _call(self, callback: Callable[..., None], *args: Any) -> None:
        """Have the event loop call ``callback``."""
        with suppress(RuntimeError):  # the loop was closed under us: nobody is there to be told
            self._loop.call_soon_threadsafe(callback, *args)


class _Sign(Enum):
    LOOK = auto()
    LEAVE = auto()


class _Left(BaseException):
    """The thread is to end; raised in it, also through a source that is in the midst of an item."""


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
