"""``PartStream``: the parts of a body in order, bounded ahead, with errors and the end in their place."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator

import pytest

from cirron_spool.pipeline.part_stream import PartStream
from support.background import SAFETY_NET
from support.turns import a_few_turns

pytestmark = pytest.mark.anyio


async def test_parts_arrive_in_order_and_are_made_in_a_thread() -> None:
    expected = [b"%d" % number for number in range(200)]
    makers: set[threading.Thread] = set()

    def parts() -> Generator[bytes, None, None]:
        for part in expected:
            makers.add(threading.current_thread())
            yield part

    async with PartStream(parts(), 10) as stream:
        assert [part async for part in stream] == expected
    assert len(makers) == 1
    assert threading.current_thread() not in makers


async def test_an_error_is_raised_after_the_parts_before_it() -> None:
    def parts() -> Generator[bytes, None, None]:
        yield b"one"
        yield b"two"
        raise OSError("disk")

    async with PartStream(parts(), 1000) as stream:
        assert [await anext(stream), await anext(stream)] == [b"one", b"two"]
        for _ in range(2):
            with pytest.raises(OSError, match="disk"):
                await anext(stream)


async def test_the_thread_stays_within_the_bound() -> None:
    made: list[int] = []
    third = threading.Event()

    def parts() -> Generator[bytes, None, None]:
        for number in range(50):
            made.append(number)
            if number == 2:
                third.set()
            yield b"x" * 10

    async with PartStream(parts(), 20) as stream:
        # Two parts fill the bound. The third is made, and waits for room.
        assert await asyncio.to_thread(third.wait, SAFETY_NET)
        await a_few_turns()
        for taken in range(50):
            assert len(made) <= taken + 3
            assert await anext(stream) == b"x" * 10
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_leaving_early_closes_the_generator() -> None:
    closed = threading.Event()

    def parts() -> Generator[bytes, None, None]:
        try:
            while True:
                yield b"x" * 10
        finally:
            closed.set()

    async with PartStream(parts(), 20) as stream:
        await anext(stream)
    assert closed.is_set()


async def test_a_cancelled_take_loses_no_part() -> None:
    gate = threading.Event()

    def parts() -> Generator[bytes, None, None]:
        gate.wait(SAFETY_NET)
        yield b"one"
        yield b"two"

    async with PartStream(parts(), 1000) as stream:
        take = asyncio.ensure_future(anext(stream))
        await a_few_turns()
        take.cancel()
        with pytest.raises(asyncio.CancelledError):
            await take
        gate.set()
        assert [part async for part in stream] == [b"one", b"two"]
