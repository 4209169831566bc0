"""The crossing between an event loop and the thread that works for it on the disk.

A hop into a thread pool and back costs 55 to 78 µs a call, half of what a whole upload on a fast link takes. One
thread that lives as long as the flush, and is only woken when there is something to do, costs a fraction of that.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum, auto
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, Self, TypeVar

from cirron_spool.concurrency.shield import complete
from cirron_spool.concurrency.threads import call, resolve, start, tell
from cirron_spool.pipeline.buffer import Buffer
from cirron_spool.pipeline.pace import SLOW_S, Pace

T = TypeVar("T")
E = TypeVar("E")
R = TypeVar("R")

# How long leaving waits for a thread that is inside the file system. One that a dead network mount holds is left
# behind: it is a daemon that owns nothing but a descriptor, and an exit must not hang on it.
_LEAVE_S = 2.0
# Work that no moment came for waits no longer than this: a batch that is not deleted yet would be sent again after a
# crash. One timer in so long a time, and not one a batch, costs nothing that shows.
_MOMENT_AT_LATEST_S = 0.005
# Errands that the loop does in one turn, some dozens of deletes, before the others in it have theirs.
_ERRANDS_S = 0.001
# So many small items in a row, made by the thread, and the next is expected to be one for the loop. Between a small and
# a large one lie a look into the file that was in vain and the waking of the thread: some 50 µs.
_SMALL_IN_A_ROW = 4


class Ahead(Generic[T, E, R]):
    """An async iterator over ``source``, which a thread runs ahead of its consumer; the thread runs errands, too.

    The thread stops while as many items wait to be taken as a :class:`Buffer` of ``max_items``, ``max_weight`` and
    ``head_start`` holds. An exception of ``source`` is raised where its item would have been taken.

    ``put`` hands over an errand and never waits. Errands are done by ``errand`` in their order, by the thread between
    two items and whenever ``source`` calls ``run_errands``; ``settled(n)`` waits until at most n are not done, and
    ``results`` are what they came to, if that is not None. Leaving the context waits until every errand is done: no
    errand is dropped. Last of all the thread calls ``at_end``, however it ends.

    With ``brief`` the event loop does some of the work itself, once the thread's has proved quick: brief errands, also
    while the thread makes an item, and small items, while the thread sleeps. ``brief`` makes the next item of
    ``source`` in a short time, or returns None where that may take long and leaves it to the thread; ``is_small`` says
    of an item that the next one is likely to be the loop's, and ``is_brief`` of an errand that it takes a short time.
    The loop works in the moments that ``meanwhile`` tells it of, and where none comes, a few milliseconds later.

    Neither side ever takes a lock: an append or a popleft is whole, and what is not written by one side alone has one
    writer at a time. Items are the thread's to make but while it sleeps on an empty inbox, and errands the loop's to do
    but while one is in the inbox.
    """

    def __init__(
        self,
        source: Iterator[T],
        *,
        max_items: int,
        max_weight: int,
        weigh: Callable[[T], int],
        name: str,
        head_start: int | None = None,
        errand: Callable[[E], R | None] | None = None,
        at_end: Callable[[], None] | None = None,
        brief: Callable[[], T | None] | None = None,
        is_small: Callable[[T], bool] = lambda _: True,
        is_brief: Callable[[E], bool] = lambda _: True,
    ) -> None:
        self._source = source
        self._errand = errand
        self._at_end = at_end
        self._brief = brief
        self._is_small = is_small
        self._is_brief = is_brief
        self._pace = Pace()
        # Written by the thread alone.
        self._heeded = 0
        self._asleep_at = -1
        self._asked = False  # since it last waited for room
        self._finished = False
        self._errands_by_thread = 0
        self._small_in_a_row = 0
        self._busy_since: float | None = None  # when the piece in hand was begun
        # Written by whoever makes items: the thread, or the event loop while the thread sleeps.
        self._ready = Buffer(max_items, max_weight, weigh, head_start)
        self._exhausted = False
        self._source_error: BaseException | None = None
        # Written by whoever does errands: the thread, or the event loop while the thread has none.
        self._results: deque[R] = deque()
        self._errand_error: BaseException | None = None
        # Written by the event loop alone.
        self._errands_put = 0
        self._errands_posted = 0
        self._errands_here = 0
        self._held_back: deque[E] = deque()
        self._posted = 0
        self._told = False  # of an errand's error
        self._due = False  # a look for work in the next turn
        self._later: asyncio.TimerHandle | None = None  # one that comes if no moment does
        self._waiter: asyncio.Future[None] | None = None
        # Errands, and signs: LOOK to look for room again, LEAVE to end.
        self._inbox: SimpleQueue[E | _Sign] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    # -- for the event loop --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Raises NoThreadError."""
        start(self._thread)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await complete(self._leave())
        finally:
            if self._later is not None:
                self._later.cancel()
        if error is None and self._errand_error is not None and not self._told:
            raise self._errand_error

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        waiting = self._ready.items
        while not waiting:
            if self._exhausted and not waiting:  # asked again: the last item may have come in between
                if self._source_error is not None:
                    raise self._source_error
                raise StopAsyncIteration
            self._look_for_work(wanted=True)
            await self._signed(lambda: bool(waiting) or self._exhausted)
        item = self._ready.take()
        if self._errand is None:  # nobody tells of moments
            if self._ready.is_half_empty():
                self._fill_soon()
        elif self._later is None:
            self._work_later()
        return item

    def put(self, item: E) -> None:
        """Hand ``item`` over as an errand; returns at once."""
        self._errands_put += 1
        self._held_back.append(item)
        if self._later is None:
            self._work_later()

    async def settled(self, at_most: int = 0) -> None:
        """Wait until at most ``at_most`` errands are not done yet. Raises what ``errand`` raised, if it did."""
        while self.errands_left > at_most and not self._finished:
            self._look_for_work()
            await self._signed(lambda: self.errands_left <= at_most or self._finished)
        if self._errand_error is not None:
            self._told = True
            raise self._errand_error

    def results(self) -> list[R]:
        """What the errands that are done came to, each once, in their order. Raises what ``errand`` raised, once."""
        results = []
        while self._results:
            results.append(self._results.popleft())
        if not results and self._errand_error is not None and not self._told:
            self._told = True
            raise self._errand_error
        return results

    def meanwhile(self) -> None:
        """Work a moment: what waits for the loop has something else to wait for. Never raises."""
        self._look_for_work()

    @property
    def errands_left(self) -> int:
        """How many errands were put and are not done yet."""
        return self._errands_put - self._errands_here - self._errands_by_thread

    def _work_later(self) -> None:
        self._later = self._loop.call_later(_MOMENT_AT_LATEST_S, self._work_now)

    def _work_now(self) -> None:
        self._later = None
        self._look_for_work()

    def _look_for_work(self, *, wanted: bool = False) -> None:
        """Do what was held back, and see to more items: here, if that is brief, else by the thread.

        Waking a thread costs more than making a small batch ready: it sleeps until half is taken, or one is ``wanted``.
        """
        began = time.perf_counter()
        worked = bool(self._held_back) and self._see_to_errands(began)
        if worked:
            now = time.perf_counter()
            self._pace.done_in_loop(now - began)
            began = now
        if not self._exhausted:
            ready = self._ready
            asleep = self._asleep_at == self._posted
            if asleep and self._brief is not None and self._loop_makes():
                if not ready.is_full():
                    self._make_here(self._brief)
                    self._pace.done_in_loop(time.perf_counter() - began)
                    worked = True
            elif wanted or (asleep and ready.is_half_empty()):
                self._post(_Sign.LOOK)
        if worked and self._waiter is not None:
            # What is waited for may have come of this.
            resolve(self._waiter, None)

    def _see_to_errands(self, began: float) -> bool:
        """Do the errands that were held back: here as far as they are brief, in their order, and else in the thread.

        Returns whether any was done here.
        """
        held_back = self._held_back
        worked = False
        if self._may_do_errands(began):
            while held_back and self._is_brief(held_back[0]):
                if worked and time.perf_counter() - began > _ERRANDS_S:
                    self._work_soon()
                    return True
                if not self._run_errand(held_back.popleft()):
                    self._post(_Sign.LEAVE)
                    return True
                worked = True
                self._errands_here += 1
        while held_back:
            self._errands_posted += 1
            self._post(held_back.popleft())
        return worked

    def _may_do_errands(self, now: float) -> bool:
        """Whether errands may be the loop's: the thread has none before them, and no piece of its hangs in the disk."""
        if (
            self._brief is None
            or not self._pace.quick
            or self._errands_posted != self._errands_by_thread
            or self._errand_error is not None
        ):
            return False
        busy_since = self._busy_since
        return busy_since is None or now - busy_since <= SLOW_S

    def _make_here(self, brief: Callable[[], T | None]) -> None:
        """Make one item, and the next a turn of the loop later, until the store is full."""
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
                self._ready.add(item)
                self._fill_soon()

    def _fill_soon(self) -> None:
        if not self._ready.is_full():
            self._work_soon()

    def _work_soon(self) -> None:
        """Look for work again once the others in the loop have had their turn."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._work_in_turn)

    def _work_in_turn(self) -> None:
        self._due = False
        self._look_for_work()

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
        while self.errands_left and not self._finished:
            self._look_for_work()
            await self._signed(lambda: not self.errands_left or self._finished)
        # A thread that sleeps has nothing in its hands, and nothing to close: its end is not waited for.
        to_close = self._at_end is not None or hasattr(self._source, "close")
        asleep = self._asleep_at == self._posted and not to_close
        self._post(_Sign.LEAVE)
        if asleep:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                while not self._finished:
                    await self._signed(lambda: self._finished)

    # -- for the thread ------------------------------------------------------------------------------------------------

    def run_errands(self) -> None:
        """Do the errands that wait. For ``source``, in the midst of an item that takes long."""
        while not self._inbox.empty():  # nobody else takes from it
            self._heed(self._inbox.get_nowait())

    def _main(self) -> None:
        try:
            self._make_items()
            while True:
                self._sleep()
        except _Left:
            pass
        finally:
            if self._at_end is not None:
                self._at_end()
            self._exhausted = self._finished = True
            self._sign()

    def _make_items(self) -> None:
        try:
            self._busy_since = began = time.perf_counter()
            for item in self._source:
                small = self._is_small(item)
                self._ready.add(item)
                del item
                self._pace.tried(time.perf_counter() - began)
                self._busy_since = None
                self._small_in_a_row = self._small_in_a_row + 1 if small else 0
                self._sign()
                self.run_errands()
                if self._ready.is_full() or self._loop_makes():
                    self._wait_for_room()
                if self._exhausted:  # by the loop
                    return
                self._busy_since = began = time.perf_counter()
        except _Left:
            raise
        except BaseException as error:  # noqa: BLE001  # handed to the consumer, which raises it
            self._source_error = error
        finally:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
            self._busy_since = None
            self._exhausted = True
            self._sign()

    def _wait_for_room(self) -> None:
        """Sleep until half of the store is taken, or until asked: each waking costs the loop more than a small item.

        While the loop makes the items, it asks for one that may take long.
        """
        self._asked = False
        while self._ready.is_full() or not self._asked:
            loop_makes = not self._ready.is_full() and self._loop_makes()
            if not loop_makes and self._ready.is_half_empty():
                return
            self._sleep(hand_over=loop_makes)

    def _loop_makes(self) -> bool:
        """Whether the next item is for the loop to make."""
        return self._small_in_a_row >= _SMALL_IN_A_ROW and self._brief is not None and self._pace.quick

    def _sleep(self, *, hand_over: bool = False) -> None:
        """Wait for a message and heed it. Nothing was posted that is not heeded: the loop may make items meanwhile.

        With ``hand_over`` the loop is told to, which without a consumer that takes or puts would not come to it.
        """
        self._asleep_at = self._heeded
        if hand_over:
            call(self._loop, self._fill_soon)
        self._heed(self._inbox.get())

    def _heed(self, message: E | _Sign) -> None:
        self._heeded += 1
        if message is _Sign.LEAVE:
            raise _Left
        if message is _Sign.LOOK:
            self._asked = True
        else:
            began = time.perf_counter()
            if not self._run_errand(message):
                raise _Left
            self._errands_by_thread += 1
            self._pace.tried(time.perf_counter() - began)
            self._sign()

    def _run_errand(self, errand: E) -> bool:
        """Do one errand; False where that was the last, because it raised."""
        if self._errand is None:
            return True
        try:
            if (result := self._errand(errand)) is not None:
                self._results.append(result)
        except BaseException as error:  # noqa: BLE001  # a bug, since expected failures are results: settled() raises it
            self._errand_error = error
            return False
        return True

    def _sign(self) -> None:
        """Resume the coroutine that waits, if one does."""
        waiter = self._waiter
        if waiter is not None:
            tell(waiter, None)


class _Sign(Enum):
    LOOK = auto()
    LEAVE = auto()


class _Left(BaseException):
    """The thread is to end; raised in it, also through a source that is in the midst of an item."""
