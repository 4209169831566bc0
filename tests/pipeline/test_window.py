"""The batches in flight: started in order, concluded strictly in order, and let go of when a flush ends.

The deliveries are ours to end, so that each order of events can be had; the spool, the conclusions and the deletes
are real. ``pipeline/test_in_flight.py`` has whole flushes with several in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from cirron_spool.errors import EXIT_TEMPFAIL
from cirron_spool.events import Failed, FlushEvent, Uploaded, Warned
from cirron_spool.pipeline.batch import Cause, Prepared, Unsendable
from cirron_spool.pipeline.delivery import Delivery
from cirron_spool.pipeline.disk_worker import DiskWorker
from cirron_spool.pipeline.inline_worker import InlineWorker
from cirron_spool.pipeline.outcome import Outcome
from cirron_spool.pipeline.tally import Tally
from cirron_spool.pipeline.thread_worker import ThreadWorker
from cirron_spool.pipeline.window import Window
from cirron_spool.pipeline.window_size import FixedSize
from cirron_spool.protocol.verdict import Action, Verdict
from cirron_spool.spool.directory import SpoolDirectory
from support.monitor import DeleteWatch, watch_deletes
from support.settling import Flush, outcome
from support.turns import a_few_turns

pytestmark = pytest.mark.anyio

NAMES = [f"{number:020d}-0a.json" for number in range(5)]
ACKNOWLEDGED = Verdict(Action.ACKNOWLEDGED, 202, exit_code=0)
RETRY = Verdict(Action.RETRY, 503, "Try again.", exit_code=EXIT_TEMPFAIL)
STOP = Verdict(Action.STOP, 404, "The route is not there.")


@pytest.fixture(autouse=True)
def deletes() -> Iterator[DeleteWatch]:
    """Nothing is uploaded here: what is acknowledged is what a test says."""
    with watch_deletes(acknowledged=lambda name: True) as watch:
        yield watch


class Deliveries:
    """Stands for the network: a delivery comes to what a test says, when it says so."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.stopping = False
        self.outcomes: dict[str, asyncio.Future[Outcome]] = {
            name: asyncio.get_running_loop().create_future() for name in NAMES
        }

    async def deliver(self, batch: Prepared) -> Outcome:
        self.started.append(batch.name)
        try:
            return await self.outcomes[batch.name]
        except asyncio.CancelledError:
            self.cancelled.append(batch.name)
            raise


class Flight(Flush):
    """A flush's window, over a spool of five batches."""

    window: Window
    deliveries: Deliveries
    disk: DiskWorker

    def begin(self, *items: int | Unsendable) -> None:
        """Begin batches by their numbers, and those that cannot be sent."""
        for item in items:
            self.window.begin(item if isinstance(item, Unsendable) else self.prepared(NAMES[item]))

    async def take(self, number: int, *, finish: bool = False) -> None:
        """Take a batch as a flush does, by its number; and the last, as it does at its end."""
        await self.window.add(self.prepared(NAMES[number]))
        if finish:
            await self.window.finish()

    async def ends(self, **outcomes: Verdict | OSError) -> None:
        """Let deliveries end, by their numbers: ``_2=ACKNOWLEDGED``."""
        for name, result in outcomes.items():
            self.deliveries.outcomes[NAMES[int(name[1:])]].set_result(outcome(result))
        await a_few_turns()

    async def reported(self) -> list[type[FlushEvent]]:
        """The kinds of all events, once the acknowledged batches are deleted."""
        await self.disk.drain()
        return [type(event) for event in self.events]

    @property
    def gone(self) -> list[int]:
        """The numbers of the batches that were deleted, in order."""
        return [NAMES.index(name) for name in self.handed_over]


Fly = Callable[..., contextlib.AbstractAsyncContextManager[Flight]]


@pytest.fixture(params=[ThreadWorker, InlineWorker])
def fly(tmp_path: Path, request: pytest.FixtureRequest) -> Fly:
    """Opens a window of ``most`` batches; at its end everything that was acknowledged is deleted."""

    @contextlib.asynccontextmanager
    async def flown(most: int, **options: Any) -> AsyncIterator[Flight]:
        place = tmp_path / "spool"
        place.mkdir()
        for name in NAMES:
            (place / name).write_bytes(b'{"spans":[]}')
        with SpoolDirectory(place) as spool:
            assert spool.open()
            flight = Flight(spool, Tally(place, len(NAMES)), kind=request.param, **options)
            async with flight.worker() as flight.disk:
                flight.deliveries = Deliveries()
                delivery = cast("Delivery", flight.deliveries)
                flight.window = Window(delivery, flight.settlement, FixedSize(most))
                yield flight

    return flown


# -- started and concluded in order --------------------------------------------------------------------------------


