"""What is awaited to its end in spite of a cancellation, and what another thread tells a loop."""

from __future__ import annotations

import asyncio
import threading

import anyio
import anyio.lowlevel
import pytest

from cirron_spool.concurrency.shield import complete
from cirron_spool.concurrency.threads import resolve_from_thread
from support.turns import a_few_turns

pytestmark = pytest.mark.anyio


async def test_complete_waits_for_the_end() -> None:
    done: list[int] = []

    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        done.append(1)

    await complete(work())
    assert done == [1]


async def test_complete_raises_what_the_work_raises() -> None:
    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await complete(work())


@pytest.mark.parametrize("times", [1, 3])
async def test_complete_outlasts_cancellation_which_follows_it(times: int) -> None:
    gate, began = asyncio.Event(), asyncio.Event()
    done: list[int] = []

    async def work() -> None:
        began.set()
        await gate.wait()
        await anyio.lowlevel.checkpoint()
        done.append(1)

    task = asyncio.ensure_future(complete(work()))
    await began.wait()
    for _ in range(times):
        task.cancel()
        await a_few_turns()
        assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


async def test_complete_outlasts_a_cancelled_scope_which_takes_effect_after_it() -> None:
    gate, began = asyncio.Event(), asyncio.Event()
    done: list[int] = []

    async def work() -> None:
        began.set()
        await gate.wait()
        done.append(1)

    async with anyio.create_task_group() as group:

        async def guarded() -> None:
            await complete(work())
            assert done == [1]
            await anyio.lowlevel.checkpoint()
            done.append(2)

        group.start_soon(guarded)
        await began.wait()
        group.cancel_scope.cancel()
        asyncio.get_running_loop().call_soon(gate.set)
    assert done == [1]


async def test_complete_does_not_hide_an_error_behind_a_cancellation() -> None:
    gate, began = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        await gate.wait()
        raise KeyError("mine")

    task = asyncio.ensure_future(complete(work()))
    await began.wait()
    task.cancel()
    await a_few_turns()
    gate.set()
    with pytest.raises(KeyError, match="mine"):
        await task


async def test_a_thread_tells_a_future_once() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def work() -> None:
        resolve_from_thread(future, 1)
        resolve_from_thread(future, 2)  # too late, and no error

    thread = threading.Thread(target=work)
    thread.start()
    assert await future == 1
    thread.join()
    await a_few_turns()
    assert future.result() == 1


def test_a_closed_loop_is_told_nothing() -> None:
    loop = asyncio.new_event_loop()
    future: asyncio.Future[int] = loop.create_future()
    loop.close()
    resolve_from_thread(future, 1)
    assert not future.done()
