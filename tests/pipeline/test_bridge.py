"""The crossing between the event loop and the thread that runs ahead of it and does its errands."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirron_spool.pipeline.bridge import Ahead, _Sign
from cirron_spool.pipeline.pace import Pace
from support.background import SAFETY_NET
from support.turns import a_few_turns

pytestmark = pytest.mark.anyio


def ahead(
    source: Iterator[int],
    *,
    max_items: int = 4,
    max_weight: int = 1_000_000,
    weigh: Callable[[int], int] = lambda item: 1,
    errand: Callable[[Any], Any] | None = None,
    brief: Callable[[], int | None] | None = None,
    is_small: Callable[[int], bool] = lambda item: True,
    is_brief: Callable[[Any], bool] = lambda errand: True,
    at_end: Callable[[], None] | None = None,
) -> Ahead[int, Any, Any]:
    return Ahead(
        source,
        max_items=max_items,
        max_weight=max_weight,
        weigh=weigh,
        name="test",
        errand=errand,
        brief=brief,
        is_small=is_small,
        is_brief=is_brief,
        at_end=at_end,
    )


async def happens(event: threading.Event) -> None:
    """Wait for what a thread does, without holding the loop."""
    assert await anyio.to_thread.run_sync(event.wait, SAFETY_NET)


def ended(crossing: Ahead[Any, Any, Any]) -> bool:
    crossing._thread.join(SAFETY_NET)
    return not crossing._thread.is_alive()


def in_a_loop_of_its_own(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` so that a hang in it fails this test alone, and holds up no other."""
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - handed to the test
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SAFETY_NET)
    assert outcome, "it hangs"
    if outcome[0] is not None:
        raise outcome[0]


# -- items -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 1000])
@pytest.mark.parametrize("max_items", [1, 4, 2000])
async def test_every_item_in_order(count: int, max_items: int) -> None:
    async with ahead(iter(range(count)), max_items=max_items) as ready:
        assert [item async for item in ready] == list(range(count))
        with pytest.raises(StopAsyncIteration):  # and again when it is asked again
            await anext(ready)
    assert ended(ready)


async def test_items_are_made_in_another_thread() -> None:
    seen: list[threading.Thread] = []

    def source() -> Iterator[int]:
        seen.append(threading.current_thread())
        yield 1

    async with ahead(source()) as ready:
        assert await anext(ready) == 1
    assert seen[0] is not threading.current_thread()
    assert seen[0].name == "test"
    assert seen[0].daemon


class Source:
    """Yields `count` items; `fits` is asked before each whether one more may be made."""

    def __init__(self, count: int, fits: Callable[[int, int], bool], signal_at: int) -> None:
        self.made = 0
        self.asked_for = 0  # told by the consumer before it takes one
        self.overruns: list[int] = []
        self.signal = threading.Event()
        self._count, self._fits, self._signal_at = count, fits, signal_at

    def __iter__(self) -> Iterator[int]:
        for item in range(self._count):
            if not self._fits(self.made, self.asked_for):
                self.overruns.append(item)
            self.made += 1
            if self.made == self._signal_at:
                self.signal.set()
            yield item


async def test_until_the_first_is_taken_a_head_start_is_enough() -> None:
    source = Source(100, lambda made, taken: True, signal_at=9)
    async with Ahead[int, Any, Any](
        iter(source),
        max_items=8,
        max_weight=100,
        weigh=lambda item: 1,
        name="test",
        head_start=2,
        errand=str,
    ) as ready:
        await asleep(ready)
        assert source.made == 2
        assert await anext(ready) == 0
        await happens(source.signal)  # the store is filled, and one was taken
        await asleep(ready)
        assert source.made == 9
        assert [item async for item in ready] == list(range(1, 100))
    assert ended(ready)


@pytest.mark.parametrize("max_items", [1, 2, 7])
async def test_it_runs_ahead_to_the_bound_of_items_and_no_further(max_items: int) -> None:
    source = Source(500, lambda made, taken: made - taken < max_items, signal_at=max_items)
    async with ahead(iter(source), max_items=max_items) as ready:
        await happens(source.signal)  # by itself: nothing was asked for
        for item in range(500):
            source.asked_for += 1
            assert await anext(ready) == item
    assert source.overruns == []
    assert source.made == 500


async def test_it_runs_ahead_to_the_bound_of_weight_and_one_item_further() -> None:
    def fits(made: int, taken: int) -> bool:
        return (made - taken) * 4 < 10  # 4, 8, and the one that goes beyond 10

    source = Source(500, fits, signal_at=3)
    async with ahead(iter(source), max_items=1000, max_weight=10, weigh=lambda item: 4) as ready:
        await happens(source.signal)
        for item in range(500):
            source.asked_for += 1
            assert await anext(ready) == item
    assert source.overruns == []


async def test_an_item_heavier_than_the_bound_passes() -> None:
    async with ahead(iter([5, 1, 7]), max_weight=2, weigh=lambda item: item) as ready:
        assert [item async for item in ready] == [5, 1, 7]


