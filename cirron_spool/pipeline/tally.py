"""The counts of a running flush, and its exit code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cirron_spool.display.warning_lines import WarningLines
from cirron_spool.errors import EXIT_ATTENTION, EXIT_AUTH, EXIT_OK, EXIT_TEMPFAIL, EXIT_USAGE
from cirron_spool.events import (
    BatchFailure,
    Failed,
    FlushEvent,
    FlushResult,
    Found,
    Quarantined,
    SnapshotCounts,
    Started,
    Uploaded,
)


def worst(codes: Iterable[int]) -> int:
    """The most serious exit code: usage, authentication, attention, temporary, none."""
    rank = {EXIT_OK: 0, EXIT_TEMPFAIL: 1, EXIT_ATTENTION: 2, EXIT_AUTH: 3, EXIT_USAGE: 4}
    return max(codes, key=lambda code: rank.get(code, 2), default=EXIT_OK)


@dataclass(slots=True)
class Tally:
    """The counts of a running flush. A selected batch with no other count is skipped.

    ``planned`` holds name and size of each batch of a dry run.
    """

    directory: Path
    selected: int = 0
    uploaded: int = 0
    quarantined: int = 0
    evicted: int = 0
    bytes_read: int = 0
    bytes_sent: int = 0
    failures: list[BatchFailure] = field(default_factory=list)
    unsendable: int = 0
    exit_codes: set[int] = field(default_factory=set)
    warnings: WarningLines = field(default_factory=WarningLines)
    destination: str = ""
    exists: bool = True
    left_out: int = 0
    planned: tuple[tuple[str, int], ...] = ()
    verified: bool = False
    snapshots: SnapshotCounts | None = None

    def upload(self, size: int, sent: int) -> None:
        """Count an acknowledged and deleted batch: ``size`` bytes of file, ``sent`` bytes of body."""
        self.uploaded += 1
        self.bytes_read += size
        self.bytes_sent += sent

    def fail(self, failure: BatchFailure, exit_code: int) -> None:
        """Count a batch that failed and stays in the spool."""
        self.failures.append(failure)
        self.exit_codes.add(exit_code)

    def set_aside(self) -> None:
        """Count a rejected batch in the quarantine. A person must look at it."""
        self.quarantined += 1
        self.exit_codes.add(EXIT_ATTENTION)

    def skip(self) -> None:
        """Count a batch that cannot be sent and stays. A person must look at it; the flush continues."""
        self.unsendable += 1
        self.exit_codes.add(EXIT_ATTENTION)

    def note(self, event: FlushEvent) -> None:
        """Count an event, for a listener that keeps its own counts."""
        match event:
            case Started():
                self.directory, self.selected, self.left_out = event.directory, event.batches, event.left_out
            case Found():
                self.selected += event.batches
            case Uploaded():
                self.upload(event.size, event.sent)
            case Quarantined():
                self.set_aside()
            case Failed():
                failure = BatchFailure(event.name, event.status, event.message, event.is_common)
                self.fail(failure, EXIT_ATTENTION)

    def result(self, seconds: float) -> FlushResult:
        """The totals so far as a frozen result."""
        skipped = self.selected - self.uploaded - len(self.failures) - self.quarantined - self.evicted
        untried = skipped - self.unsendable - len(self.planned)
        return FlushResult(
            directory=self.directory,
            uploaded=self.uploaded,
            failed=len(self.failures),
            skipped=skipped,
            quarantined=self.quarantined,
            evicted=self.evicted,
            untried=untried,
            bytes_read=self.bytes_read,
            bytes_sent=self.bytes_sent,
            seconds=seconds,
            failures=tuple(self.failures),
            # Untried without a failure: the flush was stopped, and a later flush continues.
            exit_code=worst(self.exit_codes) or (EXIT_TEMPFAIL if untried else EXIT_OK),
            warnings=self.warnings.lines(),
            destination=self.destination,
            exists=self.exists,
            left_out=self.left_out,
            planned=self.planned,
            verified=self.verified,
            snapshots=self.snapshots,
        )
