"""The outcome of one batch's delivery, from its attempts to the report."""

from __future__ import annotations

from dataclasses import dataclass

from cirron_spool.protocol.verdict import Action, Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of all attempts to deliver one batch.

    ``verdict`` is the last attempt's. ``error`` stands in its place where the file could not be read while it was
    sent. ``attempts`` counts the attempts, ``seconds`` is their whole duration, ``bytes_sent`` is the size of the
    request body that carried the batch.
    """

    verdict: Verdict | None
    error: OSError | None = None
    attempts: int = 1
    seconds: float = 0.0
    bytes_sent: int = 0

    @property
    def retry_after_s(self) -> float | None:
        """The server's own delay before the next attempt, in seconds; None when it named none."""
        return None if self.verdict is None else self.verdict.retry_after_s

    @property
    def acknowledged(self) -> bool:
        """Whether the platform acknowledged the batch: the only reason to delete its file."""
        return self.verdict is not None and self.verdict.action is Action.ACKNOWLEDGED
