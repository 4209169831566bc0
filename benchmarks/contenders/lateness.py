"""How late a 1 ms ticker is in the event loop that a flush runs in: alone, and beside the flush.

The ticker asks to be woken in a millisecond and notes how much later than that it was, again and again. It is what a
training harness's own coroutines would feel. The option ``peer`` is ``ours``, ``first`` (ours, in a process that has
not flushed before, so that what the first flush imports is felt, too).
"""

from __future__ import annotations

import asyncio
import math
from array import array
from typing import Self, TypedDict

from benchmarks.contenders import harness, ours

TICK_SECONDS = 0.001
ALONE_SECONDS = 1.0


class Lateness(TypedDict):
    """Milliseconds that ticks were late, and of how many."""

    ticks: int
    p50: float
    p99: float
    worst: float


class Ticker:
    """Ticks while its context is open."""

    def __init__(self) -> None:
        self._late = array("d")
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _tick(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            due = now() + TICK_SECONDS
            try:
                await asyncio.sleep(TICK_SECONDS)
            finally:
                # Also of the tick that the end cuts off: a loop held up until the end was late all that time.
                if (late := now() - due) > 0:
                    self._late.append(late)

    def lateness(self) -> Lateness:
        """What was noted."""
        ordered = sorted(self._late) or [0.0]
        return {
            "ticks": len(self._late),
            "p50": _percentile(ordered, 0.50) * 1000,
            "p99": _percentile(ordered, 0.99) * 1000,
            "worst": ordered[-1] * 1000,
        }


def _percentile(ordered: list[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that ``share`` of all values do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def measure(job: harness.Job, clock: harness.Clock) -> None:
    """Tick alone, then beside the flush; time the latter."""
    peer = job["options"].pop("peer", "ours")
    if peer == "ours":
        ours.import_all(job)
    async with Ticker() as alone:
        await asyncio.sleep(ALONE_SECONDS)
    async with Ticker() as beside:
        await ours.deliver(job, clock)
    clock.outcome["lateness"] = {"alone": alone.lateness(), "flush": beside.lateness()}


def main() -> None:
    """Measure and say what it took."""
    clock = harness.Clock()
    asyncio.run(measure(harness.job(), clock))
    clock.finish()


if __name__ == "__main__":
    main()
