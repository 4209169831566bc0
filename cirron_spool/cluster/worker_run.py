"""The state of one run in one worker process. The tasks of the run share it, each in its own thread."""

from __future__ import annotations

import asyncio
import threading
import time

from cirron_spool.concurrency.threads import resolve_from_thread

# Seconds between two polls of a waiting thread.
_POLL_S = 0.2


class WorkerRun:
    """Whether the run is stopping, and whether the platform fails.

    ``failing``: the last attempt anywhere ended with a temporary failure. ``verified``: the platform has accepted the
    token. The methods may be called in any thread.
    """

    def __init__(self) -> None:
        self.failing = False
        self.verified = False
        self._not_before = 0.0  # by time.monotonic()
        self._stopped = threading.Event()
        self._waiting: set[asyncio.Future[None]] = set()
        self._lock = threading.Lock()

    @property
    def is_stopped(self) -> bool:
        """Whether the run is stopping."""
        return self._stopped.is_set()

    @property
    def wait_s(self) -> float:
        """The remaining seconds of a hold. Until then no attempt begins."""
        return max(0.0, self._not_before - time.monotonic())

    def stop(self) -> None:
        """End the flushes of this run gracefully."""
        with self._lock:
            self._stopped.set()
            waiting = list(self._waiting)
        for future in waiting:
            resolve_from_thread(future, None)

    def hold(self, seconds: float) -> None:
        """Let no attempt begin within ``seconds``, since the platform fails."""
        self.failing = True
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    def recover(self) -> None:
        """End the hold, since the platform answers."""
        self.failing = False

    async def wait(self) -> None:
        """Return when the run is stopping. The flush uses it as its stop signal."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._stopped.is_set():
                return
            self._waiting.add(future)
        try:
            await future
        finally:
            with self._lock:
                self._waiting.discard(future)

    def pause(self, seconds: float = 0.0) -> bool:
        """Block for ``seconds``, and until an attempt may begin. Returns False at once if the run stops."""
        end = time.monotonic() + seconds
        while (left := max(end - time.monotonic(), self.wait_s)) > 0:
            if self._stopped.wait(min(left, _POLL_S)):
                return False
        return not self._stopped.is_set()


_RUNS: dict[str, WorkerRun] = {}


def run_of(name: str) -> WorkerRun:
    """The state of the run ``name`` in this process."""
    return _RUNS.setdefault(name, WorkerRun())


def hold(name: str, seconds: float) -> None:
    """As :meth:`WorkerRun.hold`, sent to each worker."""
    run_of(name).hold(seconds)


def recover(name: str) -> None:
    """As :meth:`WorkerRun.recover`, sent to each worker."""
    run_of(name).recover()


def stop(name: str) -> None:
    """As :meth:`WorkerRun.stop`, sent to each worker."""
    run_of(name).stop()


def forget(name: str) -> None:
    """Drop the state of a run that has ended."""
    _RUNS.pop(name, None)