async def test_several_are_begun_at_once_and_deleted_in_order(fly: Fly) -> None:
    async with fly(4) as flight:
        flight.begin(0, 1, 2)
        await flight.ends(_2=ACKNOWLEDGED, _1=ACKNOWLEDGED)
        await flight.window.make_room()  # there is some
        assert flight.deliveries.started == NAMES[:3]
        assert flight.events == []
        await flight.ends(_0=ACKNOWLEDGED)
        await flight.window.finish()
    assert flight.gone == [0, 1, 2]
    assert flight.left == NAMES[3:]


async def test_one_at_a_time_takes_no_task(fly: Fly) -> None:
    async with fly(1) as flight:
        before = asyncio.all_tasks()
        taking = asyncio.ensure_future(flight.take(0))
        await a_few_turns()
        assert asyncio.all_tasks() == {*before, taking}
        assert flight.deliveries.started == NAMES[:1]
        await flight.ends(_0=ACKNOWLEDGED)
        assert taking.done()
        assert await flight.reported() == [Uploaded]
    assert flight.gone == [0]


async def test_room_is_made_by_the_oldest_alone(fly: Fly) -> None:
    async with fly(2) as flight:
        flight.begin(0, 1)
        making = asyncio.ensure_future(flight.window.make_room())
        await flight.ends(_1=ACKNOWLEDGED)
        assert not making.done()
        await flight.ends(_0=ACKNOWLEDGED)
        await making
        assert flight.deliveries.cancelled == []
        assert len(await flight.reported()) == 2  # the one behind was done as well
    assert flight.gone == [0, 1]


async def test_what_is_done_is_concluded_though_there_is_room(fly: Fly) -> None:
    """An acknowledged batch that waits in the spool is one more to resend after a crash."""
    async with fly(3) as flight:
        flight.begin(0, 1)
        await flight.ends(_0=ACKNOWLEDGED)
        await flight.window.make_room()
        await flight.disk.drain()
        assert [event.name for event in flight.events if isinstance(event, Uploaded)] == NAMES[:1]
        flight.deliveries.outcomes[NAMES[1]].set_result(outcome(STOP))
        await flight.window.finish()
    assert flight.gone == [0]


async def test_where_there_is_room_nothing_is_waited_for(fly: Fly) -> None:
    async with fly(3) as flight:
        await flight.window.make_room()  # nothing in flight
        flight.begin(0, 1)
        await flight.ends(_1=ACKNOWLEDGED)
        making = asyncio.ensure_future(flight.window.make_room())
        await a_few_turns()
        assert making.done()
        assert flight.events == []
        await flight.window.abandon()
    assert flight.gone == []


async def test_one_that_cannot_be_sent_keeps_its_place(fly: Fly) -> None:
    async with fly(4) as flight:
        flight.begin(0, Unsendable(NAMES[1], Cause.EMPTY), 2)
        await flight.ends(_2=ACKNOWLEDGED)
        await flight.window.make_room()  # there is some
        assert flight.events == []
        await flight.ends(_0=ACKNOWLEDGED)
        await flight.window.finish()
        assert await flight.reported() == [Uploaded, Warned, Uploaded]
    assert flight.gone == [0, 2]


async def test_one_that_cannot_be_sent_is_passed_by_at_once_where_it_is_the_oldest(fly: Fly) -> None:
    async with fly(3) as flight:
        flight.begin(Unsendable(NAMES[0], Cause.EMPTY), 1)
        await flight.window.make_room()
        assert await flight.reported() == [Warned]
        await flight.window.abandon()


@pytest.mark.parametrize("most", [1, 2])
async def test_batches_are_taken_one_after_another(fly: Fly, most: int) -> None:
    async with fly(most) as flight:
        await flight.ends(_0=ACKNOWLEDGED, _1=ACKNOWLEDGED, _2=ACKNOWLEDGED, _3=STOP)
        await flight.take(0)
        await flight.window.add(Unsendable(NAMES[1], Cause.EMPTY))
        await flight.take(2)
        await flight.take(3, finish=True)
        assert await flight.reported() == [Uploaded, Warned, Uploaded, Failed]
        assert flight.settlement.ended
    assert flight.gone == [0, 2]


@pytest.mark.parametrize("most", [1, 2])
async def test_a_batch_is_taken_once_there_is_room_for_another(fly: Fly, most: int) -> None:
    async with fly(most) as flight:
        taken = [asyncio.ensure_future(flight.take(number)) for number in range(most)]
        await a_few_turns()
        assert [taking.done() for taking in taken] == [*[True] * (most - 1), False]
        assert flight.deliveries.started == NAMES[:most]
        await flight.ends(_0=ACKNOWLEDGED)
        assert all(taking.done() for taking in taken)
        await flight.ends(_1=ACKNOWLEDGED)
        await flight.window.finish()
    assert flight.gone == list(range(most))


