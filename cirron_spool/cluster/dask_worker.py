"""The part of a run that Dask's workers execute."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Semaphore, Worker, get_worker

from cirron_spool.cluster.event_messages import pack
from cirron_spool.cluster.run_health import is_common
from cirron_spool.cluster.shared_throttle import SharedThrottle
from cirron_spool.cluster.task import SpoolReport, SpoolTask, flush_one
from cirron_spool.cluster.worker_run import WorkerRun, run_of
from cirron_spool.events import Ended, FlushEvent, Uploaded
from cirron_spool.fleet.search import Places, Search
from cirron_spool.http.attempts import Throttle
from cirron_spool.pipeline.deadline import StopSignal
from cirron_spool.spool.discovery import FoundSpool

# The topic of the messages of all runs: the scheduler keeps the last thousand of a topic.
TOPIC = "cirron-spool"
# Seconds of uploads that are reported together.
_REPORT_INTERVAL_S = 0.25
# All runs share one semaphore a worker, since each semaphore runs a timer.
_SEMAPHORES: WeakKeyDictionary[Worker, Semaphore] = WeakKeyDictionary()
_SEMAPHORES_LOCK = threading.Lock()


def flush_on_worker(task: SpoolTask, run: str, spool: int) -> tuple[str, SpoolReport | None]:
    """Flush the spool number ``spool`` of ``run``. Returns the name of this attempt, and the report.

    The report is None if the run is stopping.
    """
    attempt = uuid.uuid4().hex
    state = run_of(run)
    if state.is_stopped:
        return attempt, None
    worker = get_worker()
    control = _DaskControl(state, worker, {"run": run, "spool": spool, "attempt": attempt})
    worker.log_event(TOPIC, {"run": run, "spool": spool, "attempt": attempt, "events": []})
    if state.verified:  # one check of the token a process
        task = replace(task, options={**task.options, "verify": False})
    report = replace(flush_one(task, control), where=worker.address)
    state.verified = state.verified or report.result.verified
    if is_common(report):  # do not wait for the message from the scheduler
        state.stop()
    return attempt, report


def search_on_worker(
    roots: Sequence[str], directories: Sequence[str], cross_file_systems: bool
) -> tuple[list[FoundSpool], list[str]]:
    """The spools below ``roots`` and in ``directories`` on this worker, and the warnings of the search.

    Raises SpoolError for a root that cannot be searched.
    """
    found: list[FoundSpool] = []
    warnings: list[str] = []
    places = Places(tuple(map(Path, roots)), tuple(map(Path, directories)), cross_file_systems)
    Search(places, found.extend, warnings.append).run()
    return found, warnings


class _DaskControl:
    """The control of one task. ``ids`` are the first keys of each message about the task."""

    def __init__(self, state: WorkerRun, worker: Worker, ids: dict[str, Any]) -> None:
        self.stop: StopSignal = state
        self._state = state
        self._worker = worker
        self._ids = ids
        self._unsent: list[list[Any]] = []
        self._sent_at = 0.0

    def throttle(self) -> Throttle:
        """A throttle that the tasks of all workers share."""
        return SharedThrottle(self._state, _DaskTurn(self._worker), self._report_hold)

    def show(self, event: FlushEvent) -> None:
        """Report an event. Uploads are reported together, a few times a second."""
        if message := pack(event):
            self._unsent.append(message)
        is_urgent = isinstance(event, Ended) or (message and not isinstance(event, Uploaded))
        if self._unsent and (is_urgent or time.monotonic() - self._sent_at >= _REPORT_INTERVAL_S):
            self._worker.log_event(TOPIC, {**self._ids, "events": self._unsent})
            self._unsent = []
            self._sent_at = time.monotonic()

    def _report_hold(self, seconds: float | None) -> None:
        self._worker.log_event(TOPIC, {"run": self._ids["run"], "hold": seconds})


class _DaskTurn:
    """A lease over all workers: while the platform fails, one attempt at a time has it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def acquire(self, timeout: float) -> bool:
        """Wait for the lease. Without a scheduler, every process gets it."""
        try:
            return bool(self._semaphore().acquire(timeout=timeout))
        except OSError:
            return True

    def release(self) -> None:
        """Give the lease back."""
        try:
            self._semaphore().release()
        except (OSError, RuntimeError):  # the lease came without a scheduler
            return

    def _semaphore(self) -> Any:
        worker = self._worker
        with _SEMAPHORES_LOCK:  # one object a worker: only the acquiring object can release the lease
            if worker not in _SEMAPHORES:
                _SEMAPHORES[worker] = Semaphore(
                    max_leases=1, name="cirron-spool", scheduler_rpc=worker.scheduler, loop=worker.loop
                )
            return _SEMAPHORES[worker]
