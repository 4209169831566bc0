"""Show, upload and empty the spool that the Cirron Python SDK writes.

``flush_spool`` uploads a spool with asyncio, ``flush_spool_sync`` without an event loop. ``watch_spool`` follows a run.
``BackgroundDelivery`` follows a run from a thread of the training process. ``flush_spools`` and ``flush_spools_sync``
upload all spools below a folder. ``inspect_spool`` and ``clear_spool`` work offline. A name is imported at its first
use, so ``inspect`` starts without the HTTP client.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from cirron_spool.cluster.dask_flush import flush_on_dask
    from cirron_spool.cluster.secret import Secret
    from cirron_spool.cluster.task import SpoolReport, SpoolTask, flush_one
    from cirron_spool.errors import (
        AuthError,
        AuthInvalidError,
        AuthRejectedError,
        CirronSpoolError,
        ClusterError,
        ConfigError,
        NotAuthenticatedError,
        ResourceError,
        SignInError,
        SpoolBusyError,
        SpoolError,
        TokenRenewalError,
    )
    from cirron_spool.events import (
        BatchFailure,
        Ended,
        Failed,
        FlushEvent,
        FlushResult,
        FlushSpoolsResult,
        Found,
        Progress,
        Quarantined,
        Resumed,
        Retrying,
        Sending,
        SnapshotCounts,
        SnapshotFailed,
        SnapshotsStarted,
        SnapshotUploaded,
        SpoolEvent,
        SpoolsFound,
        Started,
        Uploaded,
        Waiting,
        Warned,
    )
    from cirron_spool.fleet.flush_spools import flush_spools
    from cirron_spool.flush import flush_spool
    from cirron_spool.integrations.background import BackgroundDelivery
    from cirron_spool.offline import ClearResult, Inventory, clear_spool, inspect_spool
    from cirron_spool.pipeline.client import Client
    from cirron_spool.pipeline.options import WatchOptions
    from cirron_spool.settings.tuning import Tuning
    from cirron_spool.spool.selection import Selection
    from cirron_spool.sync import flush_spool_sync, flush_spools_sync
    from cirron_spool.traces.reading import Traces, read_traces
    from cirron_spool.watch import Watch, watch_spool

# The module of each public name.
_HOMES = {
    "integrations.background": "BackgroundDelivery",
    "cluster.dask_flush": "flush_on_dask",
    "cluster.secret": "Secret",
    "cluster.task": "SpoolReport SpoolTask flush_one",
    "errors": (
        "AuthError AuthInvalidError AuthRejectedError CirronSpoolError ClusterError ConfigError "
        "NotAuthenticatedError ResourceError SignInError SpoolBusyError SpoolError TokenRenewalError"
    ),
    "fleet.flush_spools": "flush_spools",
    "flush": "flush_spool",
    "offline": "ClearResult Inventory clear_spool inspect_spool",
    "pipeline.client": "Client",
    "pipeline.options": "WatchOptions",
    "settings.tuning": "Tuning",
    "spool.selection": "Selection",
    "sync": "flush_spool_sync flush_spools_sync",
    "traces.reading": "Traces read_traces",
    "watch": "Watch watch_spool",
    "events": (
        "BatchFailure Ended Failed FlushEvent FlushResult FlushSpoolsResult Found Progress Quarantined Resumed "
        "Retrying Sending SnapshotCounts SnapshotFailed SnapshotUploaded SnapshotsStarted SpoolEvent SpoolsFound "
        "Started Uploaded Waiting Warned"
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "AuthError",
    "AuthInvalidError",
    "AuthRejectedError",
    "BackgroundDelivery",
    "BatchFailure",
    "CirronSpoolError",
    "ClearResult",
    "Client",
    "ClusterError",
    "ConfigError",
    "Ended",
    "Failed",
    "FlushEvent",
    "FlushResult",
    "FlushSpoolsResult",
    "Found",
    "Inventory",
    "NotAuthenticatedError",
    "Progress",
    "Quarantined",
    "ResourceError",
    "Resumed",
    "Retrying",
    "Secret",
    "Selection",
    "Sending",
    "SignInError",
    "SnapshotCounts",
    "SnapshotFailed",
    "SnapshotUploaded",
    "SnapshotsStarted",
    "SpoolBusyError",
    "SpoolError",
    "SpoolEvent",
    "SpoolReport",
    "SpoolTask",
    "SpoolsFound",
    "Started",
    "TokenRenewalError",
    "Traces",
    "Tuning",
    "Uploaded",
    "Waiting",
    "Warned",
    "Watch",
    "WatchOptions",
    "__version__",
    "clear_spool",
    "flush_on_dask",
    "flush_one",
    "flush_spool",
    "flush_spool_sync",
    "flush_spools",
    "flush_spools_sync",
    "inspect_spool",
    "read_traces",
    "watch_spool",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if (
        name in ("flush_spool", "flush_spools")
        and f"{__name__}.flush" not in sys.modules
        and _is_in_event_loop()
    ):
        # The HTTP client takes a quarter of a second to import. A thread imports it, so the loop stays free.
        return getattr(import_module(f"{__name__}.lazy_flush"), name)
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def _is_in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and asyncio.get_running_loop() is not None
    except RuntimeError:
        return False


def __dir__() -> list[str]:
    return __all__
