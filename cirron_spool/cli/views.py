"""The views of a running flush: a progress bar, JSON lines, log lines, or only errors."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cirron_spool.cli.console import Console
from cirron_spool.cli.render import result_json
from cirron_spool.display.meter import Meter
from cirron_spool.events import (
    Ended,
    Failed,
    FlushEvent,
    FlushResult,
    Found,
    Progress,
    Quarantined,
    Resumed,
    Retrying,
    SnapshotFailed,
    SnapshotsStarted,
    SnapshotUploaded,
    SpoolsFound,
    Started,
    Uploaded,
    Waiting,
    Warned,
    describe,
    warning_in,
)
from cirron_spool.pipeline.tally import Tally
from cirron_spool.text import count, printable

if TYPE_CHECKING:
    from types import TracebackType


# An event's name and its fields.
_Described = tuple[str, dict[str, Any]]

# Seconds between two progress lines, and before the first one.
_PERIOD_S = 10.0


class FlushView:
    """Shows only errors, warnings, and quarantined batches. The base of the other views."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()
        self.tally = Tally(Path())
        self._begun = False
        self._common: set[int | None] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to end here."""

    def show(self, event: FlushEvent | SpoolsFound, spool: Path | None = None) -> None:
        """Show one event.

        Called in the event loop, so it must be fast. With several spools, ``spool`` is the directory.
        """
        if isinstance(event, SpoolsFound):
            return
        place = f"{printable(str(spool))}: " if spool is not None else ""
        if not isinstance(event, Failed | Quarantined | SnapshotFailed | Warned | Progress | Ended):
            self.console.note(f"{place}{describe(event)}")
        if spool is None:
            self.tally.note(event)
        elif isinstance(event, Failed | SnapshotFailed) and event.is_common:
            if event.status in self._common:  # the other spools under way get the same answer
                self.console.note(f"{place}{describe(event)}")
                return
            self._common.add(event.status)
        match event:
            case Started():
                self._begun = True
            case Waiting():
                self.console.say(f"Warning: {place}{event.message}")
            case Resumed():
                self.console.say(describe(event))
            case Failed():
                self.console.error(f"{place}{event.message}")
        if warning := warning_in(event):
            self.console.warning(f"{place}{warning}")

    def partial_result(self) -> FlushResult | None:
        """The result so far; None before the flush began."""
        return self.tally.result(time.monotonic() - self._began) if self._begun else None

    def pause(self) -> None:
        """Restore the terminal before the process is suspended."""

    def resume(self, *, draw: bool) -> None:
        """Continue. ``draw`` is True if the process is in the foreground."""

    def close(self) -> None:
        """Restore the terminal, and show nothing more."""


class Lines(FlushView):
    """Progress lines during a long flush, for a pipe or the log of a CI job. A ``watch`` has none."""

    def __init__(self, console: Console, *, watch: bool = False) -> None:
        super().__init__(console)
        self._watch = watch
        self._meter = Meter()
        self._next: asyncio.TimerHandle | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, event: FlushEvent | SpoolsFound, spool: Path | None = None) -> None:
        """Show one event."""
        super().show(event, spool)
        self._meter.note(event, spool)
        match event:
            case Started() if not self._watch and self._next is None:
                self._tell_later()
            case Ended() if spool is None:
                self.close()

    def close(self) -> None:
        """Stop the progress lines."""
        if self._next is not None:
            self._next.cancel()

    def _tell_later(self) -> None:
        self._next = asyncio.get_running_loop().call_later(_PERIOD_S, self._tell)

    def _tell(self) -> None:
        self._tell_later()
        waiting = f"; {self._meter.now()}" if self._meter.waits else ""
        self.console.say(f"Progress: {', '.join(self._meter.parts())}{waiting}")


class Log(Lines):
    """A line for each event, for a log file."""

    def show(self, event: FlushEvent | SpoolsFound, spool: Path | None = None) -> None:
        """Show one event."""
        super().show(event, spool)
        shown = Failed | Quarantined | SnapshotFailed | Waiting | Resumed | Warned | Progress
        if isinstance(event, SpoolsFound):
            spools = count(event.spools, "spool")
            self._log(f"found {spools}, {count(event.batches, 'batch')} in them")
        elif not isinstance(event, shown):
            place = f"{printable(str(spool))}: " if spool is not None else ""
            self._log(f"{place}{describe(event)}")

    def _log(self, line: str) -> None:
        self.console.say(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}")


class JsonEvents(FlushView):
    """One JSON object a line on standard output (docs/contract.md, JSON forms)."""

    def show(self, event: FlushEvent | SpoolsFound, spool: Path | None = None) -> None:
        """Show one event. With several spools, it has the directory."""
        if isinstance(event, SpoolsFound):
            described: _Described | None = (
                "spools",
                {
                    "spools": event.spools,
                    "withBatches": event.with_batches,
                    "batches": event.batches,
                },
            )
        elif isinstance(event, Ended) and spool is not None:
            described = "spoolEnd", {**result_json(event.result), "exitCode": event.result.exit_code}
        else:
            described = _event_json(event)
        if described is not None:
            name, fields = described
            self.console.event(name, fields if spool is None else {"dir": str(spool), **fields})
        super().show(event, spool)


def _event_json(event: FlushEvent) -> _Described | None:
    """An event's name and its fields; None for the warnings and the end, which the console writes."""
    match event:
        case Started():
            return "start", {
                "dir": str(event.directory),
                "batches": event.batches,
                "bytes": event.total_bytes,
            }
        case Found():
            return "found", {"batches": event.batches, "bytes": event.total_bytes}
        case Waiting():
            return "waiting", {"cause": event.cause, "message": event.message}
        case Resumed():
            return "resumed", {"cause": event.cause, "seconds": round(event.seconds, 3)}
        case Uploaded():
            return "uploaded", {"name": event.name, "bytesRead": event.size, "bytesSent": event.sent}
        case Retrying():
            return "retry", {
                "name": event.name,
                "status": event.status,
                "message": event.message,
                "delaySeconds": round(event.delay_s, 3),
                "attempt": event.attempt,
            }
        case Failed():
            return "failed", {"name": event.name, "status": event.status, "message": event.message}
        case Quarantined():
            return "quarantined", {"name": event.name, "status": event.status, "message": event.message}
        case SnapshotsStarted():
            return "snapshots", {
                "dir": str(event.folder),
                "snapshots": event.snapshots,
                "bytes": event.total_bytes,
            }
        case SnapshotUploaded():
            return "snapshotUploaded", {"name": event.name, "bytes": event.size, "uri": event.uri or None}
        case SnapshotFailed():
            return "snapshotFailed", {"name": event.name, "status": event.status, "message": event.message}
        case _:
            return None
