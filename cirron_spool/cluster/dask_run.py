"""One run on Dask: a task for each spool, its news, its stop, and the reports."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distributed import CancelledError, KilledWorker

from cirron_spool.cluster import worker_run
from cirron_spool.cluster.dask_client import Workers, first_line, host_of
from cirron_spool.cluster.dask_worker import TOPIC, flush_on_worker
from cirron_spool.cluster.event_messages import unpack
from cirron_spool.cluster.task import SpoolReport, SpoolTask, untried
from cirron_spool.errors import EXIT_ATTENTION, EXIT_AUTH, EXIT_TEMPFAIL, ClusterError, SpoolBusyError
from cirron_spool.events import FlushEvent, Uploaded, Warned
from cirron_spool.pipeline.deadline import GRACE_S, StopSignal
from cirron_spool.text import printable

if TYPE_CHECKING:
    from distributed import Client, Future

# Tasks that are submitted together: the event loop serves nothing else meanwhile.
_TASKS_A_BATCH = 200
# Further tries of a task that raised: the next worker may have what this one lacks.
_RETRIES = 2
# Further tasks for a spool whose worker was lost, does not see it, or still holds it.
_MOST_TASKS = 4
# A lost worker's lock ends with its process, which may outlive its connection.
_BUSY_S = 5.0
# Seconds between two looks at the workers.
_LOOK_S = 1.0
# Of a message to all workers at the end of a run.
_TOLD_WITHIN_S = 1.0


class DaskRun:
    """The flush of ``tasks`` on the workers of ``client``. Events go to ``show`` with the directory of their spool.

    Without a worker for ``timeout_s`` seconds the run ends.
    """

    def __init__(
        self,
        client: Client,
        workers: Workers,
        tasks: Sequence[SpoolTask],
        show: Callable[[str, FlushEvent], None],
        *,
        timeout_s: float,
    ) -> None:
        self._client = client
        self._workers = workers
        self._tasks = tasks
        self._show = show
        self._timeout_s = timeout_s
        self._name = uuid.uuid4().hex[:12]
        self._futures: dict[int, Future[tuple[str, SpoolReport]]] = {}
        self._reports: dict[int, SpoolReport] = {}
        # Of each spool: the uploads of each attempt, as they were told.
        self._told: dict[int, dict[str, list[Uploaded]]] = {}
        self._is_stopping = False
        self._ending = asyncio.Event()

    async def run(self, stop: StopSignal | None) -> list[SpoolReport]:
        """Run until all spools have a report, or ``stop`` is set. Raises ClusterError when the cluster is lost."""
        self._client.subscribe_topic(TOPIC, self._take_message)
        following = asyncio.create_task(self._follow_all())
        watching = asyncio.create_task(self._watch_workers())
        beside: list[asyncio.Task[Any]] = [watching, asyncio.create_task(self._ending.wait())]
        if stop is not None:
            beside.append(asyncio.create_task(_wait_for(stop)))
        try:
            await asyncio.wait([following, *beside], return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                await self._stop(following, watching)
            else:
                following.result()
        finally:
            for task in (following, *beside):
                task.cancel()
            await asyncio.wait([following, *beside])
            await self._release()
        return [self._report_on(spool) for spool in range(len(self._tasks))]

    # -- the tasks ---------------------------------------------------------------------------------------------------

    async def _follow_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for first in range(0, len(self._tasks), _TASKS_A_BATCH):
                for spool in range(first, min(first + _TASKS_A_BATCH, len(self._tasks))):
                    self._submit(spool, 0, self._workers.hosts)
                    group.create_task(self._follow(spool))
                await asyncio.sleep(0)

    def _submit(self, spool: int, number: int, hosts: list[str]) -> None:
        task = self._tasks[spool]
        again = f"-{number}" if number else ""
        self._futures[spool] = self._client.submit(
            flush_on_worker,
            task,
            self._name,
            spool,
            # Sorted by the spool's number, as the scheduler begins equal tasks in the order of their keys.
            key=f"cirron-spool-flush-{self._name}-{spool:06d}{again}-{printable(task.directory)}",
            workers=hosts or None,
            pure=False,
            retries=_RETRIES,
        )

    async def _follow(self, spool: int) -> None:
        """Wait for the report on a spool, with further tasks where another worker may do better."""
        hosts = self._workers.hosts
        report: SpoolReport | None = None
        for number in range(1, _MOST_TASKS + 1):
            report = await self._outcome(spool)
            if report is None or self._is_stopping:
                break
            is_last = number == _MOST_TASKS
            if report.is_missing:
                seeing = {host_of(address) for address in self._workers.with_roots}
                hosts = sorted(seeing - {report.where.rpartition(":")[0]})
                is_last = is_last or not hosts
            elif isinstance(report.error, SpoolBusyError) and len(self._told.get(spool, ())) > 1:
                await asyncio.sleep(_BUSY_S)
            elif not isinstance(report.error, ClusterError):
                is_last = True
            if is_last:
                break
            self._submit(spool, number, hosts)
        self._futures.pop(spool, None)
        if report is not None:
            self._reports[spool] = report
            if _ends_all(report):
                self._ending.set()

    async def _outcome(self, spool: int) -> SpoolReport | None:
        """The report of the present task of a spool; None where it was cancelled."""
        task = self._tasks[spool]
        try:
            attempt, report = await self._futures[spool]
        except CancelledError:
            return None
        except KilledWorker:
            why = "each worker that flushed it was lost. Look at the logs of the workers, then run this again"
        except Exception as error:  # noqa: BLE001  # whatever a task raised on a worker
            why = f"its task failed on the workers with {type(error).__name__}: {first_line(error)}"
        else:
            return self._with_earlier(spool, attempt, report)
        lost = ClusterError(f"{printable(task.directory)}: {why}.", EXIT_ATTENTION)
        return self._with_earlier(spool, "", replace(untried(task, EXIT_ATTENTION), error=lost))

    def _with_earlier(self, spool: int, attempt: str, report: SpoolReport) -> SpoolReport:
        """``report``, with the uploads that lost attempts had told."""
        told = self._told.get(spool, {})
        earlier = [event for name, events in told.items() if name != attempt for event in events]
        if not earlier:
            return report
        result = replace(
            report.result,
            uploaded=report.result.uploaded + len(earlier),
            bytes_read=report.result.bytes_read + sum(event.size for event in earlier),
            bytes_sent=report.result.bytes_sent + sum(event.sent for event in earlier),
        )
        return replace(report, result=result)

    def _report_on(self, spool: int) -> SpoolReport:
        if spool in self._reports:
            return self._reports[spool]
        return self._with_earlier(spool, "", untried(self._tasks[spool], EXIT_TEMPFAIL))

    # -- news from the workers ---------------------------------------------------------------------------------------

    async def _take_message(self, message: tuple[float, dict[str, Any]]) -> None:
        _, news = message
        if news.get("run") != self._name:  # another run, or another program, on this scheduler
            return
        if "hold" in news:
            await self._spread_hold(news["hold"])
            return
        spool, attempt = news["spool"], news["attempt"]
        directory = self._tasks[spool].directory
        told = self._told.setdefault(spool, {})
        if attempt not in told:
            if told and spool not in self._reports:
                self._show(
                    directory,
                    Warned(f"{printable(directory)} goes to another worker: its first one is lost."),
                )
            told[attempt] = []
        for packed in news["events"]:
            event = unpack(packed)
            if isinstance(event, Uploaded):
                told[attempt].append(event)
            self._show(directory, event)

    async def _spread_hold(self, seconds: float | None) -> None:
        """Tell all workers that the platform fails, or answers again."""
        if seconds is None:
            await self._tell_all(worker_run.recover, self._name)
        else:
            await self._tell_all(worker_run.hold, self._name, seconds)

    async def _tell_all(self, function: Callable[..., None], *arguments: object) -> None:
        """Call ``function`` on each worker that can be reached soon."""
        with suppress(OSError, TimeoutError, ValueError):
            call = self._client.run(function, *arguments, on_error="ignore")
            await asyncio.wait_for(call, _TOLD_WITHIN_S)

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _watch_workers(self) -> None:
        """Raise ClusterError when the scheduler is lost, or all workers have been away for a while."""
        loop = asyncio.get_running_loop()
        alive_at = loop.time()
        hosts = set(self._workers.hosts)
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._client.status != "running":
                raise ClusterError(f"The connection to the scheduler is lost. {self._left()}")
            with suppress(OSError, TimeoutError):
                found = await self._client.nthreads()
                if any(not hosts or host_of(address) in hosts for address in found):
                    alive_at = loop.time()
            if loop.time() - alive_at > self._timeout_s:
                raise ClusterError(f"No worker has been there for {self._timeout_s:g} s. {self._left()}")

    def _left(self) -> str:
        left = len(self._tasks) - len(self._reports)
        return f"{left} of {len(self._tasks)} spools have no report. Run this again."

    async def _stop(self, following: asyncio.Task[None], watching: asyncio.Task[None]) -> None:
        """Cancel the tasks that wait, and give those that run the time of the batch in flight."""
        self._is_stopping = True
        if watching.done():
            watching.result()
        await self._tell_all(worker_run.stop, self._name)
        waiting = [future for spool, future in self._futures.items() if spool not in self._told]
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._client.cancel(waiting), _TOLD_WITHIN_S)
        await asyncio.wait([following, watching], timeout=GRACE_S, return_when=asyncio.FIRST_COMPLETED)

    async def _release(self) -> None:
        """Leave nothing of this run on the cluster."""
        if self._client.status != "running":
            return
        with suppress(ValueError, OSError):
            self._client.unsubscribe_topic(TOPIC)
        if left := list(self._futures.values()):
            await self._tell_all(worker_run.stop, self._name)
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(self._client.cancel(left), _TOLD_WITHIN_S)
        else:
            await self._tell_all(worker_run.forget, self._name)


async def _wait_for(stop: StopSignal) -> None:
    await stop.wait()


def _ends_all(report: SpoolReport) -> bool:
    """Whether no other spool can do better: the token was refused, or the route is missing."""
    return report.exit_code == EXIT_AUTH or any(failure.status == 404 for failure in report.result.failures)
