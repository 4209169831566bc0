"""How a flush is shown while it runs: a bar on a terminal, lines of JSON, lines for a log, or only what went wrong."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Self

from cirron_spool.cli.console import Console, OutputError
from cirron_spool.cli.render import result_json
from cirron_spool.report import (
    Ended,
    Failed,
    FlushEvent,
    Quarantined,
    Retrying,
    Started,
    Uploaded,
    Warned,
    describe,
    warning_in,
)

if TYPE_CHECKING:
    from types import TracebackType


class FlushView:
    """Tells only what a person must know: errors, warnings, and what was set aside. Base of the other views."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._listed = 0
        self._uploaded = 0
        self._failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to end here."""

    def show(self, event: FlushEvent) -> None:
        """Show one event. Called in the event loop, so it must not take long."""
        match event:
            case Started():
                self._listed = event.batches
            case Uploaded():
                self._uploaded += 1
            case Failed():
                self._failed += 1
                self.say(f"Error: {event.message}")
        if warning := warning_in(event):
            self.say(f"Warning: {warning}")

    def say(self, line: str) -> None:
        """One line on standard error."""
        self.console.say(line)

    def pause(self) -> None:
        """The process is about to be suspended: leave the terminal as it was found."""

    def resume(self, *, draw: bool) -> None:
        """It goes on; ``draw`` says whether the terminal is ours again."""

    def stopping(self) -> None:
        """A first signal has come."""
        self.say(
            "Warning: Stopping; what is in flight has 4 s to be acknowledged. Once more to stop at once."
        )

    def abandon(self) -> None:
        """A second signal has come: the last words."""
        left = self._listed - self._uploaded - self._failed
        self.console.line(f"Uploaded: {self._uploaded}  Failed: {self._failed}  Skipped: {left}")


class Log(FlushView):
    """A line for each event, for a log file."""

    def show(self, event: FlushEvent) -> None:
        """Show one event."""
        super().show(event)
        if not isinstance(event, Failed | Quarantined | Warned):
            self._log(describe(event))

    def _log(self, line: str) -> None:
        self.say(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}")


class JsonEvents(FlushView):
    """One JSON object a line on standard output (SPEC section 7)."""

    def show(self, event: FlushEvent) -> None:
        """Show one event."""
        super().show(event)
        document = _event_json(event)
        if document is not None:
            try:
                self.console.line(json.dumps(document))
            except (
                OutputError
            ) as error:  # said once; what cannot be told must not keep batches from being sent
                self.say(f"Warning: {error}")

    def abandon(self) -> None:
        """The stream ends without its ``end``: that is what happened."""


def _event_json(event: FlushEvent) -> dict[str, Any] | None:
    match event:
        case Started():
            return {
                "event": "start",
                "dir": str(event.directory),
                "batches": event.batches,
                "bytes": event.total_bytes,
            }
        case Uploaded():
            return {"event": "uploaded", "name": event.name, "bytesRead": event.size, "bytesSent": event.sent}
        case Retrying():
            return {
                "event": "retry",
                "name": event.name,
                "status": event.status,
                "message": event.message,
                "delaySeconds": round(event.delay_s, 3),
                "attempt": event.attempt,
            }
        case Failed():
            return {"event": "failed", "name": event.name, "status": event.status, "message": event.message}
        case Quarantined():
            return {
                "event": "quarantined",
                "name": event.name,
                "status": event.status,
                "message": event.message,
            }
        case Ended():
            return {"event": "end", **result_json(event.result)}
        case _:
            return None
