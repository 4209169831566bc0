"""Decide whether the failures of single spools are a failure of the platform, which ends all flushes."""

from __future__ import annotations

from cirron_spool.events import FlushResult
from cirron_spool.protocol.verdict import Action, Verdict

# Failed spools in a row, without an acknowledgement between them, that end all flushes.
_MOST_OUTAGES = 3
_MOST_REJECTIONS = 10


class FailureCounts:
    """The failures of spools since the last acknowledgement."""

    def __init__(self) -> None:
        self._outages = 0
        self._rejections = 0

    def count(self, result: FlushResult, *, is_common: bool, is_outage: bool, is_rejection: bool) -> str:
        """The reason to flush no further spool, in one line; empty if the others can continue.

        The flags describe the failure of the spool with this ``result``. ``is_common``: each spool would fail.
        """
        if result.uploaded:
            self._outages = self._rejections = 0
        if is_common:
            return "The answer is the same for each spool, so no further spool is started."
        if is_outage:
            self._outages += 1
        elif is_rejection or (result.quarantined and not result.uploaded):
            self._rejections += 1
        if self._outages >= _MOST_OUTAGES:
            self._outages = 0
            return f"{_MOST_OUTAGES} spools in a row are out of retries, so no further spool is started."
        if self._rejections >= _MOST_REJECTIONS:
            self._rejections = 0
            return (
                f"Batches of {_MOST_REJECTIONS} spools in a row were rejected, so the endpoint may be wrong. "
                "Check apiUrl. No further spool is started."
            )
        return ""


class PlatformHealth:
    """The failures of the spools of one process."""

    def __init__(self) -> None:
        self._counts = FailureCounts()

    def judge(self, result: FlushResult, verdict: Verdict | None) -> str:
        """The reason to flush no further spool, in one line; empty if the others can continue.

        ``verdict`` ended the flush of a spool with this ``result``.
        """
        action = verdict.action if verdict is not None else None
        return self._counts.count(
            result,
            is_common=verdict is not None and verdict.is_common,
            is_outage=action is Action.RETRY,
            is_rejection=action is Action.REJECTED,
        )
