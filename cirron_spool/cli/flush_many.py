"""``flush`` of several spools: one display, and one summary with a line for each failed spool."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from cirron_spool.cli.console import Console, Fault
from cirron_spool.cli.flush_session import FlushSession
from cirron_spool.cli.grid import grid
from cirron_spool.cli.places import no_spools
from cirron_spool.cli.render import existence, result_json, sent_line, snapshot_line, summary, totals_json
from cirron_spool.cli.selection import dry_run_json, left_out_json, snapshot_plan_json
from cirron_spool.errors import EXIT_OK, EXIT_TEMPFAIL, CirronSpoolError
from cirron_spool.events import BatchFailure, FlushResult, FlushSpoolsResult, SnapshotCounts, SpoolEvent
from cirron_spool.fleet.coordinator import Coordinator
from cirron_spool.fleet.flush_spools import make_coordinator
from cirron_spool.pipeline.options import WatchOptions
from cirron_spool.text import count, human_size, printable

# Most failed spools in the summary. ``--json`` has all.
_MOST_NAMED = 50


class ManyFlush(FlushSession[FlushSpoolsResult]):
    """The flush of several spools."""

    _coordinator: Coordinator | None = None

    @property
    def watched(self) -> str:
        """The roots, or the spools that were named."""
        roots = ", ".join(printable(root) for root in self._options.discover)
        return f"the spools below {roots}" if roots else "the spools"

    async def deliver(self, stop: asyncio.Event, **options: Any) -> FlushSpoolsResult:
        """Flush, or follow the spools."""
        if self._watching:
            watching = self._watching
            options["watch"] = WatchOptions(
                watching["until_pid"], watching["idle_exit_s"], watching["grace_s"]
            )
        if self._options.spools is not None:
            options["spools"] = self._options.spools
        self._coordinator = make_coordinator(
            self._options.discover,
            directories=self._options.dirs,
            cross_file_systems=self._options.cross_file_systems,
            on_event=self._show,
            stop=stop,
            **options,
        )
        return await self._coordinator.run()

    def _show(self, event: SpoolEvent) -> None:
        self.handle_event(event.event, event.directory)

    def result_in(self, error: CirronSpoolError) -> FlushSpoolsResult | None:
        """The result in the error."""
        return error.spools

    def empty_result(self) -> FlushSpoolsResult:
        """A result without a spool."""
        return FlushSpoolsResult(())

    def partial_result(self) -> FlushSpoolsResult:
        """The result of the coordinator so far."""
        return self._coordinator.result() if self._coordinator is not None else self.empty_result()

    def conclude(self, result: FlushSpoolsResult, exit_code: int, fault: Fault | None) -> int:
        """Print the result."""
        options, console = self._options, self._view.console
        self._warn_of(result)
        looks = [spool for spool in result.spools if _needs_look(spool)]
        lines = [*_looks(looks), _summary(result)]
        if (counts := _snapshots(result)) is not None:
            lines.append(snapshot_line(counts))
        for line in lines:
            console.note(line)
        if not (options.json or options.json_events or options.quiet):
            if not result.spools and fault is None:
                console.line(no_spools(options))
            elif not (_listed(result) or options.dry_run) and fault is None:
                console.line(f"No spool files to flush in {count(len(result.spools), 'spool')}")
            elif options.dry_run and fault is None:
                console.data(_plan(result, console, verify=options.verify))
            else:
                console.data(lines)
                if result.uploaded and result.destination and console.is_for_person:
                    console.line(sent_line(result))
        if exit_code != EXIT_OK and fault is None:
            why = _reason(looks[-1]) if looks else "Batches are left in the spools."
            fault = Fault("BatchesLeft", result.warnings[-1] if result.warnings else why)
        return console.end(exit_code, self._document(result), fault)

    def _warn_of(self, result: FlushSpoolsResult) -> None:
        console = self._view.console
        if result.untried and not self._options.dry_run:
            console.warning(f"Left in the spools: {count(result.untried, 'batch')}.")
        for spool in () if self._watching else result.spools:
            if not spool.exists:
                console.warning(f"{printable(str(spool.directory))} does not exist. Check --dir.")

    def _document(self, result: FlushSpoolsResult) -> dict[str, object]:
        options = self._options
        spools = [self._spool_json(spool) for spool in result.spools]
        totals = {**totals_json(result), "destination": result.destination or None}
        if options.dry_run:
            files = sum(len(spool.planned) for spool in result.spools)
            size = sum(size for spool in result.spools for _, size in spool.planned)
            totals |= {"dryRun": True, "files": files, "totalBytes": size, "verified": result.verified}
        return {"spools": spools, **totals, **left_out_json(options, result.left_out)}

    def _spool_json(self, spool: FlushResult) -> dict[str, object]:
        document = result_json(spool)
        if self._options.dry_run:
            document |= dry_run_json(spool.planned)
            if spool.snapshots is not None:
                document |= snapshot_plan_json(spool.snapshots.planned)
        return {
            **document,
            **left_out_json(self._options, spool.left_out),
            **existence(exists=spool.exists),
            "warnings": list(spool.warnings),
            "exitCode": spool.exit_code,
        }


def _summary(result: FlushSpoolsResult) -> str:
    return f"{summary(result)}  Spools: {len(result.spools)}"


def _snapshots(result: FlushSpoolsResult) -> SnapshotCounts | None:
    """The snapshots of all spools together; None for a flush without ``--snapshots``."""
    counted = [spool.snapshots for spool in result.spools if spool.snapshots is not None]
    if not counted:
        return None
    names = ("uploaded", "failed", "left", "vanished", "sent_before", "deleted", "bytes_sent")
    return SnapshotCounts(**{name: sum(getattr(each, name) for each in counted) for name in names})


def _listed(result: FlushSpoolsResult) -> bool:
    """Whether any spool had a batch or a snapshot, or ended with an error."""
    return bool(
        result.uploaded
        + result.failed
        + result.skipped
        + result.quarantined
        + result.evicted
        + result.left_out
        or any(spool.exit_code or spool.snapshots is not None for spool in result.spools)
    )


def _needs_look(spool: FlushResult) -> bool:
    """Whether a person must look at the spool. A spool that was not started only needs the next flush."""
    return spool.exit_code not in (EXIT_OK, EXIT_TEMPFAIL) or bool(
        spool.exit_code and (spool.failures or spool.warnings)
    )


def _looks(spools: list[FlushResult]) -> Iterator[str]:
    # One spool represents those that ended with the same answer of the platform.
    common: set[int | None] = set()
    named, alike = [], 0
    for spool in spools:
        failure = _last_failure(spool)
        if failure is not None and failure.is_common:
            if failure.status in common:
                alike += 1
                continue
            common.add(failure.status)
        named.append(spool)
    for spool in named[:_MOST_NAMED]:
        yield f"{printable(str(spool.directory))}: {summary(spool)}  {_reason(spool)}".rstrip()
    if alike:
        yield f"{count(alike, 'further spool')} ended with the same answer; --json lists all."
    if len(named) > _MOST_NAMED:
        yield f"{count(len(named) - _MOST_NAMED, 'further spool')} need a look; --json lists all."


def _last_failure(spool: FlushResult) -> BatchFailure | None:
    failures = spool.failures or (spool.snapshots.failures if spool.snapshots is not None else ())
    return failures[-1] if failures else None


def _reason(spool: FlushResult) -> str:
    if (failure := _last_failure(spool)) is not None:
        return failure.message
    return spool.warnings[-1] if spool.warnings else ""


def _plan(result: FlushSpoolsResult, console: Console, *, verify: bool) -> Iterator[str]:
    """The result of a dry run as text: a line for each spool with batches."""
    planned = [(spool, sum(size for _, size in spool.planned)) for spool in result.spools if spool.planned]
    files = sum(len(spool.planned) for spool, _ in planned)
    rows = [
        (printable(str(spool.directory)), str(len(spool.planned)), human_size(size))
        for spool, size in planned
    ]
    if rows:
        yield from grid(rows, ("Spool", "Batches", "Size"), "<>>", console.columns)
    yield from _looks([spool for spool in result.spools if _needs_look(spool)])
    size = human_size(sum(size for _, size in planned))
    what = f"{count(files, 'file')} ({size}) in {count(len(planned), 'spool')}"
    if not files:
        yield f"Dry run: nothing would be sent; {count(len(result.spools), 'spool')} found."
        return
    unknown = "did not say whether the token is valid" if verify else "was not asked about the token"
    token = "accepts the token" if result.verified else unknown
    yield f"Dry run: {what} would be sent to {printable(result.destination)}. The platform {token}."
