"""A throttle that all tasks of a run share, on all machines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from cirron_spool.cluster.worker_run import WorkerRun
from cirron_spool.concurrency.threads import call_from_thread, in_daemon_thread, resolve
from cirron_spool.http.attempts import Throttle
from cirron_spool.protocol.retry import SHORTEST_PAUSE_S, Waitable, pause_after

# Seconds of one wait for the turn. Between two waits, the thread checks whether the run stops.
_TRY_S = 1.0


class Turn(Protocol):
    """A lease with one holder on all machines, such as ``distributed.Semaphore(max_leases=1)``. Blocking."""

    def acquire(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the lease. Returns whether it is held now."""

    def release(self) -> object:
        """Release the lease."""


class SharedThrottle(Throttle):
    """A :class:`Throttle` that shares the state of ``run``.

    ``notify`` informs the other processes. It gets the seconds of a hold, or None when the platform answers again.
    While the platform fails, each new attempt holds ``turn`` for a second.
    """

    def __init__(self, run: WorkerRun, turn: Turn, notify: Callable[[float | None], None]) -> None:
        super().__init__()
        self._run = run
        self._turn_of_all = turn
        self._notify = notify

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

        # The call for the lease blocks, so a thread makes it. The thread also releases the lease.
        waiting = asyncio.ensure_future(in_daemon_thread(lambda: self._take_turn(begin), "cirron-spool turn"))
        await asyncio.wait([waiting, began], return_when=asyncio.FIRST_COMPLETED)
        if not began.done():
            waiting.result()
            await asyncio.get_running_loop().create_future()  # the stopping run cancels this wait

    def failed(self, outcome: Waitable) -> None:
        """Record a temporary failure for all tasks."""
        seconds = pause_after(outcome)
        self._run.hold(seconds)
        self._notify(seconds)

    def succeeded(self) -> None:
        """Record any other answer for all tasks."""
        if self._run.failing:
            self._run.recover()
            self._notify(None)

    def _take_turn(self, begin: Callable[[], None]) -> None:
        """Call ``begin`` with the lease held, and keep the lease for a second. Blocking."""
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