async def test_items_without_weight_are_bound_by_their_number_only() -> None:
    async with ahead(iter(range(100)), max_items=3, max_weight=1, weigh=lambda item: 0) as ready:
        assert [item async for item in ready] == list(range(100))


async def test_an_exception_of_the_source_stands_in_its_place() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("disk")

    async with ahead(source()) as ready:
        assert await anext(ready) == 1
        assert await anext(ready) == 2
        for _ in range(2):
            with pytest.raises(OSError, match="disk"):
                await anext(ready)
    assert ended(ready)


async def test_an_exception_that_nobody_came_to_is_none() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    async with ahead(source()) as ready:
        assert await anext(ready) == 1
    assert ended(ready)


async def test_an_exception_in_the_body_ends_the_thread_too() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with ahead(iter(range(100))) as ready:
            raise KeyError("mine")
    assert ended(ready)


@pytest.mark.parametrize("taken", [0, 1, 4])
async def test_leaving_midway_closes_the_source_in_its_thread(taken: int) -> None:
    closed_by: list[str] = []
    full = threading.Event()

    def source() -> Iterator[int]:
        try:
            for item in range(1000):
                if item == 3:
                    full.set()
                yield item
        finally:
            closed_by.append(threading.current_thread().name)

    async with ahead(source(), max_items=4) as ready:
        for item in range(taken):
            assert await anext(ready) == item
        await happens(full)
    assert closed_by == ["test"]
    assert ended(ready)


async def test_leaving_before_anything_happened() -> None:
    async with ahead(iter(range(10))) as ready:
        pass
    assert ended(ready)


async def test_a_source_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cirron_spool.pipeline.bridge._LEAVE_S", 0.01)  # what a dead network mount is given
    mount = threading.Event()

    def source() -> Iterator[int]:
        mount.wait()
        yield 1

    async with ahead(source()) as ready:
        pass
    assert ready._thread.is_alive()
    mount.set()
    assert ended(ready)


async def test_a_consumer_that_is_cancelled_while_it_waits_loses_nothing() -> None:
    gate = threading.Event()

    def source() -> Iterator[int]:
        gate.wait()
        yield from range(5)

    async with ahead(source()) as ready:
        for _ in range(3):
            waiting = asyncio.ensure_future(anext(ready))
            await a_few_turns()
            assert not waiting.done()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        gate.set()
        assert [item async for item in ready] == list(range(5))


async def test_items_are_not_kept_alive() -> None:
    class Item:
        pass

    made: list[weakref.ref[Item]] = []

    def source() -> Iterator[Item]:
        for _ in range(3):
            item = Item()
            made.append(weakref.ref(item))
            yield item
            del item

    crossing: Ahead[Item, None, None] = Ahead(
        source(), max_items=10, max_weight=10, weigh=lambda item: 1, name="test"
    )
    async with crossing as ready:
        taken = [item async for item in ready]
        assert len(taken) == 3
        taken.clear()
        gc.collect()
        assert [reference() for reference in made] == [None] * 3


def test_a_loop_that_is_closed_under_it_does_not_hang_the_thread() -> None:
    asked, gate = threading.Event(), threading.Event()
    made: list[int] = []
    left: list[Ahead[int, Any, Any]] = []

    def source() -> Iterator[int]:
        for item in range(3):
            asked.set()
            gate.wait()
            made.append(item)
            yield item

    async def abandon() -> None:
        crossing = ahead(source(), max_items=10)
        left.append(await crossing.__aenter__())
        crossing._waiter = asyncio.get_running_loop().create_future()  # as if somebody still waited
        await happens(asked)

    asyncio.run(abandon())
    gate.set()
    left[0]._inbox.put(_Sign.LEAVE)
    assert ended(left[0])
    assert made == [0]


# -- errands -----------------------------------------------------------------------------------------------------------


async def test_errands_are_done_in_order_in_the_thread_and_their_results_taken_once() -> None:
    threads: set[str] = set()

    def errand(number: int) -> int:
        threads.add(threading.current_thread().name)
        return number * 10

    async with ahead(iter(range(100)), max_items=2, errand=errand) as ready:
        found: list[int] = []
        async for item in ready:
            ready.put(item)
            found += ready.results()
        await ready.settled()
        found += ready.results()
        assert list(ready.results()) == []
    assert found == [item * 10 for item in range(100)]
    assert threads == {"test"}


async def test_errands_are_done_with_nobody_taking_items_and_after_the_last() -> None:
    async with ahead(iter(range(2)), max_items=1, errand=str) as ready:
        ready.put(1)
        await ready.settled()
        assert list(ready.results()) == ["1"]
        assert [item async for item in ready] == [0, 1]
        ready.put(2)
        await ready.settled()
        assert list(ready.results()) == ["2"]


