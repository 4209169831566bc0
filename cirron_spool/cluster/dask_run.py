"""One run on Dask: a task for each spool, the messages of the workers, and the end."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import CancelledError, KilledWorker

from cirron_spool.cluster import worker_run
from cirron_spool.cluster.dask_client import Workers, first_line, host_of
from cirron_spool.cluster.dask_spool import DaskSpool
from cirron_spool.cluster.dask_worker import TOPIC, flush_on_worker, search_on_worker
from cirron_spool.cluster.event_messages import unpack
from cirron_spool.cluster.run_health import COMMON, RunHealth
from cirron_spool.cluster.task import SpoolReport, SpoolTask
from cirron_spool.errors import (
    EXIT_ATTENTION,
    ClusterError,
    SpoolBusyError,
    first_cause,
)
from cirron_spool.events import Ended, FlushEvent, FlushResult, SpoolEvent, SpoolsFound, Uploaded, Warned
from cirron_spool.pipeline.deadline import GRACE_S, StopSignal
from cirron_spool.spool.lease import LEASE_S
from cirron_spool.text import printable

if TYPE_CHECKING:
    from distributed import Client

# Tasks that are submitted together. A submit blocks the event loop.
_TASKS_A_BATCH = 200
# Retries of a task that raised. Another worker may have the missing package.
_RETRIES = 2
# Most further tasks for a spool that a lost worker held, or that a worker does not see.
_MOST_TASKS = 3
# A lost worker's process may live on. Its lease lasts even longer for another machine.
_BUSY_S = 2.0
_MOST_TRIES = int(LEASE_S / _BUSY_S) + 8
# Seconds between two polls of the workers.
_POLL_S = 1.0
# Longest wait for a message to all workers.
_TOLD_WITHIN_S = 1.0


async def find_spools(
    client: Client,
    workers: Workers,
    roots: Sequence[str],
    directories: Sequence[str],
    *,
    cross_file_systems: bool,
) -> tuple[list[DaskSpool], list[str]]:
    """The spools that the workers find, and the warnings of the search. The spool with the oldest batch is first.

    Of the workers that see the same folders, one searches. Raises SpoolError for a root that cannot be searched, and
    ClusterError.
    """
    several = len(workers.views) > 1
    searches = [
        client.submit(
            search_on_worker,
            roots,
            directories,
            cross_file_systems,
            key=f"cirron-spool-search-{uuid.uuid4().hex[:12]}",
            workers=list(hosts) if several else workers.hosts or None,
            pure=False,
        )
        for hosts in workers.views
    ]
    spools: dict[Path, DaskSpool] = {}
    warnings: dict[str, None] = {}
    for hosts, search in zip(workers.views, searches, strict=True):
        try:
            found, said = await search
        except (CancelledError, KilledWorker, OSError) as error:
            raise ClusterError(
                f"The search for spools was lost: {first_line(error)}. Run this again."
            ) from None
        warnings.update(dict.fromkeys(said))
        for each in found:
            spool = spools.setdefault(each.path, DaskSpool(each))
            spool.hosts += hosts if several else ()
    ordered = sorted(spools.values(), key=lambda spool: (spool.found.oldest_ns or 0, spool.found.path))
    return ordered, list(warnings)


class DaskRun:
    """The flush of ``spools`` on the workers of ``client``. ``task`` has the options. ``show`` gets the events.

    After ``timeout_s`` seconds without a worker the run ends.
    """

    def __init__(
        self,
        client: Client,
        workers: Workers,
        task: SpoolTask,
        spools: Sequence[DaskSpool],
        show: Callable[[SpoolEvent], None],
        *,
        timeout_s: float,
    ) -> None:
        self._client = client
        self._workers = workers
        self._task = task
        self._spools = spools
        self._show = show
        self._timeout_s = timeout_s
        self._name = uuid.uuid4().hex[:12]
        self._holds: asyncio.Queue[float | None] = asyncio.Queue()
        self._health = RunHealth()
        self._ending = asyncio.Event()
        self._said: set[str] = set()
        self._is_stopping = False
        self._error: Exception | None = None

    async def run(self, stop: StopSignal | None) -> None:
        """Run until each spool has a report, or ``stop`` is set.

        Raises ClusterError when the cluster is lost, and the error that each spool would end with.
        """
        self._show(
            SpoolEvent(None, SpoolsFound(len(self._spools), sum(each.found.batches for each in self._spools)))
        )
        self._client.subscribe_topic(TOPIC, self._take_message)
        following = asyncio.create_task(self._follow_all())
        watching = asyncio.create_task(self._watch_workers())
        spreading = asyncio.create_task(self._spread_holds())
        stopping = asyncio.create_task(self._await_stop(stop))
        tasks: list[asyncio.Task[None]] = [following, watching, spreading, stopping]
        try:
            await asyncio.wait([following, watching, stopping], return_when=asyncio.FIRST_COMPLETED)
            if stopping.done() and not following.done():
                await self._stop(following, watching)
            for task in (watching, following):
                if task.done():
                    task.result()
        except BaseExceptionGroup as group:
            raise first_cause(group) from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._release()
        if self._error is not None:
            raise self._error

    def results(self) -> list[FlushResult]:
        """The results so far."""
        return [spool.result() for spool in self._spools]

    # -- the tasks ---------------------------------------------------------------------------------------------------

    async def _follow_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for first in range(0, len(self._spools), _TASKS_A_BATCH):
                for number in range(first, min(first + _TASKS_A_BATCH, len(self._spools))):
                    self._submit(number, self._hosts_of(self._spools[number]))
                    group.create_task(self._follow(number))
                await asyncio.sleep(0)

    def _submit(self, number: int, hosts: list[str]) -> None:
        spool = self._spools[number]
        spool.future = self._client.submit(
            flush_on_worker,
            replace(self._task, directory=spool.directory),
            self._name,
            number,
            # Dask groups keys by their first part. The tasks of a group wait at the scheduler for a free thread.
            key=(f"cirron-spool-flush-{self._name}", number, spool.tries, printable(spool.directory)),
            workers=hosts or None,
            pure=False,
            retries=_RETRIES,
        )

    async def _follow(self, number: int) -> None:
        """Wait for the report on a spool. Start further tasks if another worker may succeed."""
        spool = self._spools[number]
        while True:
            report = spool.report = await self._outcome(spool)
            hosts = await self._hosts_for_another_try(spool)
            if hosts is None or self._is_stopping:
                break
            spool.tries += 1
            self._submit(number, hosts)
        spool.future = None
        if report is not None:
            self._judge(report)
        self._tell(spool.directory, Ended(spool.result()))

    def _hosts_of(self, spool: DaskSpool) -> list[str]:
        """The hosts that may flush a spool; empty if all may."""
        return spool.hosts or self._workers.hosts

    async def _hosts_for_another_try(self, spool: DaskSpool) -> list[str] | None:
        """The hosts for another task of a spool, empty for all; None if the last report is final."""
        report, hosts = spool.report, self._hosts_of(spool)
        if report is None or spool.tries >= _MOST_TRIES:
            return None
        if isinstance(report.error, SpoolBusyError) and len(spool.attempts) > spool.tries + 1:
            await asyncio.sleep(_BUSY_S)  # the lost worker or its lease holds the spool
            return hosts
        if spool.tries >= _MOST_TASKS:
            return None
        if report.is_missing:
            seeing = spool.hosts or [host_of(address) for address in self._workers.with_roots]
            return sorted({*seeing} - {host_of(report.where)}) or None
        return hosts if isinstance(report.error, ClusterError) else None

    async def _outcome(self, spool: DaskSpool) -> SpoolReport | None:
        """The report of the present task of a spool; None if the run ended before the task started."""
        assert spool.future is not None  # noqa: S101  # it was submitted
        report: SpoolReport | None
        try:
            spool.attempt, report = await spool.future
        except CancelledError as error:
            if self._is_stopping:
                return None
            raise ClusterError(
                f"The scheduler dropped the tasks: {first_line(error)}. {self._left()}"
            ) from None
        except KilledWorker:
            why = "each worker that flushed it was lost. Look at the logs of the workers, then run this again"
        except Exception as error:  # noqa: BLE001  # from the task
            why = f"its task failed on the workers with {type(error).__name__}: {first_line(error)}"
        else:
            return report
        spool.attempt = ""
        lost = ClusterError(f"{printable(spool.directory)}: {why}.", EXIT_ATTENTION)
        return SpoolReport(spool.directory, FlushResult(spool.found.path), lost)

    def _judge(self, report: SpoolReport) -> None:
        """Warn of a spool's error. End the run if the next spools would fail, too."""
        error = report.error
        if isinstance(error, COMMON):
            self._error = self._error or error
            self._ending.set()
        elif report.message and (error is not None or report.is_missing):
            hint = f" {error.hint}" if error is not None and error.hint else ""
            self._tell(report.directory, Warned(f"{report.message}{hint}"))
        elif (reason := self._health.judge(report)) and not self._ending.is_set():
            self._tell(None, Warned(reason))
            self._ending.set()

    # -- messages from the workers -----------------------------------------------------------------------------------

    def _take_message(self, message: tuple[float, dict[str, Any]]) -> None:
        _, news = message
        if news.get("run") != self._name:  # another run, or another program, on this scheduler
            return
        if "hold" in news:
            self._holds.put_nowait(news["hold"])
            return
        try:
            self._note_progress(news)
        except Exception as error:  # noqa: BLE001  # a listener's; Dask would only log it
            self._error = self._error or error
            self._ending.set()

    def _note_progress(self, news: dict[str, Any]) -> None:
        spool, attempt = self._spools[news["spool"]], news["attempt"]
        if spool.begin(attempt) and len(spool.attempts) > 1 and spool.report is None:
            lost = f"A worker was lost. Another one continues with {printable(spool.directory)}."
            self._tell(spool.directory, Warned(lost))
        for packed in news["events"]:
            event = unpack(packed)
            if isinstance(event, Uploaded):
                spool.note(attempt, event)
            self._tell(spool.directory, event)

    def _tell(self, directory: str | None, event: FlushEvent) -> None:
        if isinstance(event, Warned):
            # Several spools can have the same warning, such as one about a wait. It is emitted once.
            if event.message in self._said:
                return
            self._said.add(event.message)
        self._show(SpoolEvent(Path(directory) if directory is not None else None, event))

    async def _spread_holds(self) -> None:
        """Tell all workers when the platform fails, and when it answers again."""
        while True:
            seconds = await self._holds.get()
            if seconds is None:
                await self._call_all(worker_run.recover, self._name)
            else:
                await self._call_all(worker_run.hold, self._name, seconds)

    async def _call_all(self, function: Callable[..., None], *arguments: object) -> None:
        """Call ``function`` on each worker that can be reached soon."""
        with suppress(OSError, TimeoutError, ValueError):
            call = self._client.run(function, *arguments, on_error="ignore")
            await asyncio.wait_for(call, _TOLD_WITHIN_S)

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _watch_workers(self) -> None:
        """Raise ClusterError if the scheduler is lost, or if there was no worker for too long."""
        loop = asyncio.get_running_loop()
        alive_at = loop.time()
        hosts = set(self._workers.hosts)
        while True:
            await asyncio.sleep(_POLL_S)
            if self._client.status != "running":
                raise ClusterError(f"The connection to the scheduler is lost. {self._left()}")
            with suppress(OSError, TimeoutError):
                found = await self._client.nthreads()
                if any(not hosts or host_of(address) in hosts for address in found):
                    alive_at = loop.time()
            if loop.time() - alive_at > self._timeout_s:
                raise ClusterError(f"There was no worker for {self._timeout_s:g} s. {self._left()}")

    def _left(self) -> str:
        done = sum(spool.report is not None for spool in self._spools)
        return f"{done} of {len(self._spools)} spools are done. Run this again."

    async def _await_stop(self, stop: StopSignal | None) -> None:
        ending = asyncio.create_task(self._ending.wait())
        signals: list[asyncio.Future[Any]] = [ending]
        if stop is not None:
            signals.append(asyncio.ensure_future(stop.wait()))
        try:
            await asyncio.wait(signals, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for signal in signals:
                signal.cancel()

    async def _stop(self, following: asyncio.Task[None], watching: asyncio.Task[None]) -> None:
        """Cancel the waiting tasks, and let the running ones finish their batch in flight."""
        self._is_stopping = True
        await self._call_all(worker_run.stop, self._name)
        await self._cancel([spool for spool in self._spools if not spool.attempts])
        await asyncio.wait([following, watching], timeout=GRACE_S, return_when=asyncio.FIRST_COMPLETED)

    async def _cancel(self, spools: Sequence[DaskSpool]) -> None:
        futures = [spool.future for spool in spools if spool.future is not None]
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._client.cancel(futures), _TOLD_WITHIN_S)

    async def _release(self) -> None:
        """Remove the tasks and states of this run from the cluster."""
        if self._client.status != "running":
            return
        with suppress(ValueError, OSError):
            self._client.unsubscribe_topic(TOPIC)
        running = [spool for spool in self._spools if spool.future is not None]
        if not running and not self._is_stopping:
            await self._call_all(worker_run.forget, self._name)
            return
        # The state stays, since a cancelled task may have started already.
        await self._call_all(worker_run.stop, self._name)
        await self._cancel(running)