# -- the end of a flush ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "result", [STOP, RETRY, OSError(5, "Input/output error")], ids=["stop", "retry", "disk"]
)
async def test_the_first_that_ends_the_flush_keeps_what_is_behind_it(
    fly: Fly, result: Verdict | OSError
) -> None:
    async with fly(4) as flight:
        flight.begin(0, 1, 2, 3)
        await flight.ends(_2=ACKNOWLEDGED, _1=result, _0=ACKNOWLEDGED)
        await flight.window.make_room()
        assert flight.settlement.ended
        assert flight.deliveries.cancelled == NAMES[3:4]
        assert await flight.reported() == [Uploaded, Failed]
        await flight.window.finish()  # nothing is left in it
    assert flight.gone == [0]
    assert flight.left == NAMES[1:]


@pytest.mark.parametrize(
    "result", [STOP, RETRY, OSError(5, "Input/output error")], ids=["stop", "retry", "disk"]
)
async def test_one_alone_that_ends_the_flush_stays(fly: Fly, result: Verdict | OSError) -> None:
    async with fly(1) as flight:
        await flight.ends(_0=result)
        await flight.take(0, finish=True)
        assert flight.settlement.ended
        assert await flight.reported() == [Failed]
    assert (flight.gone, flight.left) == ([], NAMES)


@pytest.mark.parametrize(
    "result", [None, STOP, RETRY, OSError(5, "Input/output error")], ids=["open", "stop", "retry", "disk"]
)
async def test_what_is_acknowledged_up_to_the_first_that_is_not_is_deleted_when_it_is_abandoned(
    fly: Fly, result: Verdict | OSError | None
) -> None:
    async with fly(4) as flight:
        flight.begin(0, 1, 2, 3)
        await flight.ends(_0=ACKNOWLEDGED, _1=ACKNOWLEDGED, _3=ACKNOWLEDGED)
        if result is not None:
            await flight.ends(_2=result)
        await flight.window.abandon()
        assert flight.deliveries.cancelled == ([] if result else NAMES[2:3])
        # It was not told of: the flush ends for another reason.
        assert await flight.reported() == [Uploaded, Uploaded]
        assert not flight.settlement.ended
        await flight.window.abandon()  # again: nothing is left in it
    assert flight.gone == [0, 1]
    assert flight.left == NAMES[2:]


async def test_behind_one_that_cannot_be_sent_nothing_is_deleted_any_more(fly: Fly) -> None:
    async with fly(3) as flight:
        flight.begin(Unsendable(NAMES[0], Cause.EMPTY), 1)
        await flight.ends(_1=ACKNOWLEDGED)
        await flight.window.abandon()
    assert (flight.gone, flight.events) == ([], [])


@pytest.mark.parametrize("bug", [True, False], ids=["bug", "cancelled"])
async def test_behind_a_delivery_without_an_outcome_nothing_is_deleted_any_more(fly: Fly, bug: bool) -> None:
    async with fly(3) as flight:
        flight.begin(0, 1)
        oldest = flight.deliveries.outcomes[NAMES[0]]
        if bug:
            oldest.set_exception(ZeroDivisionError("a bug"))
        else:
            oldest.cancel()
        await flight.ends(_1=ACKNOWLEDGED)
        await flight.window.abandon()
    assert (flight.gone, flight.events) == ([], [])


async def test_a_bug_comes_to_light_in_its_turn(fly: Fly) -> None:
    async with fly(3) as flight:
        flight.begin(0, 1)
        flight.deliveries.outcomes[NAMES[1]].set_exception(ZeroDivisionError("a bug"))
        await flight.ends(_0=ACKNOWLEDGED)
        with pytest.raises(ZeroDivisionError, match="a bug"):
            await flight.window.finish()
        await flight.window.abandon()
    assert flight.gone == [0]


@pytest.mark.parametrize("most", [1, 2])
async def test_a_wait_that_is_cancelled_leaves_the_batch_where_it_is(fly: Fly, most: int) -> None:
    async with fly(most) as flight:
        waiting = asyncio.ensure_future(flight.take(0, finish=True))
        await a_few_turns()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await flight.window.abandon()
        assert flight.deliveries.cancelled == NAMES[:1]
    assert (flight.gone, flight.left) == ([], NAMES)


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("stopped", [True, False])
async def test_one_that_was_asked_to_stop_between_its_attempts_is_untried(
    fly: Fly, stopped: bool, most: int
) -> None:
    async with fly(most) as flight:
        flight.deliveries.stopping = stopped
        await flight.ends(_0=RETRY)
        await flight.take(0, finish=True)
    assert flight.settlement.ended is not stopped
    assert await flight.reported() == ([] if stopped else [Failed])


async def test_one_that_was_decided_is_told_though_the_flush_was_asked_to_stop(fly: Fly) -> None:
    async with fly(2) as flight:
        flight.begin(0, 1)
        flight.deliveries.stopping = True
        await flight.ends(_0=ACKNOWLEDGED, _1=STOP)
        await flight.window.finish()
    assert await flight.reported() == [Uploaded, Failed]
    assert flight.gone == [0]
