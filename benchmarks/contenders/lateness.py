"""The lateness of a 1 ms ticker in an event loop: with nothing else, and with a flush.

The ticker sleeps for a millisecond and records its delay. The option ``first`` leaves the imports of the first flush
to the flush, after a bare ``import cirron_spool``.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.contenders import flush, harness

TICK_SECONDS = 0.001
ALONE_SECONDS = 1.0


@asynccontextmanager
async def ticking() -> AsyncIterator[array[float]]:
    """Tick inside the block; the array gets the seconds that each tick was late."""
    late = array("d")
    task = asyncio.create_task(_tick(late))
    await asyncio.sleep(0)
    yield late
    task.cancel()
    await asyncio.wait([task])


async def _tick(late: array[float]) -> None:
    now = asyncio.get_running_loop().time
    while True:
        due = now() + TICK_SECONDS
        try:
            await asyncio.sleep(TICK_SECONDS)
        finally:
            # The last tick counts, too: a loop that was blocked until the end was late.
            late.append(max(0.0, now() - due))


def figures(late: array[float]) -> dict[str, float]:
    """The number of ticks; median, nearest-rank 99th percentile and maximum of their lateness in ms."""
    ordered = sorted(late)
    p50, p99 = (ordered[math.ceil(share * len(ordered)) - 1] * 1000 for share in (0.50, 0.99))
    return {"ticks": len(late), "p50": p50, "p99": p99, "worst": ordered[-1] * 1000}


async def measure(job: harness.Job, clock: harness.Clock) -> None:
    """Tick alone, then during the flush."""
    if not job["options"].pop("first", False):
        import cirron_spool.flush  # noqa: F401  # its import is not part of the measured flush
    async with ticking() as alone:
        await asyncio.sleep(ALONE_SECONDS)
    async with ticking() as beside:
        await flush.deliver(job, clock)
    clock.outcome["lateness"] = {"alone": figures(alone), "flush": figures(beside)}


def main() -> None:
    """Measure and print the outcome."""
    clock = harness.Clock()
    asyncio.run(measure(harness.read_job(), clock))
    clock.report()


if __name__ == "__main__":
    main()
