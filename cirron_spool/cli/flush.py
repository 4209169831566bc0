"""``flush``: upload one spool, show the progress, and stop at a signal."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from cirron_spool.cli.console import Console, Fault, is_terminal
from cirron_spool.cli.directory_hints import warn_of_directory
from cirron_spool.cli.flush_session import FlushSession
from cirron_spool.cli.log_file import LogFile
from cirron_spool.cli.metrics import end_metrics, open_metrics
from cirron_spool.cli.places import are_several
from cirron_spool.cli.render import existence, result_json, sent_line, snapshot_line, summary
from cirron_spool.cli.selection import (
    dry_run_json,
    dry_run_lines,
    entries_json,
    left_out_json,
    selection_of,
    snapshot_plan_json,
    snapshot_plan_lines,
)
from cirron_spool.cli.signals import Signals
from cirron_spool.cli.token_input import read_token
from cirron_spool.cli.views import FlushView, JsonEvents, Lines, Log
from cirron_spool.cli.watch import watch, watch_options
from cirron_spool.concurrency import event_loop
from cirron_spool.errors import (
    EXIT_OK,
    AuthRejectedError,
    CirronSpoolError,
    ConfigError,
    ResourceError,
    resource_errors,
)
from cirron_spool.events import FlushResult
from cirron_spool.flush import flush_spool
from cirron_spool.offline import Inventory, inspect_spool
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.listing import Entry
from cirron_spool.text import count, printable

# The names of flush_spool()'s options on the command line.
_FLAGS = {"api_url": "--api-url", "timeout_ms": "--timeout", "retries": "--retries"}


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Flush as the arguments say; the exit code."""
    selection = selection_of(options)
    watching = watch_options(options)
    if options.scheduler is not None or options.send_credentials or options.scheduler_ms is not None:
        from cirron_spool.cli.flush_dask import check_scheduler_options  # late import: rarely needed

        check_scheduler_options(options)
    if options.delete_snapshots and not options.snapshots:
        raise ConfigError("--delete-snapshots needs --snapshots. Add it, or leave both out.")
    if options.log_file is not None:
        console.log = LogFile(options.log_file)
    token = None
    if options.token_file is not None:
        token = read_token(options.token_file, remedy="Check the file.", option="--token-file")
    given = _given(options, *(field.name for field in fields(Tuning)))
    metrics = open_metrics(options, console) if options.metrics_file is not None else None
    on_dask = options.scheduler is not None
    many = are_several(options) or on_dask
    # Several spools share one event loop, so none may block it with a slow disk. On Dask, each has its own loop.
    tuning = Tuning(**{"disk_work": "thread" if many and not on_dask else "inline", **given})
    view = _choose_view(options, console)
    flush = _session(many, view, options, signals, watching)
    flush.metrics = metrics
    try:
        with view, flush.stopping(), resource_errors():
            result = event_loop.run(
                lambda: flush.run(
                    token=token,
                    tuning=tuning,
                    **_given(options, "api_url", "timeout_ms", "retries", "allow_http"),
                    origins={**_FLAGS, "token": f"--token-file {printable(options.token_file or '')}"},
                    verify=options.verify,
                    selection=selection,
                    dry_run=options.dry_run,
                    quarantine=options.quarantine,
                    keep_going=options.keep_going,
                    in_flight=options.in_flight,
                    deadline=options.deadline,
                    receipts=options.receipts,
                    bandwidth=options.bandwidth,
                    **_snapshots(options),
                )
            )
    except CirronSpoolError as error:
        result = flush.result_in(error)
        if result is None:
            if not (isinstance(error, ResourceError) or signals.number):
                end_metrics(metrics, error.exit_code)
                raise
            result = flush.empty_result()
        fault = Fault.of(error)
        # An event has already shown this error.
        if not isinstance(error, AuthRejectedError):
            console.error(fault.message)
            if error.hint:
                console.warning(error.hint)
        return end_metrics(metrics, flush.end(result, error.exit_code, fault), result)
    return end_metrics(metrics, flush.end(result, result.exit_code), result)


def _snapshots(options: argparse.Namespace) -> dict[str, Any]:
    if not options.snapshots:
        return {}
    return {"snapshots": "delete" if options.delete_snapshots else "keep"}


def _session(
    many: bool, view: FlushView, options: argparse.Namespace, signals: Signals, watching: Mapping[str, Any]
) -> FlushSession[Any]:
    if not many:
        return _Flush(view, options, signals, watching)
    if options.scheduler is not None:
        from cirron_spool.cli.flush_dask import ManyOnDask  # late import: rarely needed

        return ManyOnDask(view, options, signals, watching)
    from cirron_spool.cli.flush_many import ManyFlush  # late import: rarely needed

    return ManyFlush(view, options, signals, watching)