async def test_settled_waits_until_at_most_so_many_are_not_done() -> None:
    gates = [threading.Event() for _ in range(3)]
    done: list[int] = []

    def errand(number: int) -> int:
        gates[number].wait()
        done.append(number)
        return number

    async with ahead(iter(()), errand=errand) as ready:
        await ready.settled()  # nothing was put
        for number in range(3):
            ready.put(number)
        await ready.settled(3)
        for left in (2, 1, 0):
            waiting = asyncio.ensure_future(ready.settled(left))
            await a_few_turns()
            assert not waiting.done()
            gates[2 - left].set()
            await waiting
            assert len(done) == 3 - left
            assert list(ready.results()) == [2 - left]


async def test_put_never_waits() -> None:
    gate = threading.Event()

    def errand(number: int) -> int | None:
        gate.wait()
        return number if number % 2 else None  # which is nothing to tell of

    async with ahead(iter(()), errand=errand) as ready:
        for number in range(1000):
            ready.put(number)
        gate.set()
        await ready.settled()
        assert list(ready.results()) == list(range(1, 1000, 2))


class Bug(Exception):
    """Raised where nothing is expected to be."""


@pytest.mark.parametrize("ends_by", ["leaving", "an error", "a bug in the source", "a bug in an errand"])
async def test_the_end_comes_last_and_is_waited_for(ends_by: str) -> None:
    done: list[object] = []

    def source() -> Iterator[int]:
        yield from range(3)
        if ends_by == "a bug in the source":
            raise Bug

    def errand(number: int) -> None:
        done.append(number)
        if ends_by == "a bug in an errand" and number == 2:
            raise Bug

    def at_end() -> None:
        done.append(threading.current_thread().name)

    # A generator is closed, which is waited for, too; an iterator of a range has nothing to close.
    items = iter(range(3)) if ends_by == "leaving" else source()
    with contextlib.nullcontext() if ends_by == "leaving" else pytest.raises(Bug):
        async with ahead(items, max_items=2, errand=errand, at_end=at_end) as ready:
            async for item in ready:
                ready.put(item)
            if ends_by != "a bug in an errand":  # which ends the thread
                await asleep(ready)
                assert "test" not in done
            if ends_by == "an error":
                raise Bug
    assert done == [0, 1, 2, "test"]
    assert ended(ready)


async def test_a_thread_that_is_left_behind_is_waited_for_so_long_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cirron_spool.pipeline.bridge._LEAVE_S", 0.01)
    gate = threading.Event()
    async with asyncio.timeout(SAFETY_NET):
        async with ahead(iter(()), at_end=lambda: happened(gate)) as ready:
            pass
    assert not ready._finished
    gate.set()
    assert ended(ready)


def happened(event: threading.Event) -> None:
    assert event.wait(SAFETY_NET)


async def test_leaving_drains_what_was_put() -> None:
    gate = threading.Event()
    done: list[int] = []

    def errand(number: int) -> None:
        gate.wait()
        done.append(number)

    async with ahead(iter(range(1000)), max_items=2, errand=errand) as ready:
        await anext(ready)
        for number in range(50):
            ready.put(number)
        asyncio.get_running_loop().call_soon(gate.set)
    assert done == list(range(50))
    assert ready.errands_left == 0
    assert ended(ready)


async def test_leaving_drains_even_when_it_is_cancelled_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "cirron_spool.pipeline.bridge._LEAVE_S", 0
    )  # a limit for what nobody waits for, not for errands
    gate = threading.Event()
    entered = asyncio.Event()
    done: list[int] = []
    crossings: list[Ahead[int, Any, Any]] = []

    def errand(number: int) -> None:
        gate.wait()
        done.append(number)

    async def work() -> None:
        async with ahead(iter(range(10)), errand=errand) as ready:
            crossings.append(ready)
            ready.put(1)
            ready.put(2)
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await entered.wait()
    for _ in range(3):
        task.cancel()
        await a_few_turns()
        assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1, 2]
    assert ended(crossings[0])


async def test_a_source_in_the_midst_of_an_item_can_let_errands_by() -> None:
    put, done = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 0
        put.wait()
        ready.run_errands()
        done.set()
        yield 1

    async with ahead(source(), errand=str) as ready:
        assert await anext(ready) == 0
        ready.put(7)
        ready.meanwhile()
        put.set()
        await happens(done)
        assert list(ready.results()) == ["7"]
        assert await anext(ready) == 1


async def test_a_source_in_the_midst_of_an_item_is_left_where_it_lets_errands_by() -> None:
    began, put = threading.Event(), threading.Event()
    unwound: list[bool] = []

    def source() -> Iterator[int]:
        try:
            began.set()
            while True:
                put.wait()
                ready.run_errands()
        finally:
            unwound.append(True)
        yield 0

    async with ahead(source(), errand=str) as ready:
        await happens(began)
        put.set()
    assert ended(ready)
    assert unwound == [True]


async def test_a_waiter_for_errands_that_is_cancelled_loses_none() -> None:
    gate = threading.Event()

    def errand(number: int) -> int:
        gate.wait()
        return number

    async with ahead(iter(()), errand=errand) as ready:
        ready.put(1)
        waiting = asyncio.ensure_future(ready.settled())
        await a_few_turns()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.set()
        await ready.settled()
        assert list(ready.results()) == [1]


