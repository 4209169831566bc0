"""The counts of a receiver, and log lines for its operator."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from cirron_spool.receiver.answers import Answer
from cirron_spool.receiver.store import Stored
from cirron_spool.text import count, human_size


class Journal:
    """Counts batches and refusals. ``report`` is given the lines: failures always, everything when ``verbose``.

    ``received`` batches with ``bytes`` bytes of JSON are stored; ``duplicates`` were stored before. ``refused``
    requests got an error as their answer; ``unauthorized`` of them had a wrong token.
    """

    def __init__(self, report: Callable[[str], None], *, verbose: bool) -> None:
        self.received = 0
        self.bytes = 0
        self.duplicates = 0
        self.refused = 0
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

    def answered(self, answer: Answer, peer: str) -> None:
        """An answer goes out."""
        if not answer.refused:
            return
        self.refused += 1
        self.unauthorized += answer.status == 401
        # Another batch under a stored one's identifier, or a disk that fails: a person must look.
        urgent = answer.status in (409, 500, 507)
        self._log(f"Refused {answer.status} from {peer}: {answer.refused}", always=urgent)

    def trouble(self, line: str) -> None:
        """Something went wrong beside the requests: a person must look."""
        self._log(line, always=True)

    def counts(self) -> dict[str, object]:
        """The counts, as the health route shows them."""
        return {
            "received": self.received,
            "duplicates": self.duplicates,
            "refused": self.refused,
            "bytes": self.bytes,
        }

    def totals(self) -> str:
        """One line about everything."""
        parts = [
            f"{count(self.received, 'batch')} ({human_size(self.bytes)})",
            count(self.duplicates, "duplicate"),
            f"{self.refused} refused"
            + (f" ({self.unauthorized} for the token)" if self.unauthorized else ""),
        ]
        return f"Received {', '.join(parts)}."

    def _log(self, line: str, *, always: bool = False) -> None:
        if always or self._verbose:
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self._report(f"{now} {line}")