def _choose_view(options: argparse.Namespace, console: Console) -> FlushView:
    """The view for the arguments and the terminal."""
    if options.json_events:
        return JsonEvents(console)
    if options.verbose:
        return Log(console, watch=options.watch)
    capable = (os.environ.get("TERM") or "dumb").lower() not in ("dumb", "unknown")
    quiet = options.quiet or options.dry_run or options.watch
    if capable and is_terminal(sys.stderr) and not quiet and not _is_notebook():
        from cirron_spool.cli.progress import Bar

        bar = Bar(console)
        if bar.can_be_drawn:
            return bar
    return FlushView(console) if quiet else Lines(console)


def _is_notebook() -> bool:
    """Whether a cell of a notebook started the command (``!cirron-spool flush``). Its output cannot be redrawn."""
    # The Jupyter server and the kernel set these variables.
    return "JPY_PARENT_PID" in os.environ or os.environ.get("MPLBACKEND", "").startswith("module://")


class _Flush(FlushSession[FlushResult]):
    """The flush of one spool."""

    async def deliver(self, stop: asyncio.Event, **options: Any) -> FlushResult:
        """Flush, or follow the spool."""
        flush = watch if self._watching else flush_spool
        options |= self._watching
        return await flush(self._options.dir, on_event=self.handle_event, stop=stop, **options)

    def conclude(self, result: FlushResult, exit_code: int, fault: Fault | None) -> int:
        """Print the result."""
        console = self._view.console
        if result.untried and not self._options.dry_run:
            console.warning(f"Stopping flush; {count(result.untried, 'batch')} left in spool.")
        console.note(summary(result))
        if result.snapshots is not None:
            console.note(snapshot_line(result.snapshots))
        listed = result.uploaded + result.failed + result.skipped + result.quarantined + result.evicted
        counts = result.left_out or self._watching or _has_snapshots(result)
        empty = not (listed or counts) and fault is None
        if empty:
            warn_of_directory(self._options.dir, result.directory, console, exists=result.exists)
        if not (self._options.json or self._options.json_events or self._options.quiet):
            if empty:
                console.line(f"No spool files to flush in {printable(str(result.directory))}")
            elif self._options.dry_run:
                if fault is None:
                    console.data(_plan(result, console, verify=self._options.verify))
            else:
                console.line(summary(result))
                if result.snapshots is not None:
                    console.line(snapshot_line(result.snapshots))
                if result.uploaded and result.destination and console.is_for_person:
                    console.line(sent_line(result))
        if exit_code != EXIT_OK and fault is None:
            fault = Fault("BatchesLeft", _reason_left(result))
        return console.end(exit_code, self._document(result), fault)

    def _document(self, result: FlushResult) -> dict[str, object]:
        document = result_json(result)
        if self._options.dry_run:
            document |= {**dry_run_json(result.planned), "verified": result.verified}
            if result.snapshots is not None:
                document |= snapshot_plan_json(result.snapshots.planned)
            if self._options.json_events:
                for entry in entries_json(result.planned):
                    self._view.console.event("planned", entry)
                del document["entries"]
        left_out = left_out_json(self._options, result.left_out)
        return {**document, **left_out, **existence(exists=result.exists)}

    def result_in(self, error: CirronSpoolError) -> FlushResult | None:
        """The result in the error."""
        return error.result

    def empty_result(self) -> FlushResult:
        """A result with the batches in the spool as untried."""
        try:
            inventory = inspect_spool(self._options.dir, selection=selection_of(self._options))
        except CirronSpoolError:
            return FlushResult(Path(self._options.dir or ""))
        left = len(inventory.entries)
        return FlushResult(
            inventory.directory,
            skipped=left,
            untried=left,
            exists=inventory.exists,
            left_out=inventory.left_out,
        )

    def partial_result(self) -> FlushResult:
        """The counts of the view."""
        return self._view.partial_result() or FlushResult(Path(self._options.dir or ""))


def _plan(result: FlushResult, console: Console, *, verify: bool) -> Iterator[str]:
    """The result of a dry run as text."""
    entries = [Entry(name, size) for name, size in result.planned]
    unknown = "did not say whether the token is valid" if verify else "was not asked about the token"
    token = "accepts the token" if result.verified else unknown
    ending = f"would be sent to {printable(result.destination)}. The platform {token}."
    inventory = Inventory(result.directory, entries, left_out=result.left_out)
    yield from dry_run_lines(inventory, ending, console.columns, console.rows)
    if result.snapshots is not None:
        yield from snapshot_plan_lines(result.snapshots.planned)


def _has_snapshots(result: FlushResult) -> bool:
    counts = result.snapshots
    return counts is not None and bool(
        counts.uploaded or counts.failed or counts.left or counts.vanished or counts.sent_before
    )


def _reason_left(result: FlushResult) -> str:
    """The reason for batches left in the spool, in one line."""
    if result.failures:
        return result.failures[-1].message
    if result.snapshots is not None and result.snapshots.failures:
        return result.snapshots.failures[-1].message
    return result.warnings[-1] if result.warnings else "Batches are left in the spool."


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(options, name)) is not None}