@pytest.mark.parametrize("items", [0, 1, 2, 3, 50], ids=lambda count: f"{count} items")
def test_an_exception_in_an_errand_is_raised_by_settled(items: int) -> None:
    """Wherever the thread does the errand: idle, between two items, or waiting for room."""

    def errand(number: int) -> int:
        if number == 1:
            raise ZeroDivisionError("a bug")
        return number

    async def main() -> None:
        async with ahead(iter(range(items)), max_items=2, errand=errand) as ready:
            for number in range(3):
                ready.put(number)
            with pytest.raises(ZeroDivisionError, match="a bug"):
                await ready.settled()
            assert list(ready.results()) == [0]

    in_a_loop_of_its_own(main)


def test_an_exception_in_an_errand_in_the_midst_of_an_item_is_raised_by_settled() -> None:
    put = threading.Event()

    async def main() -> None:
        def source() -> Iterator[int]:
            yield 0
            put.wait()
            ready.run_errands()
            yield 1

        def errand(number: int) -> None:
            raise ZeroDivisionError("a bug")

        async with ahead(source(), errand=errand) as ready:
            assert await anext(ready) == 0
            ready.put(1)
            await a_few_turns()
            put.set()
            with pytest.raises(ZeroDivisionError, match="a bug"):
                await ready.settled()

    in_a_loop_of_its_own(main)


@pytest.mark.parametrize("items", [0, 50])
def test_an_exception_in_an_errand_that_nobody_waited_for_is_raised_on_leaving(items: int) -> None:
    def errand(number: int) -> None:
        raise ZeroDivisionError("a bug")

    async def main() -> None:
        with pytest.raises(ZeroDivisionError, match="a bug"):
            async with ahead(iter(range(items)), max_items=2, errand=errand) as ready:
                ready.put(1)

    in_a_loop_of_its_own(main)


# -- work in the loop --------------------------------------------------------------------------------------------------


class Clock:
    """Stands for the time module in the bridge: a piece of work takes `piece_s` seconds, whatever is going on."""

    def __init__(self, piece_s: float) -> None:
        self.piece_s = piece_s
        self._now = 0.0

    def perf_counter(self) -> float:
        self._now += self.piece_s  # asked once before and once after a piece
        return self._now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(0.0)
    monkeypatch.setattr("cirron_spool.pipeline.bridge.time", clock)
    return clock


