"""``flush_on_dask``: the spools below folders, flushed by the workers of a Dask cluster."""

from __future__ import annotations

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
from cirron_spool.errors import CirronSpoolError, ConfigError, NotAuthenticatedError
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

    ``scheduler`` is the address of its scheduler, or a scheduler file. Paths are those of the workers; a worker
    searches the roots. Each spool is a task, the one with the oldest batch first. ``options`` are those of
    :func:`~cirron_spool.flush_spool` that can be pickled; the threads of the workers share ``bandwidth`` evenly. A
    temporary failure of the platform holds back all workers. A refused token and a missing route end the run. A spool
    whose worker is lost goes to another one.

    The workers use the token of their own configuration. With ``send_credentials`` they use ``token``, or this
    machine's: only over TLS, which ``scheduler`` must have. A sent token is not renewed.

    ``timeout_s`` bounds the wait for the scheduler, and for a worker. ``stop`` ends the run gracefully: batches in
    flight have four seconds, and spools that were not begun stay. ``on_event`` is called in the event loop.

    Returns the results by path. Raises ConfigError for options that cannot be used, and where Dask is not installed;
    ClusterError for a cluster that cannot be used, or that is lost: its ``spools`` has the results so far.
    """
    began = time.monotonic()
    await load()
    check_dask_options(options, on_event, stop, deadline)
    if token is not None and not send_credentials:
        raise ConfigError(
            "A token leaves this machine only with send_credentials. The workers have their own."
        )
    here = Path.cwd()
    roots = [roots] if isinstance(roots, str | os.PathLike) else roots
    places = [str(here / root) for root in roots], [str(here / directory) for directory in directories]
    if not any(places):
        raise ConfigError("There is no place to look for spools. Pass roots or directories.")
    warnings: list[str] = []

    def show(event: SpoolEvent) -> None:
        if on_event is not None:
            on_event(event)

    def warn(message: str) -> None:
        warnings.append(message)
        show(SpoolEvent(None, Warned(message)))

    def result(run: DaskRun) -> FlushSpoolsResult:
        spools = tuple(sorted(run.results(), key=lambda spool: spool.directory))
        return FlushSpoolsResult(
            spools,
            time.monotonic() - began,
            worst(spool.exit_code for spool in spools),
            tuple(warnings),
            next((spool.destination for spool in spools if spool.destination), ""),
            any(spool.verified for spool in spools),
        )

    if deadline is not None:
        options["deadline"] = datetime.now(UTC) + deadline if isinstance(deadline, timedelta) else deadline
        stop = Deadline(deadline, stop)
    secret = _secret(token, options) if send_credentials else None
    from cirron_spool.cluster.dask_run import DaskRun, find_spools

    async with connected(scheduler, timeout_s=timeout_s, encrypted=send_credentials, warn=warn) as client:
        workers = await find_workers(client, places[0], timeout_s=timeout_s, encrypted=send_credentials)
        if workers.without:
            warn(
                f"{count(len(workers.without), 'worker')} without {printable(places[0][0])} cannot help, such as "
                f"{workers.without[0]}."
            )
        if (bandwidth := options.get("bandwidth")) is not None:
            options["bandwidth"] = max(1, bandwidth // workers.threads)
        task = SpoolTask("", secret, options)
        found, passed_by = await find_spools(client, workers, *places, cross_file_systems=cross_file_systems)
        for warning in passed_by:
            warn(warning)
        run = DaskRun(client, workers, task, found, show, timeout_s=timeout_s)
        try:
            await run.run(stop)
        except CirronSpoolError as error:
            error.spools = replace(result(run), exit_code=error.exit_code)
            raise
    return result(run)


def check_dask_options(options: dict[str, Any], on_event: object, stop: object, deadline: object) -> None:
    """Raise ConfigError for ``options`` of a flush that cannot be used on Dask, TypeError for unknown ones."""
    from cirron_spool.flush import check_options, flush_spool

    if unknown := sorted(options.keys() - signature(flush_spool).parameters.keys()):
        raise TypeError(f"flush_on_dask() got an unexpected keyword argument {unknown[0]!r}")
    if options.get("receipts") is not None:
        raise ConfigError(
            "Several machines cannot write one file of receipts. Use flush_spools() on one machine."
        )
    SpoolTask("", options=options)
    check_options(
        options.get("in_flight", 1),
        options.get("tuning") or Tuning(),
        options.get("selection"),
        on_event,
        stop,
        deadline,
        options.get("snapshots"),
        None,
        None,
    )


def _secret(token: str | None, options: dict[str, Any]) -> Secret:
    """The token of this machine; ``options`` then name the platform that it is for."""
    settings = load_settings(
        os.environ,
        token=token,
        api_url=options.get("api_url"),
        config_path=options.pop("config_path", None),
        allow_http=options.get("allow_http"),
        origins=options.get("origins"),
    )
    if settings.credentials is None:
        raise NotAuthenticatedError(hint=settings.missing_hint)
    options["api_url"] = settings.api_url
    return Secret(settings.credentials.token)
