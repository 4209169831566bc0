"""``flush_spool``: check the public arguments, and start a run of :mod:`cirron_spool.pipeline`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from importlib import import_module
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, TypeGuard

from cirron_spool.concurrency.threads import in_thread
from cirron_spool.display.cell import CellDisplay, cell_display
from cirron_spool.errors import ConfigError
from cirron_spool.events import FlushEvent, FlushResult
from cirron_spool.pipeline.client import Client
from cirron_spool.pipeline.deadline import Deadline, StopSignal
from cirron_spool.pipeline.options import FlushOptions, InFlight, SnapshotsOption, WatchOptions
from cirron_spool.pipeline.report import log_event
from cirron_spool.pipeline.runner import DISK_WORKERS, FlushRun
from cirron_spool.pipeline.window_size import MOST_IN_FLIGHT
from cirron_spool.settings.paths import find_spool
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.selection import Selection

if TYPE_CHECKING:
    import aiohttp

# Imported early: otherwise the caller's event loop waits 25 to 70 ms.
for _module in ("anyio._backends._asyncio", "isal.isal_zlib"):
    with suppress(ImportError):
        import_module(_module)


async def flush_spool(
    directory: str | os.PathLike[str] | None = None,
    *,
    api_url: str | None = None,
    token: str | None = None,
    config_path: str | os.PathLike[str] | None = None,
    timeout_ms: int | None = None,
    retries: int | None = None,
    quarantine: bool = False,
    keep_going: bool = False,
    in_flight: InFlight = 1,
    verify: bool = True,
    selection: Selection | None = None,
    dry_run: bool = False,
    deadline: timedelta | datetime | None = None,
    allow_http: bool | None = None,
    origins: Mapping[str, str] | None = None,
    tuning: Tuning | None = None,
    session: aiohttp.ClientSession | None = None,
    bandwidth: int | None = None,
    client: Client | None = None,
    on_event: Callable[[FlushEvent], None] | None = None,
    stop: StopSignal | None = None,
    snapshots: SnapshotsOption | None = None,
    receipts: str | os.PathLike[str] | None = None,
    watch: WatchOptions | None = None,
) -> FlushResult:
    """Upload the spool in ``directory``, oldest first. Delete each batch after its own acknowledgement.

    Options override the environment (``CIRRON_API_KEY``, ``CIRRON_API_ENDPOINT``, ``CIRRON_OUTPUT_DIR``,
    ``CIRRON_INGEST_PATH``). The environment overrides ``~/.cirron/config.json``, or the file at ``config_path``. That
    file overrides the SDK's ``~/.cirron/config.toml``. With ``token`` or ``CIRRON_API_KEY``, an unusable file is only a
    warning. ``origins`` replaces the names of options in messages: ``{"token": "--token-file t.txt"}``.

    ``timeout_ms`` is the longest time without progress, in milliseconds. ``retries`` bounds the attempts after the
    first. ``quarantine`` moves rejected batches aside, and the flush continues. ``keep_going`` skips a batch that is
    out of retries. Up to ``in_flight`` batches are sent at a time. They are sent and deleted oldest first, but the
    server may accept a batch before an older one. ``in_flight`` "auto" finds the number from measurements. ``verify``
    checks the token with the platform first. ``session`` sends the requests, and stays open. ``bandwidth`` bounds the
    bytes of all request bodies together, in bytes a second. ``client`` shares connections, token, throttle and
    bandwidth with other flushes; it replaces the options about the platform. ``tuning`` bounds the prefetch and chooses
    compression and disk work.

    ``selection`` sends a part of the spool. ``dry_run`` sends and deletes nothing, and takes no lock. It checks the
    directory, the settings and the token, and may renew the token. The result's ``planned`` holds the batches that a
    flush would send.

    ``snapshots`` uploads the run's snapshots before its batches, each one once to a destination. "keep" keeps the
    files, "delete" deletes each one after its own acknowledgement. A snapshot that cannot be delivered does not end the
    flush. The result's ``snapshots`` has the counts. A selection leaves out no snapshot. ``receipts`` names a file that
    gets a line for each acknowledged batch, before its delete. If a line cannot be written, its batch stays and the
    flush ends. ``watch`` follows the spool; see :func:`cirron_spool.watch_spool`.

    ``on_event`` is called in the event loop with each event of :mod:`cirron_spool.events`. Without a listener the
    logger ``cirron_spool`` gets failures and warnings at WARNING, and all other events at DEBUG. The cell of a notebook
    shows the progress. Setting ``stop`` ends the flush gracefully: no new batch is sent, and the batch in flight has
    four seconds. ``deadline`` is a timedelta from now or an aware datetime. The flush ends before it, with exit code 4
    if batches are left.

    Returns the counts. Batches that could not be delivered are in ``failures`` and in the spool. Raises ConfigError
    (arguments or configuration), SpoolError (the directory), SpoolBusyError (another flush), and ResourceError. Raises
    NotAuthenticatedError, AuthInvalidError or TokenRenewalError before the first upload, and AuthRejectedError for a
    401 or 403. The error's ``result`` holds the counts so far, or None before the start of the flush.

    A cancellation is safe at any await: a batch without an acknowledgement stays. A delete after an acknowledgement
    completes before the cancellation is raised.
    """
    tuning = tuning if tuning is not None else Tuning()
    check_options(in_flight, tuning, selection, on_event, stop, deadline, snapshots, watch, receipts)
    own = Client(
        api_url=api_url,
        token=token,
        config_path=config_path,
        timeout_ms=timeout_ms,
        retries=retries,
        allow_http=allow_http,
        origins=origins,
        session=session,
        bandwidth=bandwidth,
    )
    if client is not None and own.given:
        raise ConfigError(
            f"{own.given[0]} is an option of the client. Give it to Client(), not to flush_spool()."
        )
    platform = client.platform if client is not None else None
    has_token = platform is not None or token is not None or bool(os.environ.get("CIRRON_API_KEY"))
    place = await in_thread(partial(find_spool, directory, os.environ, file_needed=not has_token))
    if on_event is None and (display := cell_display()) is not None:
        on_event = partial(_show_in_cell, display)
    options = FlushOptions(
        quarantine,
        keep_going,
        in_flight,
        verify,
        selection if selection is not None else Selection(),
        dry_run,
        tuning,
        platform,
        session,
        on_event,
        Deadline(deadline, stop) if deadline is not None else stop,
        watch,
        snapshots,
        receipts=receipts,
    )
    with SpoolDirectory(place.path) as spool:
        return await FlushRun(spool, client or own, options, place.warning).run()


def _show_in_cell(display: CellDisplay, event: FlushEvent) -> None:
    log_event(event)
    display.note(event)


def check_options(
    in_flight: object,
    tuning: object,
    selection: object,
    on_event: object,
    stop: object,
    deadline: object,
    snapshots: object,
    watch: object,
    receipts: object,
) -> None:
    """Raise ConfigError for options of a flush that cannot be used."""
    if in_flight != "auto" and not (is_whole(in_flight) and 1 <= in_flight <= MOST_IN_FLIGHT):
        raise ConfigError(f'in_flight must be a whole number from 1 to {MOST_IN_FLIGHT}, or "auto".')
    _check_tuning(tuning)
    if not isinstance(selection, Selection | None):
        raise ConfigError(f"selection must be a Selection, not {type(selection).__name__}.")
    _check_listener(on_event)
    _check_stop(stop)
    _check_deadline(deadline)
    _check_receipts(receipts)
    if snapshots not in [None, "keep", "delete"]:  # a list: the value may be unhashable
        raise ConfigError('snapshots must be "keep", "delete" or None.')
    if snapshots is not None and watch is not None:
        raise ConfigError("A watch sends no snapshots. Flush with snapshots when the run has ended.")


def _check_receipts(path: object) -> None:
    if path is not None and (not isinstance(path, str | os.PathLike) or not os.fspath(path)):
        raise ConfigError("receipts must be the path of a file.")


def _check_deadline(deadline: object) -> None:
    if not isinstance(deadline, timedelta | datetime | None):
        raise ConfigError(f"deadline must be a timedelta or a datetime, not {type(deadline).__name__}.")
    if isinstance(deadline, datetime) and deadline.utcoffset() is None:
        raise ConfigError("deadline must have a time zone, such as tzinfo=UTC.")


def _check_tuning(tuning: object) -> None:
    if not isinstance(tuning, Tuning):
        raise ConfigError(f"tuning must be a Tuning, not {type(tuning).__name__}.")
    for option in ("prefetch_batches", "prefetch_bytes", "chunk_bytes"):
        value = getattr(tuning, option)
        if not is_whole(value) or value < 1:
            raise ConfigError(f"{option} must be a whole number above 0.")
    if tuning.gzip_level is not None and not is_whole(tuning.gzip_level):
        raise ConfigError("gzip_level must be a whole number or None.")
    if tuning.disk_work not in list(DISK_WORKERS):  # a list: the value may be unhashable
        raise ConfigError(f"disk_work must be one of: {', '.join(DISK_WORKERS)}.")


def is_whole(value: object) -> TypeGuard[int]:
    """Whether ``value`` is a whole number, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def _check_listener(listener: object) -> None:
    if listener is None:
        return
    if not callable(listener):
        raise ConfigError(f"on_event must be a function, not {type(listener).__name__}.")
    if iscoroutinefunction(listener) or iscoroutinefunction(type(listener).__call__):
        raise ConfigError("on_event must be an ordinary function, not an async one: nothing awaits it.")


def _check_stop(stop: object) -> None:
    # The wait() of a threading.Event would block the event loop.
    if stop is not None and not iscoroutinefunction(getattr(stop, "wait", None)):
        raise ConfigError("stop must be an asyncio.Event or an anyio.Event.")
