"""The options of one flush."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cirron_spool.events import FlushEvent
from cirron_spool.pipeline.deadline import StopSignal
from cirron_spool.pipeline.patience import Patience
from cirron_spool.pipeline.platform import Platform
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.selection import Selection

if TYPE_CHECKING:
    import aiohttp


# A fixed number of batches in flight, or one that follows from measurements.
InFlight = int | Literal["auto"]
# Keep or delete each snapshot after its acknowledgement.
SnapshotsOption = Literal["keep", "delete"]


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """The options of a watch; see :func:`cirron_spool.watch_spool`. Times are in seconds."""

    until_pid: int | None = None
    idle_exit_s: float | None = None
    grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class FlushOptions:
    """The options of one flush; see :func:`cirron_spool.flush_spool`. ``watch`` is None for a flush of one listing.

    ``patience`` waits where a flush would give up. ``may_go_on`` is called between two groups of batches. False ends
    the flush with batches left, in favour of another spool.
    """

    quarantine: bool
    keep_going: bool
    in_flight: InFlight
    verify: bool
    selection: Selection
    dry_run: bool
    tuning: Tuning
    platform: Platform | None
    session: aiohttp.ClientSession | None
    on_event: Callable[[FlushEvent], None] | None
    stop: StopSignal | None
    watch: WatchOptions | None = None
    snapshots: SnapshotsOption | None = None
    patience: Patience | None = None
    may_go_on: Callable[[], bool] | None = None
    receipts: str | os.PathLike[str] | None = None
