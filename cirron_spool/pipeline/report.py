"""The report of a flush: its events, its counts, and its result."""

from __future__ import annotations

import logging
import time
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path

from cirron_spool.errors import EXIT_ATTENTION, EXIT_TEMPFAIL, CirronSpoolError
from cirron_spool.events import (
    Ended,
    FlushEvent,
    FlushResult,
    Found,
    Started,
    Warned,
    describe,
    is_for_person,
    warning_in,
)
from cirron_spool.pipeline.deadline import Deadline
from cirron_spool.pipeline.options import FlushOptions
from cirron_spool.pipeline.preflight import Contents
from cirron_spool.pipeline.tally import Tally
from cirron_spool.telemetry import otel
from cirron_spool.text import count as number_of

LOGGER = logging.getLogger("cirron_spool")
# Without a handler, logging would print warnings to standard error.
LOGGER.addHandler(logging.NullHandler())


class Report:
    """Gives the events of a flush to its listener, and holds the counts in ``tally``.

    ``has_listener`` is True if the events of each batch are used. ``started`` is True after the first listing.
    ``snapshots_left`` is a warning for the end, or empty. ``telemetry`` gets each event before the listener.
    """

    def __init__(self, directory: Path, options: FlushOptions) -> None:
        self.tally = Tally(directory)
        self.started = False
        self.snapshots_left = ""
        # The events of each batch are created only if they are used.
        self.has_listener = (
            options.on_event is not None or LOGGER.isEnabledFor(logging.DEBUG) or otel.is_used()
        )
        self.telemetry: otel.FlushTelemetry | None = None
        self._listener = options.on_event if options.on_event is not None else log_event
        # Threads and timers emit events, too. The listener gets the caller's context variables.
        self._context = copy_context()
        self._stop = options.stop
        self._began = time.monotonic()

    def count_listing(self, contents: Contents) -> None:
        """Count the selected and the left out batches of a listing."""
        self.tally.selected += len(contents.selected.batches)
        self.tally.left_out = contents.selected.left_out

    def report_listing(self, contents: Contents) -> None:
        """Report the listing."""
        self.count_listing(contents)
        selected, irregular = contents.selected, contents.irregular
        if self.started:
            self.emit(Found(len(selected.batches), sum(contents.sizes)))
            return
        self.started = True
        self.emit(
            Started(self.tally.directory, len(selected.batches), sum(contents.sizes), selected.left_out)
        )
        if selected.blocked:
            self.tally.exit_codes.add(EXIT_ATTENTION)  # with this bound, no flush can ever send a batch
            self.warn(selected.blocked)
        self.warn(selected.odd)
        if selected.older and selected.batches:
            older = number_of(selected.older, "older batch")
            self.warn(f"The selection leaves out {older}: they stay, and will arrive after newer ones.")
        if irregular:
            odd = "is not a regular file" if len(irregular) == 1 else "are not regular files"
            entries = f"{number_of(len(irregular), 'entry', 'entries')} with a batch's name {odd}"
            self.warn(
                f"{entries}, such as {irregular[0]} ({contents.irregular_kind}). Move that out of the spool."
            )

    def report_plan(self, contents: Contents) -> None:
        """Report the batches that a flush would send, and warn of empty ones."""
        self.tally.planned = tuple(zip(contents.selected.batches, contents.sizes, strict=True))
        if empty := [name for name, size in self.tally.planned if not size]:
            batches = f"{number_of(len(empty), 'batch')} without a byte, such as {empty[0]},"
            self.warn(f"{batches} cannot be sent. Delete the empty files: a power cut leaves them.")

    def end(self, error: CirronSpoolError | None = None) -> FlushResult:
        """Emit the result. ``error`` is the exception that the caller raises."""
        if self.tally.evicted:
            vanished = number_of(self.tally.evicted, "batch")
            self.warn(
                f"{vanished} vanished before the upload. The SDK deletes the oldest when the spool is full."
            )
        self.warn(self.snapshots_left)
        stop = self._stop
        if isinstance(stop, Deadline) and stop.passed and self.tally.result(0).skipped:
            self.tally.exit_codes.add(EXIT_TEMPFAIL)
        result = self.tally.result(time.monotonic() - self._began)
        if error is not None:
            error.result = result = replace(result, exit_code=error.exit_code)
        self.emit(Ended(result))
        return result

    def emit(self, event: FlushEvent) -> None:
        """Give an event to the listener, in the caller's context. Keep its warning for the result."""
        if warning := warning_in(event):
            self.tally.warnings.append(warning)
        if self.telemetry is not None:
            self.telemetry.note(event)
        self._context.run(self._listener, event)

    def warn(self, message: str) -> None:
        """Emit a warning for a person, unless it is empty."""
        if message:
            self.emit(Warned(message))


def log_event(event: FlushEvent) -> None:
    """Log an event, for a flush without a listener."""
    LOGGER.log(logging.WARNING if is_for_person(event) else logging.DEBUG, "%s", describe(event))
