"""``flush_on_dask``: the spools below a folder, flushed by the workers of a Dask cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cirron_spool.cluster.dask_client import connected, find_workers, load
from cirron_spool.cluster.secret import Secret
from cirron_spool.cluster.task import SpoolReport, SpoolTask
from cirron_spool.errors import ConfigError, NotAuthenticatedError
from cirron_spool.events import FlushEvent, Warned
from cirron_spool.pipeline.deadline import Deadline, StopSignal
from cirron_spool.pipeline.tally import worst
from cirron_spool.settings.load import load_settings
from cirron_spool.text import count, printable

SCHEDULER_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class ClusterResult:
    """The reports of a run, one for each spool, and its ``warnings``. ``exit_code`` is the worst of the spools'."""

    reports: tuple[SpoolReport, ...]
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """The worst exit code of the spools."""
        return worst(report.exit_code for report in self.reports)


async def flush_on_dask(
    directories: Sequence[str | os.PathLike[str]],
    *,
    scheduler: str,
    token: str | None = None,
    send_credentials: bool = False,
    timeout_s: float = SCHEDULER_TIMEOUT_S,
    stop: StopSignal | None = None,
    deadline: timedelta | datetime | None = None,
    on_event: Callable[[str, FlushEvent], None] | None = None,
    **options: Any,
) -> ClusterResult:
    """Flush spools on the workers of the Dask cluster whose scheduler is at ``scheduler``.

    ``directories`` are paths as the workers see them. Each spool is a task; ``options`` are those of
    :func:`~cirron_spool.flush_spool` that can be pickled. The workers use their own configuration. With
    ``send_credentials`` they use ``token``, or this machine's: only over TLS. A temporary failure of the platform
    holds back all workers. A spool whose worker is lost goes to another one.

    ``timeout_s`` bounds the wait for the scheduler, and for a worker. ``on_event`` is called with the directory of a
    spool and an event of its flush. ``stop`` ends the run gracefully: running tasks have four seconds.

    Raises ConfigError for options that cannot be used, and where Dask is not installed; ClusterError for a cluster that
    cannot be used, or is lost in the midst.
    """
    began = time.monotonic()
    if token is not None and not send_credentials:
        raise ConfigError(
            "A token leaves this machine only with send_credentials. The workers have their own."
        )
    warnings: list[str] = []

    def show(directory: str, event: FlushEvent) -> None:
        if on_event is not None:
            on_event(directory, event)

    def warn(message: str) -> None:
        warnings.append(message)
        show("", Warned(message))

    if deadline is not None:
        end = datetime.now(UTC) + deadline if isinstance(deadline, timedelta) else deadline
        options["deadline"] = end
        stop = Deadline(end, stop)
    here = Path.cwd()
    paths = [str(here / directory) for directory in directories]
    secret = _secret(token, options) if send_credentials else None
    tasks = [SpoolTask(path, secret, options) for path in paths]
    await load()
    from cirron_spool.cluster.dask_run import DaskRun

    async with connected(scheduler, timeout_s=timeout_s, encrypted=send_credentials, warn=warn) as client:
        workers = await find_workers(client, paths[:1], timeout_s=timeout_s, encrypted=send_credentials)
        if workers.without:
            warn(
                f"{count(len(workers.without), 'worker')} without {printable(paths[0])} cannot help, such as "
                f"{workers.without[0]}."
            )
        reports = await DaskRun(client, workers, tasks, show, timeout_s=timeout_s).run(stop)
    return ClusterResult(tuple(reports), tuple(warnings), time.monotonic() - began)


def _secret(token: str | None, options: dict[str, Any]) -> Secret:
    """The token of this machine, and in ``options`` the platform that it is for."""
    settings = load_settings(
        os.environ,
        token=token,
        api_url=options.get("api_url"),
        config_path=options.get("config_path"),
        allow_http=options.get("allow_http"),
        origins=options.get("origins"),
    )
    if settings.credentials is None:
        raise NotAuthenticatedError(hint=settings.missing_hint)
    options["api_url"] = settings.api_url
    options.pop("config_path", None)
    return Secret(settings.credentials.token)