class Steered(Pace):
    """Judges nothing by its seconds: what is quick is the test's to say, so that the machine's load is no matter."""

    def __init__(self, quick: Iterator[bool]) -> None:
        self._answers = quick

    @property
    def quick(self) -> bool:
        return next(self._answers)

    def tried(self, seconds: float) -> None:
        pass

    def done_in_loop(self, seconds: float) -> None:
        pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first piece on, the disk is quick; and after one small item another is expected."""
    monkeypatch.setattr("cirron_spool.pipeline.bridge._SMALL_IN_A_ROW", 1)
    monkeypatch.setattr("cirron_spool.pipeline.bridge.Pace", lambda: Steered(itertools.repeat(True)))


class Works(Iterator[int]):
    """The items from 0 to below `count`; `brief` leaves those in `long` to the thread. Notes who made what."""

    def __init__(self, count: int, long: Iterable[int] = (), fails_at: int | None = None) -> None:
        self.made: list[int] = []
        self.made_in_loop: list[int] = []
        self.refused: list[int] = []
        self.overruns: list[int] = []
        self.asked_for = 0  # told by the consumer before it takes one
        self.fits: Callable[[int, int], bool] = lambda made, taken: True
        self._count, self._long, self._fails_at = count, set(long), fails_at
        self._loop_thread = threading.get_ident()

    def __next__(self) -> int:
        item = len(self.made)
        if item == self._count:
            raise StopIteration
        if not self.fits(item, self.asked_for):
            self.overruns.append(item)
        if item == self._fails_at:
            raise OSError("disk")
        self.made.append(item)
        if threading.get_ident() == self._loop_thread:
            self.made_in_loop.append(item)
        return item

    def brief(self) -> int | None:
        assert threading.get_ident() == self._loop_thread
        if len(self.made) in self._long:
            self.refused.append(len(self.made))
            return None
        return next(self)


class Stalls(Works):
    """Stalls in its second item until `gate` is opened."""

    def __init__(self, count: int, long: Iterable[int]) -> None:
        super().__init__(count, long)
        self.began, self.gate = threading.Event(), threading.Event()

    def __next__(self) -> int:
        if self.made:
            self.began.set()
            assert self.gate.wait(SAFETY_NET)
        return super().__next__()


async def asleep(crossing: Ahead[Any, Any, Any]) -> None:
    """Wait until the thread has heeded all that was posted, and sleeps: only then may the loop work."""
    async with asyncio.timeout(SAFETY_NET):
        while crossing._asleep_at != crossing._posted:
            await anyio.lowlevel.checkpoint()


async def take_and_put_back(crossing: Ahead[int, Any, Any], count: int) -> None:
    """Take `count` items, each put back as an errand and waited for, with a thread that sleeps before each."""
    for item in range(count):
        await asleep(crossing)
        assert await anext(crossing) == item
        crossing.put(item)
        await crossing.settled()


@pytest.mark.usefixtures("clock")
async def test_once_the_work_proved_quick_it_is_done_in_the_loop() -> None:
    works = Works(100)
    async with ahead(works, errand=lambda number: threading.get_ident(), brief=works.brief) as ready:
        await asleep(ready)
        assert works.made == [0, 1, 2, 3]  # the thread filled up
        for item in range(100):
            assert await anext(ready) == item
            ready.put(item)
            await ready.settled()
        with pytest.raises(StopAsyncIteration):
            await anext(ready)
        assert ready.results() == [threading.get_ident()] * 100
    assert works.made_in_loop == list(range(4, 100))
    assert ended(ready)


@pytest.mark.usefixtures("clock")
async def test_an_errand_that_takes_long_is_left_to_the_thread() -> None:
    works = Works(100)
    done_by: dict[int, int] = {}

    def errand(number: int) -> None:
        done_by[number] = threading.get_ident()

    async with ahead(
        works, errand=errand, brief=works.brief, is_brief=lambda number: number % 2 == 0
    ) as ready:
        await take_and_put_back(ready, 100)
    assert list(done_by) == list(range(100))
    assert {done_by[number] for number in range(1, 100, 2)} == {ready._thread.ident}
    assert {done_by[number] for number in range(0, 100, 2)} == {threading.get_ident()}


async def test_work_that_is_not_quick_stays_with_the_thread(clock: Clock) -> None:
    clock.piece_s = 1.0
    works = Works(100)
    done_by: set[int] = set()
    async with ahead(
        works, errand=lambda number: done_by.add(threading.get_ident()), brief=works.brief
    ) as ready:
        await take_and_put_back(ready, 100)
    assert works.made == list(range(100))
    assert works.made_in_loop == works.refused == []
    assert done_by == {ready._thread.ident}


async def test_work_that_turns_out_slow_in_the_loop_goes_back_to_the_thread(clock: Clock) -> None:
    works = Works(100)
    async with ahead(works, max_items=4, brief=works.brief) as ready:
        await asleep(ready)
        clock.piece_s = 1.0
        for item in range(100):
            await asleep(ready)
            assert await anext(ready) == item
            await a_few_turns()
    assert works.made_in_loop == [4, 5]  # one is forgiven, two are not
    assert works.made == list(range(100))


async def test_an_errand_and_an_item_of_one_moment_are_two_slow_pieces(clock: Clock) -> None:
    works = Works(20)
    done_by: list[int] = []
    async with ahead(
        works, max_items=4, errand=lambda number: done_by.append(threading.get_ident()), brief=works.brief
    ) as ready:
        await asleep(ready)
        clock.piece_s = 1.0
        for item in range(20):
            await asleep(ready)
            assert await anext(ready) == item
            ready.put(item)
            ready.meanwhile()
            await ready.settled()
    assert works.made_in_loop == [4]
    assert done_by == [threading.get_ident()] + [ready._thread.ident] * 19


@pytest.mark.usefixtures("quick")
async def test_without_brief_nothing_is_done_in_the_loop() -> None:
    works = Works(100)
    done_by: set[int] = set()
    async with ahead(works, errand=lambda number: done_by.add(threading.get_ident())) as ready:
        await take_and_put_back(ready, 100)
    assert works.made == list(range(100))
    assert works.made_in_loop == []
    assert done_by == {ready._thread.ident}


@pytest.mark.usefixtures("quick")
async def test_what_may_take_long_is_left_to_the_thread_in_its_place() -> None:
    long = [5, 20, 39]  # far from each other: once awake, the thread makes as many as it has room for
    works = Works(40, long)
    taken: list[int] = []
    async with ahead(works, brief=works.brief) as ready:
        await asleep(ready)
        async for item in ready:
            taken.append(item)
            await a_few_turns()
            await asleep(ready)
    assert taken == works.made == list(range(40))
    assert set(long) <= set(works.refused)
    assert not set(long) & set(works.made_in_loop)
    assert {4, 38} <= set(works.made_in_loop)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("count", [1, 2, 3, 7])
async def test_the_end_is_found_in_the_loop(count: int) -> None:
    works = Works(count)
    async with ahead(works, max_items=1, brief=works.brief) as ready:
        await asleep(ready)
        assert works.made == [0]  # full: the end is beyond
        assert [item async for item in ready] == list(range(count))
        assert works.made_in_loop == list(range(1, count))
        with pytest.raises(StopAsyncIteration):
            await anext(ready)
    assert ended(ready)


@pytest.mark.usefixtures("quick")
async def test_an_exception_in_the_loop_stands_in_its_place() -> None:
    works = Works(10, fails_at=6)
    async with ahead(works, brief=works.brief, errand=str) as ready:
        await asleep(ready)
        assert [await anext(ready) for _ in range(6)] == list(range(6))
        assert works.made_in_loop == [1, 2, 3, 4, 5]
        for _ in range(2):
            with pytest.raises(OSError, match="disk"):
                await anext(ready)
        ready.put(7)
        await ready.settled()
        assert list(ready.results()) == ["7"]
    assert ended(ready)


@pytest.mark.usefixtures("quick")
async def test_an_exception_in_the_loop_that_nobody_came_to_is_none() -> None:
    works = Works(10, fails_at=3)
    async with ahead(works, max_items=2, brief=works.brief) as ready:
        await asleep(ready)
        assert await anext(ready) == 0
        await a_few_turns()
        assert await anext(ready) == 1
        await a_few_turns()
        assert isinstance(ready._source_error, OSError)
        assert works.made_in_loop == [1, 2]
    assert ended(ready)


async def test_nothing_comes_behind_an_exception_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when the work turns out slow then, and the thread is woken for an errand."""
    answers = [True]
    monkeypatch.setattr(
        "cirron_spool.pipeline.bridge.Pace", lambda: Steered(answers[-1] for _ in itertools.repeat(None))
    )
    works = Works(10, fails_at=2)
    async with ahead(works, max_items=2, brief=works.brief, errand=str) as ready:
        await asleep(ready)
        assert [await anext(ready) for _ in range(2)] == [0, 1]
        with pytest.raises(OSError, match="disk"):
            await anext(ready)
        works._fails_at = None  # a source that would go on
        answers.append(False)
        ready.put(7)
        await ready.settled()
        await asleep(ready)
        with pytest.raises(OSError, match="disk"):
            await anext(ready)
    assert works.made == [0, 1]
    assert ended(ready)


