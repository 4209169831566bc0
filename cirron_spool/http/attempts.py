"""Repeat attempts on the retry schedule, and limit their rate while the server fails."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import backoff

from cirron_spool.protocol import retry as schedule
from cirron_spool.protocol.retry import Waitable, delays, pause_after

W = TypeVar("W", bound=Waitable)


async def attempt_on_schedule(
    attempt: Callable[[], Awaitable[W]],
    *,
    retries: int,
    is_temporary: Callable[[W], bool],
    announce: Callable[[W, float, int], None],
) -> W:
    """Attempt until ``is_temporary`` is False, or the retries are used up. Returns the last outcome.

    ``announce`` is called before each wait with the outcome, the seconds to wait, and the number of the next attempt.
    Raises the errors of ``attempt``.
    """

    async def attempt_once() -> W:  # backoff accepts coroutine functions only
        return await attempt()

    async def on_backoff(details: Any) -> None:
        announce(details["value"], details["wait"], details["tries"] + 1)

    # backoff sends each outcome into the generator of waits (its _common.py), against its own type hints.
    waits: Any = partial(delays, retries=retries, random=random.random)
    attempts = backoff.on_predicate(
        waits,
        is_temporary,
        jitter=None,  # the schedule has its own jitter; that of backoff would shorten a Retry-After
        on_backoff=on_backoff,
        logger=None,
    )(attempt_once)
    outcome: W = await attempts()
    return outcome


class Throttle:
    """Limits the rate of all attempts of one client while the server fails.

    After a temporary failure, the next attempt waits a second, or the delay that the server asked for. Until an attempt
    succeeds, attempts start a second apart. Without a failure, no attempt waits.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()  # a fair lock
        self._failing = False
        self._not_before = 0.0  # by time.monotonic()

    async def wait_turn(self, announce: Callable[[float], None]) -> None:
        """Return when the next attempt may start. ``announce`` gets the seconds of a wait that the server asked for."""
        if not self._failing and self._wait_s() == 0:
            return
        async with self._turn:
            while (wait_s := self._wait_s()) > 0:  # a failure during the wait extends it
                if wait_s > schedule.SHORTEST_PAUSE_S:
                    announce(wait_s)
                await asyncio.sleep(wait_s)
            if self._failing:
                self._hold(schedule.SHORTEST_PAUSE_S)

    def failed(self, outcome: Waitable) -> None:
        """Record a temporary failure."""
        self._failing = True
        self._hold(pause_after(outcome))

    def succeeded(self) -> None:
        """Record an answer without a temporary failure."""
        self._failing = False

    def _wait_s(self) -> float:
        return max(0.0, self._not_before - time.monotonic())

    def _hold(self, seconds: float) -> None:
        self._not_before = max(self._not_before, time.monotonic() + seconds)
