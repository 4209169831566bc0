"""The upload of a run's snapshots, before its batches: one file at a time, each one once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from cirron_spool.concurrency.shield import complete
from cirron_spool.concurrency.threads import in_daemon_thread, in_thread
from cirron_spool.errors import EXIT_ATTENTION, EXIT_TEMPFAIL, resource_error
from cirron_spool.events import (
    BatchFailure,
    FlushEvent,
    Sending,
    SnapshotCounts,
    SnapshotFailed,
    SnapshotsStarted,
    SnapshotUploaded,
    Warned,
)
from cirron_spool.pipeline.delivery import Delivery
from cirron_spool.pipeline.ingest import Ingest
from cirron_spool.pipeline.outcome import Outcome
from cirron_spool.pipeline.tally import Tally
from cirron_spool.pipeline.upload_route import OpenSnapshot, SnapshotRoute
from cirron_spool.protocol.snapshot_verdict import WITHOUT_ROUTE
from cirron_spool.protocol.verdict import Action, Verdict
from cirron_spool.settings.paths import SPOOL_NAME
from cirron_spool.spool.file_identity import NotABatch, Removal, Vanished
from cirron_spool.spool.sent_ledger import SentFile, SentLedger
from cirron_spool.spool.snapshot_folder import Found, Incomplete, SnapshotFile, SnapshotFolder
from cirron_spool.spool.snapshots import snapshot_folder
from cirron_spool.text import count, printable, reason

# Temporary failures in a row that end the uploads: the batches must not wait for an outage.
# After one failure, the snapshot itself may be the cause.
_FAILURES_IN_A_ROW = 2


class SnapshotUpload:
    """Uploads the snapshots that belong to ``spool``, oldest first, through ``delivery``.

    ``delete`` deletes each file after its own acknowledgement. ``dry_run`` only lists them. The counts go to ``tally``.
    The failure of a snapshot raises nothing, since the batches follow.
    """

    def __init__(
        self,
        spool: Path,
        ingest: Ingest,
        delivery: Delivery,
        tally: Tally,
        emit: Callable[[FlushEvent], None],
        *,
        delete: bool,
        dry_run: bool,
    ) -> None:
        self._spool = spool
        self._ingest = ingest
        self._delivery = delivery
        self._tally = tally
        self._emit = emit
        self._delete = delete
        self._dry_run = dry_run
        self._counts = SnapshotCounts()
        self._incomplete: list[str] = []
        self._has_route = True
        self._says_unrecorded = True
        self._says_undeleted = True

    async def run(self) -> None:
        """Upload the snapshots. Raises ResourceError, and SpoolBusyError once another process took the spool over."""
        self._count()
        folder = await self._find()
        if folder is None:
            return
        try:
            found = await in_daemon_thread(folder.find, "cirron-spool snapshots")
        except OSError as error:
            self._fail_to_list(
                f"Cannot list the snapshots in {printable(str(folder.path))}: {reason(error)}.", error
            )
            return
        self._warn_of_ignored(found)
        ledger = SentLedger(folder.path, self._ingest.snapshots_url)
        try:
            await in_daemon_thread(ledger.load, "cirron-spool snapshots")
        except OSError as error:
            self._warn(
                f"Cannot read {printable(str(ledger.path))}: {reason(error)}. Snapshots may be sent again."
            )
        pending: list[SnapshotFile] = []
        known: list[SnapshotFile] = []
        for file in found.files:
            (known if ledger.has(file.key, SentFile(file.size, file.mtime_ns)) else pending).append(file)
        self._count(sent_before=len(known), left=len(pending))
        if self._dry_run:
            self._count(planned=tuple((file.key, file.size) for file in pending))
            return
        self._emit(SnapshotsStarted(folder.path, len(pending), sum(file.size for file in pending)))
        if self._delete:
            for file in known:
                await self._delete_known(folder, file, ledger)
        try:
            await self._upload_all(folder, ledger, pending)
        finally:
            if self._counts.left:
                self._tally.exit_codes.add(EXIT_TEMPFAIL)

    # -- the steps -------------------------------------------------------------------------------------------------

    async def _find(self) -> SnapshotFolder | None:
        look = partial(snapshot_folder, self._spool)
        path, is_named = await in_daemon_thread(look, "cirron-spool snapshots")
        if path is not None:
            return SnapshotFolder(path)
        if not is_named:
            self._warn(
                f"Snapshots were not searched: they are beside a directory named {SPOOL_NAME}, "
                f"and {printable(str(self._spool))} has another name."
            )
        return None

    async def _upload_all(
        self, folder: SnapshotFolder, ledger: SentLedger, files: list[SnapshotFile]
    ) -> None:
        route = SnapshotRoute(self._ingest, folder, self._delivery.ensure_claim)
        in_a_row = 0
        for file in files:
            if self._delivery.stopping:
                break
            snapshot = await self._open(folder, file)
            if snapshot is None:
                continue
            self._emit(Sending(snapshot.name, snapshot.size))
            outcome = await self._delivery.deliver_to(route, snapshot)
            if outcome.acknowledged:
                in_a_row = 0
                await complete(self._settle(folder, ledger, snapshot, outcome))
                continue
            if isinstance(outcome.result, OSError):
                self._fail_to_read(file, outcome.result)
                continue
            if outcome.action is Action.RETRY and self._delivery.stopping:
                break
            in_a_row = in_a_row + 1 if outcome.action is Action.RETRY else 0
            self._fail(file.key, outcome.result)
            if outcome.action in (Action.STOP, Action.REFRESH) or in_a_row == _FAILURES_IN_A_ROW:
                break
        self._report_left()

    async def _open(self, folder: SnapshotFolder, file: SnapshotFile) -> OpenSnapshot | None:
        """Open a snapshot. None if it cannot be sent; then the cause is counted."""
        try:
            fingerprint = await in_daemon_thread(partial(folder.fingerprint, file), "cirron-spool snapshots")
        except Vanished:
            self._count(vanished=1, left=-1)
        except Incomplete:
            self._incomplete.append(file.key)
        except NotABatch as error:
            self._fail_to_read(file, OSError(f"it is {error} now"))
        except OSError as error:
            self._fail_to_read(file, error)
        else:
            return OpenSnapshot(file, fingerprint)
        return None

    async def _settle(
        self, folder: SnapshotFolder, ledger: SentLedger, snapshot: OpenSnapshot, outcome: Outcome
    ) -> None:
        """Record an acknowledged snapshot in the ledger, delete it if requested, and report it."""
        uri = outcome.result.server_message if isinstance(outcome.result, Verdict) else ""
        try:
            await in_thread(partial(ledger.record, snapshot.name, snapshot.sent_file, uri))
        except OSError as error:
            if self._says_unrecorded:
                self._says_unrecorded = False
                self._warn(
                    f"Cannot write {printable(str(ledger.path))}: {reason(error)}. "
                    "The next flush will send the snapshots again."
                )
        if self._delete:
            await self._remove(folder, snapshot)
        self._count(uploaded=1, left=-1, bytes_sent=outcome.bytes_sent)
        self._emit(SnapshotUploaded(snapshot.name, snapshot.size, uri))

    async def _delete_known(self, folder: SnapshotFolder, file: SnapshotFile, ledger: SentLedger) -> None:
        """Delete a snapshot of an earlier flush if its file did not change."""
        try:
            snapshot = OpenSnapshot(file, await in_thread(partial(folder.fingerprint, file)))
        except (Vanished, NotABatch, Incomplete):
            return
        except OSError as error:
            self._cannot_delete(file.key, error)
            return
        if ledger.has(file.key, snapshot.sent_file):
            await self._remove(folder, snapshot)

    async def _remove(self, folder: SnapshotFolder, snapshot: OpenSnapshot) -> None:
        await self._delivery.ensure_claim()
        try:
            removal = await in_thread(partial(folder.delete, snapshot.file, snapshot.fingerprint))
            if removal is Removal.DELETED:
                self._count(deleted=1)
        except OSError as error:
            self._cannot_delete(snapshot.name, error)

    def _cannot_delete(self, key: str, error: OSError) -> None:
        self._tally.exit_codes.add(EXIT_ATTENTION)
        if self._says_undeleted:
            self._says_undeleted = False
            self._warn(f"Cannot delete {key}: {reason(error)}. It was sent, and stays.")

    # -- the report --------------------------------------------------------------------------------------------------

    def _fail_to_read(self, file: SnapshotFile, error: OSError) -> None:
        if lacking := resource_error(error):
            raise lacking from None
        if isinstance(error, FileNotFoundError):
            self._count(vanished=1, left=-1)
            return
        self._fail(file.key, Verdict(Action.REJECTED, None, f"Cannot read {file.key}: {reason(error)}."))

    def _fail(self, key: str, verdict: Verdict) -> None:
        self._tally.exit_codes.add(verdict.exit_code)
        if verdict.status in WITHOUT_ROUTE:
            self._has_route = False  # no snapshot is the cause
            self._warn(verdict.message)
            return
        failure = BatchFailure(key, verdict.status, verdict.message, verdict.is_common)
        self._counts = replace(self._counts, failures=(*self._counts.failures, failure))
        self._count(failed=1, left=-1)
        self._emit(SnapshotFailed(key, verdict.status, verdict.message, verdict.hint, verdict.is_common))

    def _report_left(self) -> None:
        if self._incomplete:
            are = count(len(self._incomplete), "snapshot")
            self._warn(
                f"Not sent: {are} that may still be written, such as {self._incomplete[0]}. "
                "A later flush sends what is whole by then."
            )
        untried = self._counts.left - len(self._incomplete)
        if untried and self._has_route:
            self._warn(f"Not sent: {count(untried, 'snapshot')}. Run this again with --snapshots later.")

    def _warn_of_ignored(self, found: Found) -> None:
        if found.ignored:
            entries = count(len(found.ignored), "entry", "entries")
            self._warn(
                f"Ignored beside the snapshots: {entries}, such as {printable(found.ignored[0])}. "
                "Only regular files below a span's identifier are snapshots."
            )

    def _fail_to_list(self, message: str, error: OSError) -> None:
        if lacking := resource_error(error):
            raise lacking from None
        self._tally.exit_codes.add(EXIT_ATTENTION)
        self._warn(message)

    def _count(self, *, planned: tuple[tuple[str, int], ...] = (), **changes: int) -> None:
        """Add ``changes`` to the counts, and copy them to the tally."""
        totals = {name: getattr(self._counts, name) + change for name, change in changes.items()}
        self._counts = replace(self._counts, planned=planned, **totals)
        self._tally.snapshots = self._counts

    def _warn(self, message: str) -> None:
        self._emit(Warned(message))