@pytest.mark.parametrize("waited_for", [True, False], ids=["settled", "left"])
def test_an_exception_of_an_errand_in_the_loop(waited_for: bool) -> None:
    done_by: list[tuple[int, int]] = []

    def errand(number: int) -> int:
        done_by.append((number, threading.get_ident()))
        if number == 1:
            raise ZeroDivisionError("a bug")
        return number

    async def work() -> None:
        works = Works(50)
        async with ahead(works, max_items=2, brief=works.brief, errand=errand) as ready:
            await asleep(ready)
            for number in range(3):
                ready.put(number)
            if waited_for:
                with pytest.raises(ZeroDivisionError, match="a bug"):
                    await ready.settled()
                assert list(ready.results()) == [0]
                assert ended(ready)  # by itself
        assert ended(ready)

    async def main() -> None:
        if waited_for:
            await work()
        else:
            with pytest.raises(ZeroDivisionError, match="a bug"):
                await work()
        assert done_by == [(0, threading.get_ident()), (1, threading.get_ident())]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cirron_spool.pipeline.bridge.Pace", lambda: Steered(itertools.repeat(True)))
        in_a_loop_of_its_own(main)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("max_items", [1, 2, 7])
async def test_the_loop_keeps_to_the_bound_of_items(max_items: int) -> None:
    works = Works(200)
    works.fits = lambda made, taken: made - taken < max_items
    async with ahead(works, max_items=max_items, brief=works.brief, errand=str) as ready:
        await asleep(ready)
        for item in range(200):
            works.asked_for += 1
            assert await anext(ready) == item
            for number in range(3):  # each is an occasion for one more item
                ready.put(number)
                ready.meanwhile()
                await a_few_turns()
        assert len(list(ready.results())) == 600
    assert works.overruns == []
    assert works.made_in_loop == list(range(1, 200))


@pytest.mark.usefixtures("quick")
async def test_the_loop_fills_the_store_an_item_a_turn() -> None:
    works = Works(200)
    async with ahead(works, max_items=50, brief=works.brief) as ready:
        await asleep(ready)
        assert works.made == [0]  # quick as it is, the thread leaves the rest to the loop
        async with asyncio.timeout(SAFETY_NET):
            while len(works.made) < 50:  # though nobody takes any
                made = len(works.made)
                await anyio.lowlevel.checkpoint()
                assert len(works.made) <= made + 1
        await a_few_turns()
        assert works.made_in_loop == list(range(1, 50))
    assert ended(ready)


@pytest.mark.usefixtures("quick")
async def test_the_loop_works_in_the_moments_that_it_is_told_of() -> None:
    works = Works(200)
    done: list[int] = []
    async with ahead(works, max_items=2, brief=works.brief, errand=done.append) as ready:
        await asleep(ready)
        await a_few_turns()
        assert works.made == [0, 1]
        assert await anext(ready) == 0
        ready.put(7)
        assert (done, works.made) == ([], [0, 1])  # not while the consumer has other things to do
        ready.meanwhile()
        assert (done, works.made) == ([7], [0, 1, 2])
    assert ended(ready)


