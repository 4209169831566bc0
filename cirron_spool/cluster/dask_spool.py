"""One spool of a run on Dask: its current task, the messages of its attempts, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cirron_spool.cluster.task import SpoolReport
from cirron_spool.errors import EXIT_ATTENTION, EXIT_TEMPFAIL
from cirron_spool.events import FlushResult, Uploaded
from cirron_spool.fleet.results import failed_result, joined, nothing_sent
from cirron_spool.spool.discovery import FoundSpool

if TYPE_CHECKING:
    from distributed import Future


@dataclass(slots=True, eq=False)
class DaskSpool:
    """A spool that was ``found``. ``attempts`` has the reported uploads of each attempt, by its name.

    ``hosts`` are those that see it, empty if all do. ``future`` is its task, None without one. ``tries`` counts its
    tasks behind the first. ``report`` is that of the last attempt.
    """

    found: FoundSpool
    hosts: list[str] = field(default_factory=list)
    future: Future[tuple[str, SpoolReport | None]] | None = None
    attempts: dict[str, FlushResult] = field(default_factory=dict)
    attempt: str = ""
    tries: int = 0
    report: SpoolReport | None = None

    @property
    def directory(self) -> str:
        """The path of the spool on the workers."""
        return str(self.found.path)

    def note(self, attempt: str, event: Uploaded) -> None:
        """Count an upload of an attempt."""
        reported = self.attempts[attempt]
        self.attempts[attempt] = replace(
            reported,
            uploaded=reported.uploaded + 1,
            bytes_read=reported.bytes_read + event.size,
            bytes_sent=reported.bytes_sent + event.sent,
        )

    def begin(self, attempt: str) -> bool:
        """Note the first message of an attempt; False for a known attempt."""
        if attempt in self.attempts:
            return False
        self.attempts[attempt] = FlushResult(self.found.path, exit_code=EXIT_TEMPFAIL)
        return True

    def result(self) -> FlushResult:
        """The result, with the reported uploads of lost attempts."""
        result = self._of_last_attempt()
        for attempt, reported in self.attempts.items():
            if attempt != self.attempt and reported.uploaded:
                result = joined(reported, result)
        return result

    def _of_last_attempt(self) -> FlushResult:
        path, report = self.found.path, self.report
        if report is None:
            uploaded = sum(reported.uploaded for reported in self.attempts.values())
            return nothing_sent(path, max(0, self.found.batches - uploaded))
        if report.error is not None:
            return failed_result(path, self.found.batches, report.error)
        if report.is_missing:
            return nothing_sent(path, self.found.batches, exit_code=EXIT_ATTENTION, why=report.message)
        return report.result
