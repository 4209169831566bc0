"""``flush_on_dask``: the spools below folders, flushed by the workers of a Dask cluster."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cirron_spool.cluster.dask_client import connected, find_workers, load
from cirron_spool.cluster.secret import Secret
from cirron_spool.cluster.task import SpoolTask
from cirron_spool.concurrency.threads import in_thread
from cirron_spool.errors import EXIT_OK, EXIT_TEMPFAIL, CirronSpoolError, ConfigError, NotAuthenticatedError
from cirron_spool.events import FlushSpoolsResult, SpoolEvent, Warned
from cirron_spool.pipeline.deadline import Deadline, StopSignal
from cirron_spool.pipeline.tally import worst
from cirron_spool.settings.load import load_settings
from cirron_spool.settings.tuning import Tuning
from cirron_spool.text import count, printable

if TYPE_CHECKING:
    from cirron_spool.cluster.dask_run import DaskRun

SCHEDULER_TIMEOUT_S = 30.0

AnyPath = str | os.PathLike[str]


async def flush_on_dask(
    roots: AnyPath | Iterable[AnyPath] = (),
    *,
    scheduler: str,
    directories: Iterable[AnyPath] = (),
    cross_file_systems: bool = False,
    token: str | None = None,
    send_credentials: bool = False,
    timeout_s: float = SCHEDULER_TIMEOUT_S,
    stop: StopSignal | None = None,
    deadline: timedelta | datetime | None = None,
    on_event: Callable[[SpoolEvent], None] | None = None,
    **options: Any,
) -> FlushSpoolsResult:
    """Flush the spools below ``roots``, and those in ``directories``, on the workers of a Dask cluster.

    ``scheduler`` is the address of its scheduler, or a scheduler file. Paths are those on the workers. A worker
    searches the roots. Each spool is a task, and the spool with the oldest batch is first. ``options`` are those of
    :func:`~cirron_spool.flush_spool` that can be pickled; the threads of the workers share ``bandwidth`` evenly. A
    temporary failure of the platform holds back all workers. A refused token and a missing route end the run. A spool
    whose worker is lost goes to another one.

    The workers use the token of their own configuration. With ``send_credentials`` they use ``token``, or this
    machine's: only over TLS, which ``scheduler`` must have. A sent token is not renewed.

    ``timeout_s`` bounds the wait for the scheduler, and for a worker. ``stop`` ends the run gracefully: batches in
    flight have four seconds, and spools that were not started stay. ``on_event`` is called in the event loop.

    Returns the results by path. Raises ConfigError for options that cannot be used, and where Dask is not installed;
    ClusterError for a cluster that cannot be used, or that is lost: its ``spools`` has the results so far.
    """
    flush = DaskFlush(
        roots,
        scheduler=scheduler,
        directories=directories,
        cross_file_systems=cross_file_systems,
        token=token,
        send_credentials=send_credentials,
        timeout_s=timeout_s,
        stop=stop,
        deadline=deadline,
        on_event=on_event,
        **options,
    )
    return await flush.run()


class DaskFlush:
    """One flush on Dask; the arguments are those of :func:`flush_on_dask`."""

    def __init__(
        self,
        roots: AnyPath | Iterable[AnyPath],
        *,
        scheduler: str,
        directories: Iterable[AnyPath],
        cross_file_systems: bool,
        token: str | None,
        send_credentials: bool,
        timeout_s: float,
        stop: StopSignal | None,
        deadline: timedelta | datetime | None,
        on_event: Callable[[SpoolEvent], None] | None,
        **options: Any,
    ) -> None:
        if token is not None and not send_credentials:
            raise ConfigError(
                "A token leaves this machine only with send_credentials. Without it the workers use their own."
            )
        here = Path.cwd()
        roots = [roots] if isinstance(roots, str | os.PathLike) else roots
        self._roots = [str(here / root) for root in roots]
        self._directories = [str(here / directory) for directory in directories]
        if not (self._roots or self._directories):
            raise ConfigError("There is no folder to search for spools. Pass roots or directories.")
        self._scheduler = scheduler
        self._cross_file_systems = cross_file_systems
        self._token = token
        self._encrypted = send_credentials
        self._timeout_s = timeout_s
        self._stop = stop
        self._deadline = deadline
        self._listener = on_event
        self._options = options
        self._warnings: list[str] = []
        self._began = time.monotonic()
        self._run: DaskRun | None = None

    async def run(self) -> FlushSpoolsResult:
        """Flush; see :func:`flush_on_dask`."""
        await load()
        self._check_options()
        if self._deadline is not None:
            end = self._deadline
            self._options["deadline"] = datetime.now(UTC) + end if isinstance(end, timedelta) else end
            self._stop = Deadline(end, self._stop)
        flushing = asyncio.create_task(self._flush())
        stopping = asyncio.create_task(self._await_stop())
        try:
            await asyncio.wait([flushing, stopping], return_when=asyncio.FIRST_COMPLETED)
            if self._run is None and not flushing.done():
                flushing.cancel()  # nothing has started
                await asyncio.wait([flushing])
            else:
                await asyncio.wait([flushing])
        finally:
            stopping.cancel()
            if not flushing.done():
                flushing.cancel()
                await asyncio.wait([flushing])
        if flushing.cancelled():
            return replace(self.result(), exit_code=EXIT_TEMPFAIL)
        flushing.result()
        return self.result()

    def result(self) -> FlushSpoolsResult:
        """The result so far."""
        found = self._run.results() if self._run is not None else []
        spools = tuple(sorted(found, key=lambda spool: spool.directory))
        return FlushSpoolsResult(
            spools,
            time.monotonic() - self._began,
            worst([EXIT_OK, *(spool.exit_code for spool in spools)]),
            tuple(self._warnings),
            next((spool.destination for spool in spools if spool.destination), ""),
            any(spool.verified for spool in spools),
        )

    async def _flush(self) -> None:
        from cirron_spool.cluster.dask_run import DaskRun, find_spools

        secret = await in_thread(self._secret) if self._encrypted else None
        timeout_s, encrypted = self._timeout_s, self._encrypted
        async with connected(
            self._scheduler, timeout_s=timeout_s, encrypted=encrypted, warn=self._warn
        ) as client:
            workers = await find_workers(client, self._roots, timeout_s=timeout_s, encrypted=encrypted)
            if workers.without:
                self._warn(
                    f"{count(len(workers.without), 'worker')} without {printable(self._roots[0])} will not be used, "
                    f"such as {workers.without[0]}."
                )
            if len(workers.views) > 1:
                self._warn(
                    f"Workers see different folders at {printable(self._roots[0])}. Each spool goes to a worker that "
                    "sees it."
                )
            if (bandwidth := self._options.get("bandwidth")) is not None:
                self._options["bandwidth"] = max(1, bandwidth // workers.threads)
            found, warnings = await find_spools(
                client, workers, self._roots, self._directories, cross_file_systems=self._cross_file_systems
            )
            for warning in warnings:
                self._warn(warning)
            task = SpoolTask("", secret, self._options)
            self._run = DaskRun(client, workers, task, found, self._show, timeout_s=timeout_s)
            try:
                await self._run.run(self._stop)
            except CirronSpoolError as error:
                error.spools = replace(self.result(), exit_code=error.exit_code)
                raise

    async def _await_stop(self) -> None:
        if self._stop is None:
            await asyncio.get_running_loop().create_future()
        else:
            await self._stop.wait()

    def _show(self, event: SpoolEvent) -> None:
        if self._listener is not None:
            self._listener(event)

    def _warn(self, message: str) -> None:
        self._warnings.append(message)
        self._show(SpoolEvent(None, Warned(message)))

    def _check_options(self) -> None:
        """Raise ConfigError for options of a flush that cannot be used on Dask, TypeError for unknown ones."""
        from cirron_spool.flush import check_options, flush_spool

        options = self._options
        if unknown := sorted(options.keys() - signature(flush_spool).parameters.keys()):
            raise TypeError(f"flush_on_dask() got an unexpected keyword argument {unknown[0]!r}")
        if options.get("receipts") is not None:
            raise ConfigError(
                "Several machines cannot write one file of receipts. Flush on one machine for it."
            )
        SpoolTask("", options=options)
        check_options(
            options.get("in_flight", 1),
            options.get("tuning") or Tuning(),
            options.get("selection"),
            self._listener,
            self._stop,
            self._deadline,
            options.get("snapshots"),
            None,
            None,
        )

    def _secret(self) -> Secret:
        """The token of this machine. Also puts its platform into the options. Blocking."""
        options = self._options
        settings = load_settings(
            os.environ,
            token=self._token,
            api_url=options.get("api_url"),
            config_path=options.pop("config_path", None),
            allow_http=options.get("allow_http"),
            origins=options.get("origins"),
        )
        if settings.credentials is None:
            raise NotAuthenticatedError(hint=settings.missing_hint)
        options["api_url"] = settings.api_url
        return Secret(settings.credentials.token)