@pytest.mark.usefixtures("quick")
async def test_where_no_moment_comes_the_work_is_done_all_the_same() -> None:
    works = Works(3)
    happened = {"errand": asyncio.Event(), "item": asyncio.Event()}

    def brief() -> int | None:
        if len(works.made) == 2:
            happened["item"].set()
        return works.brief()

    async with ahead(
        works, max_items=2, brief=brief, errand=lambda number: happened["errand"].set()
    ) as ready:
        await asleep(ready)
        await a_few_turns()
        assert await anext(ready) == 0
        ready.put(7)
        async with asyncio.timeout(SAFETY_NET):
            for event in happened.values():
                await event.wait()
            while ready._later is not None:
                await anyio.lowlevel.checkpoint()
            happened["errand"].clear()
            ready.put(8)  # though nothing is taken any more
            await happened["errand"].wait()


@pytest.mark.usefixtures("quick", "clock")
async def test_the_loop_does_errands_beside_a_thread_that_makes_an_item() -> None:
    done_by: list[int] = []
    works = Stalls(2, long=[1])
    async with ahead(
        works, brief=works.brief, errand=lambda number: done_by.append(threading.get_ident())
    ) as ready:
        assert await anext(ready) == 0
        await happens(works.began)
        ready.put(0)
        ready.meanwhile()
        assert done_by == [threading.get_ident()]
        works.gate.set()
        assert await anext(ready) == 1
    assert ended(ready)


