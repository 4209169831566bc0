"""The outcome of one batch's delivery, from its attempts to the report."""

from __future__ import annotations

from dataclasses import dataclass, field

from cirron_spool.protocol.verdict import Action, Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of all attempts to deliver one batch.

    ``result`` is the verdict of the last attempt, or the error of a file that could not be read. ``attempts`` counts
    the attempts, ``seconds`` is their duration with all waits. ``bytes_sent`` is the size of the request body.
    ``began`` is the start of a last attempt that failed temporarily, by time.monotonic(). ``refused`` is the token of
    the last attempt if the platform refused it.
    """

    result: Verdict | OSError
    attempts: int = 1
    seconds: float = 0.0
    began: float = 0.0
    bytes_sent: int = 0
    refused: str = field(default="", repr=False)

    @property
    def retry_after_s(self) -> float | None:
        """The delay before the next attempt that the server asked for, in seconds; None without one."""
        return self.result.retry_after_s if isinstance(self.result, Verdict) else None

    @property
    def action(self) -> Action | None:
        """The action of the verdict; None without a verdict."""
        return self.result.action if isinstance(self.result, Verdict) else None

    @property
    def acknowledged(self) -> bool:
        """Whether the platform acknowledged the batch: the only reason to delete its file."""
        return self.action is Action.ACKNOWLEDGED
