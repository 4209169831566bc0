"""A throttle that the tasks of a run share, over all machines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from cirron_spool.cluster.worker_run import WorkerRun
from cirron_spool.concurrency.threads import call_from_thread, in_daemon_thread, resolve
from cirron_spool.http.attempts import Throttle
from cirron_spool.protocol.retry import SHORTEST_PAUSE_S, Waitable, pause_after

# Seconds of one try for the turn: a run that stops is noticed in between.
_TRY_S = 1.0


class Turn(Protocol):
    """A lease that one holder over all machines has, such as ``distributed.Semaphore(max_leases=1)``. Blocking."""

    def acquire(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the lease; whether it is held now."""

    def release(self) -> object:
        """Give it back."""


class SharedThrottle(Throttle):
    """As :class:`Throttle`, with the state of ``run`` in place of its own.

    ``tell`` takes news for the other processes: the seconds of a hold, or None once the platform answers. While the
    platform fails, ``turn`` is held for a second by each attempt that begins.
    """

    def __init__(self, run: WorkerRun, turn: Turn, tell: Callable[[float | None], None]) -> None:
        super().__init__()
        self._run = run
        self._turn_of_all = turn
        self._tell = tell

    async def wait_turn(self, announce: Callable[[float], None]) -> None:
        """Return when the next attempt may begin. ``announce`` gets the seconds of a wait that the server asked for."""
        run = self._run
        if not run.failing and run.wait_s == 0:
            return
        if run.wait_s > SHORTEST_PAUSE_S:
            announce(run.wait_s)
        loop = asyncio.get_running_loop()
        began = loop.create_future()

        def begin() -> None:
            call_from_thread(loop, resolve, began, None)

        # A thread waits: the lease of an engine is taken by a blocking call. It gives the lease back on its own.
        waiting = asyncio.ensure_future(in_daemon_thread(lambda: self._take_turn(begin), "cirron-spool turn"))
        await asyncio.wait([waiting, began], return_when=asyncio.FIRST_COMPLETED)
        if not began.done():
            waiting.result()
            await asyncio.get_running_loop().create_future()  # the run stops, and cancels this

    def failed(self, outcome: Waitable) -> None:
        """Record a temporary failure, for all."""
        seconds = pause_after(outcome)
        self._run.hold(seconds)
        self._tell(seconds)

    def succeeded(self) -> None:
        """Record an answer that is no temporary failure, for all."""
        if self._run.failing:
            self._run.recover()
            self._tell(None)

    def _take_turn(self, begin: Callable[[], None]) -> None:
        """Call ``begin`` when the turn has come, and keep the others waiting for a second. Blocking."""
        run = self._run
        while run.failing or run.wait_s:
            if run.is_stopped:
                return
            if self._turn_of_all.acquire(timeout=_TRY_S):
                try:
                    if run.pause():
                        begin()
                        if run.failing:
                            run.pause(SHORTEST_PAUSE_S)
                finally:
                    self._turn_of_all.release()
                return
        begin()