@pytest.mark.usefixtures("quick")
async def test_the_loop_leaves_errands_alone_while_the_disk_holds_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mount that hangs under the thread would hang the loop, too."""
    monkeypatch.setattr("cirron_spool.pipeline.bridge.SLOW_S", 0.0)  # any piece of work hangs
    done_by: list[int] = []
    works = Stalls(2, long=[1])
    async with ahead(
        works, brief=works.brief, errand=lambda number: done_by.append(threading.get_ident())
    ) as ready:
        assert await anext(ready) == 0
        await happens(works.began)
        ready.put(0)
        ready.meanwhile()
        assert done_by == []
        works.gate.set()
        await ready.settled()
    assert done_by == [ready._thread.ident]


@pytest.mark.usefixtures("quick")
async def test_a_thread_that_has_made_the_last_item_holds_no_errand_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cirron_spool.pipeline.bridge.SLOW_S", 0.0)  # any piece of work hangs
    works = Works(3)
    done_by: list[int] = []
    async with ahead(
        works,
        brief=works.brief,
        is_small=lambda item: False,
        errand=lambda number: done_by.append(threading.get_ident()),
    ) as ready:
        assert [item async for item in ready] == [0, 1, 2]
        await asleep(ready)
        ready.put(0)
        await ready.settled()
    assert done_by == [threading.get_ident()]
    assert ended(ready)


async def test_many_errands_leave_the_others_in_the_loop_their_turn(clock: Clock) -> None:
    works = Works(8)
    async with ahead(works, brief=works.brief, errand=str, max_items=8) as ready:
        await asleep(ready)
        await a_few_turns()
        clock.piece_s = 0.000_4  # three of them are more than a millisecond
        for number in range(7):
            ready.put(number)
        ready.meanwhile()
        left = ready.errands_left
        assert 0 < left < 7
        async with asyncio.timeout(SAFETY_NET):
            while ready.errands_left:
                await anyio.lowlevel.checkpoint()
                assert ready.errands_left >= left - 3  # some in each turn
                left = ready.errands_left
        assert list(ready.results()) == [str(number) for number in range(7)]


async def test_a_look_that_finds_a_large_item_counts_when_it_is_slow(clock: Clock) -> None:
    works = Works(40, long=range(4, 40))
    async with ahead(works, max_items=4, brief=works.brief) as ready:
        await asleep(ready)
        clock.piece_s = 1.0
        for item in range(4):
            assert await anext(ready) == item
        await a_few_turns()
        await asleep(ready)
        assert works.refused == [4]
        assert ready._pace._slowness


async def test_an_exception_in_an_errand_is_raised_by_results() -> None:
    async with ahead(iter(range(1)), errand=lambda number: 1 // number) as ready:
        ready.put(1)
        ready.put(0)
        ready.meanwhile()
        found: list[int] = []
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(SAFETY_NET):
                while True:
                    found.extend(ready.results())
                    await anyio.lowlevel.checkpoint()
        assert list(ready.results()) == []
    assert ended(ready)


@pytest.mark.usefixtures("clock")
async def test_large_items_in_a_row_are_the_threads_until_small_ones_come_again() -> None:
    small = {*range(20), *range(60, 100)}
    works = Works(100, long=set(range(100)) - small)
    taken: list[int] = []
    async with ahead(works, max_items=8, brief=works.brief, is_small=small.__contains__, errand=str) as ready:
        async for item in ready:
            taken.append(item)
            ready.put(item)
            ready.meanwhile()
            await a_few_turns()
            await asleep(ready)
    assert taken == works.made == list(range(100))
    assert works.refused == [20]  # the loop finds it out once, and not for each
    assert set(range(4, 20)) & set(works.made_in_loop)
    assert set(works.made_in_loop) & set(range(20, 64)) == set()  # it takes four small ones in a row
    assert set(range(80, 100)) <= set(works.made_in_loop)


async def test_a_store_that_is_emptied_while_the_thread_goes_to_sleep_is_filled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crossing = ahead(iter(range(8)), max_items=4)
    is_half_empty = crossing._ready.is_half_empty
    decided, gate = threading.Event(), threading.Event()

    def hesitates() -> bool:
        answer = is_half_empty()
        if threading.current_thread() is crossing._thread and not decided.is_set():
            decided.set()
            gate.wait()
        return answer

    monkeypatch.setattr(crossing._ready, "is_half_empty", hesitates)
    async with crossing as ready:
        await happens(decided)  # to sleep, since the store is full
        assert [await anext(ready) for _ in range(4)] == [0, 1, 2, 3]
        await a_few_turns()
        fifth = asyncio.ensure_future(anext(ready))
        await a_few_turns()
        gate.set()
        async with asyncio.timeout(SAFETY_NET):
            assert await fifth == 4
    assert ended(ready)


async def test_without_errands_the_thread_is_asked_for_more_at_once() -> None:
    """A body that is streamed has nobody who tells of moments."""
    source = Source(100, lambda made, taken: True, signal_at=6)
    async with ahead(iter(source), max_items=4) as ready:
        await asleep(ready)
        assert source.made == 4
        for item in range(2):
            assert await anext(ready) == item
        assert ready._later is None
        await happens(source.signal)


@pytest.mark.usefixtures("quick")
async def test_the_loop_keeps_to_the_bound_of_weight_and_one_item_further() -> None:
    works = Works(200)
    works.fits = lambda made, taken: (made - taken) * 4 < 10  # 4, 8, and the one that goes beyond 10
    async with ahead(
        works, max_items=1000, max_weight=10, weigh=lambda item: 4, brief=works.brief, errand=str
    ) as ready:
        await asleep(ready)
        for item in range(200):
            works.asked_for += 1
            assert await anext(ready) == item
            for number in range(3):
                ready.put(number)
                ready.meanwhile()
                await a_few_turns()
    assert works.overruns == []
    assert works.made_in_loop == list(range(1, 200))


@pytest.mark.usefixtures("quick")
async def test_leaving_does_in_the_loop_what_was_put() -> None:
    works = Works(100)
    done_by: list[tuple[int, int]] = []
    async with ahead(
        works,
        brief=works.brief,
        errand=lambda number: done_by.append((number, threading.get_ident())),
    ) as ready:
        await asleep(ready)
        for number in range(50):
            ready.put(number)
    assert done_by == [(number, threading.get_ident()) for number in range(50)]
    assert ended(ready)


@given(
    count=st.integers(0, 30),
    max_items=st.integers(1, 5),
    max_weight=st.integers(1, 6),
    weights=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    long=st.sets(st.integers(0, 29)),
    errands=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    turns=st.lists(st.sampled_from([0, 0, 1, 3, -1]), min_size=1, max_size=8),  # -1: until the thread sleeps
    at_most=st.sampled_from([None, 0, 1, 4]),
    paces=st.lists(st.booleans(), min_size=1, max_size=9),
)
def test_who_ever_does_the_work_it_is_done_once_and_in_order(
    count: int,
    max_items: int,
    max_weight: int,
    weights: list[int],
    long: set[int],
    errands: list[int],
    turns: list[int],
    at_most: int | None,
    paces: list[bool],
) -> None:
    def weigh(item: int) -> int:
        return weights[item % len(weights)]

    def fits(made: int, taken: int) -> bool:
        waiting = range(taken, made)
        return len(waiting) < max_items and sum(map(weigh, waiting)) < max_weight

    async def main() -> None:
        works = Works(count, long)
        works.fits = fits
        put, done, results, taken = itertools.count(), list[int](), list[int](), list[int]()

        def errand(number: int) -> int:
            done.append(number)
            return number

        async with ahead(
            works, max_items=max_items, max_weight=max_weight, weigh=weigh, errand=errand, brief=works.brief
        ) as ready:
            while True:
                works.asked_for = len(taken) + 1
                try:
                    taken.append(await anext(ready))
                except StopAsyncIteration:
                    break
                for _ in range(errands[len(taken) % len(errands)]):
                    ready.put(next(put))
                if at_most is not None:
                    await ready.settled(at_most)
                wait = turns[len(taken) % len(turns)]
                if wait < 0:
                    await asleep(ready)
                for _ in range(wait):
                    await asyncio.sleep(0)
                results += ready.results()
        results += ready.results()
        assert taken == works.made == list(range(count))
        assert done == results == list(range(next(put)))
        assert works.overruns == []
        assert not long & set(works.made_in_loop)
        assert ended(ready)

    with pytest.MonkeyPatch.context() as patch:
        # Who has the next piece changes at random, as it does on a disk that is quick now and slow then.
        patch.setattr("cirron_spool.pipeline.bridge.Pace", lambda: Steered(itertools.cycle(paces)))
        in_a_loop_of_its_own(main)
