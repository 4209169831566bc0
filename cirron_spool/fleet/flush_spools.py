"""``flush_spools``: check the public arguments, and start the coordinator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cirron_spool.errors import ConfigError
from cirron_spool.events import FlushSpoolsResult, SpoolEvent
from cirron_spool.fleet.coordinator import Coordinator
from cirron_spool.fleet.search import Places
from cirron_spool.flush import check_options, is_whole
from cirron_spool.pipeline.client import Client
from cirron_spool.pipeline.deadline import StopSignal
from cirron_spool.pipeline.options import FlushOptions, InFlight, SnapshotsOption, WatchOptions
from cirron_spool.settings.paths import spool_directory
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.selection import Selection

if TYPE_CHECKING:
    import aiohttp

_MOST_SPOOLS = 64

AnyPath = str | os.PathLike[str]


async def flush_spools(
    roots: AnyPath | Iterable[AnyPath] = (),
    *,
    directories: Iterable[AnyPath] = (),
    cross_file_systems: bool = False,
    spools: int = 4,
    api_url: str | None = None,
    token: str | None = None,
    config_path: AnyPath | None = None,
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
    on_event: Callable[[SpoolEvent], None] | None = None,
    stop: StopSignal | None = None,
    snapshots: SnapshotsOption | None = None,
    receipts: AnyPath | None = None,
    watch: WatchOptions | None = None,
) -> FlushSpoolsResult:
    """Upload all spools at and below ``roots``, and the spools ``directories``. Flush ``spools`` of them at a time.

    The search finds folders ``.cirron/spool``, and folders whose batch names all have the SDK's form. It follows no
    links, and enters other file systems only with ``cross_file_systems``. It does not search inside a spool. A folder
    that cannot be read causes a warning.

    Each spool is flushed in its own order. :func:`~cirron_spool.flush_spool` describes the other options.
    ``selection`` and ``in_flight`` apply to each spool. ``receipts`` is one file for all spools. All spools share one
    client: connections, token, throttle and bandwidth. The token is verified once, before the first spool with batches.
    The spool with the oldest batch starts first. After 30 seconds, a spool yields to a waiting one, and continues
    later.

    A failed batch ends the flush of its spool only. An answer about the platform ends all flushes, such as a refused
    token or a missing route. Three spools in a row that run out of retries also end all. ``watch`` follows the places:
    new spools and new batches are sent until the watch ends. A watch waits for the end of an outage.

    ``on_event`` is called in the event loop with each :class:`~cirron_spool.SpoolEvent`. ``stop`` and ``deadline`` end
    all flushes gracefully.

    Returns the results of the spools. If a spool cannot be used, the ``warnings`` of its result have the reason. Raises
    ConfigError, SpoolError (a root), ResourceError, and the errors about the token. The error's ``spools`` holds the
    results so far.
    """
    return await make_coordinator(**locals()).run()


def make_coordinator(
    roots: AnyPath | Iterable[AnyPath] = (),
    *,
    directories: Iterable[AnyPath] = (),
    cross_file_systems: bool = False,
    spools: int = 4,
    api_url: str | None = None,
    token: str | None = None,
    config_path: AnyPath | None = None,
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
    on_event: Callable[[SpoolEvent], None] | None = None,
    stop: StopSignal | None = None,
    snapshots: SnapshotsOption | None = None,
    receipts: AnyPath | None = None,
    watch: WatchOptions | None = None,
) -> Coordinator:
    """The coordinator for the arguments of :func:`flush_spools`, not yet running."""
    tuning = tuning if tuning is not None else Tuning()
    check_options(in_flight, tuning, selection, on_event, stop, deadline, snapshots, watch, receipts)
    if not (is_whole(spools) and 1 <= spools <= _MOST_SPOOLS):
        raise ConfigError(f"spools must be a whole number from 1 to {_MOST_SPOOLS}.")
    if not isinstance(watch, WatchOptions | None):
        raise ConfigError(f"watch must be WatchOptions, not {type(watch).__name__}.")
    for option, value in (("dry_run", dry_run), ("keep_going", keep_going)):
        if watch is not None and value:
            raise ConfigError(f"A watch has no {option}.")
    places = Places(_paths("roots", roots), _paths("directories", directories), cross_file_systems)
    if not (places.roots or places.directories):
        raise ConfigError("There is no folder to search for spools. Pass roots or directories.")
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
            f"{own.given[0]} is an option of the client. Give it to Client(), not to flush_spools()."
        )
    options = FlushOptions(
        quarantine,
        keep_going,
        in_flight,
        verify,
        selection if selection is not None else Selection(),
        dry_run,
        tuning,
        None,
        session,
        None,
        stop,
        None,
        snapshots,
        receipts=receipts,
    )
    return Coordinator(
        places,
        client or own,
        options,
        is_own=client is None,
        at_once=spools,
        watch=watch,
        deadline=deadline,
        listener=on_event,
    )


def _paths(argument: str, given: AnyPath | Iterable[AnyPath]) -> tuple[Path, ...]:
    """Absolute paths without duplicates, in their order. Raises ConfigError."""
    if isinstance(given, str | os.PathLike):
        given = (given,)
    if not isinstance(given, Iterable):
        raise ConfigError(f"{argument} must be paths, not {type(given).__name__}.")
    return tuple(dict.fromkeys(spool_directory(each, {}) for each in given))
