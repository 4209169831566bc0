"""The counts of a receiver, and the log lines for its operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from cirron_spool.receiver.answers import Answer
from cirron_spool.receiver.snapshot_file import StoredSnapshot
from cirron_spool.receiver.store import Stored
from cirron_spool.text import count, human_size


class Journal:
    """Counts batches, snapshots, sign-ins and refusals.

    ``report`` gets log lines: only failures, or all events with ``verbose``. ``received`` counts stored batches, and
    ``bytes`` their JSON. ``snapshots`` and ``snapshot_bytes`` count stored snapshots. ``duplicates`` were stored
    before. ``sign_ins`` counts the sign-ins that got tokens. ``refused`` counts error answers, and ``unauthorized``
    those for a wrong token. ``refused_by_status`` has the counts by HTTP status.
    """

    def __init__(self, report: Callable[[str], None], *, verbose: bool) -> None:
        self.received = 0
        self.bytes = 0
        self.duplicates = 0
        self.snapshots = 0
        self.snapshot_bytes = 0
        self.sign_ins = 0
        self.refused = 0
        self.refused_by_status: Counter[int] = Counter()
        self.unauthorized = 0
        self._report = report
        self._verbose = verbose

    def stored(self, stored: Stored, peer: str) -> None:
        """A batch is durable."""
        if stored.duplicate:
            self.duplicates += 1
            self._log(f"Duplicate of {stored.name} from {peer}")
        else:
            self.received += 1
            self.bytes += stored.size
            self._log(f"Stored {stored.name} ({human_size(stored.size)}) from {peer}")

    def stored_snapshot(self, stored: StoredSnapshot, peer: str) -> None:
        """A snapshot is durable."""
        if stored.duplicate:
            self.duplicates += 1
            self.note(f"Duplicate of {stored.key} from {peer}")
        else:
            self.snapshots += 1
            self.snapshot_bytes += stored.size
            self.note(f"Stored {stored.key} ({human_size(stored.size)}) from {peer}")

    def signed_in(self, peer: str) -> None:
        """A client got the tokens of its sign-in."""
        self.sign_ins += 1
        self.note(f"Signed in {peer}")

    def note(self, line: str) -> None:
        """Log a regular event."""
        self._log(line)

    def answered(self, answer: Answer, peer: str) -> None:
        """Count an answer."""
        if not answer.refused:
            return
        self.refused += 1
        self.refused_by_status[answer.status] += 1
        self.unauthorized += answer.status == 401
        # A different batch with a stored identifier, or a failing disk: a person must look.
        urgent = answer.status in (409, 500, 507)
        self._log(f"Refused {answer.status} from {peer}: {answer.refused}", always=urgent)

    def trouble(self, line: str) -> None:
        """Log a fault outside requests. A person must look."""
        self._log(line, always=True)

    def counts(self) -> dict[str, object]:
        """The counts, as the health route shows them."""
        return {
            "received": self.received,
            "duplicates": self.duplicates,
            "snapshots": self.snapshots,
            "signIns": self.sign_ins,
            "refused": self.refused,
            "bytes": self.bytes,
        }

    def totals(self) -> str:
        """All counts in one line."""
        parts = [f"{count(self.received, 'batch')} ({human_size(self.bytes)})"]
        if self.snapshots:
            parts.append(f"{count(self.snapshots, 'snapshot')} ({human_size(self.snapshot_bytes)})")
        if self.sign_ins:
            parts.append(count(self.sign_ins, "sign-in"))
        parts += [
            count(self.duplicates, "duplicate"),
            f"{self.refused} refused"
            + (f" ({self.unauthorized} for the token)" if self.unauthorized else ""),
        ]
        return f"Received {', '.join(parts)}."

    def _log(self, line: str, *, always: bool = False) -> None:
        if always or self._verbose:
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self._report(f"{now} {line}")
