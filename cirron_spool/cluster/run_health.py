"""Whether the trouble of one spool is the trouble of all, judged by its report."""

from __future__ import annotations

from cirron_spool.cluster.task import SpoolReport
from cirron_spool.errors import EXIT_TEMPFAIL, AuthError, ConfigError, TokenRenewalError

# So many spools in a row, with no acknowledgement between them.
_MOST_OUTAGES = 3
_MOST_REJECTIONS = 10

# The errors that each spool would end with.
COMMON = (AuthError, TokenRenewalError, ConfigError)


def is_common(report: SpoolReport) -> bool:
    """Whether the trouble of ``report`` would be that of each spool."""
    if report.error is not None:
        return isinstance(report.error, COMMON)
    return any(failure.is_common for failure in report.result.failures)


class RunHealth:
    """The troubles of the spools of a run since the last acknowledgement."""

    def __init__(self) -> None:
        self._outages = 0
        self._rejections = 0

    def judge(self, report: SpoolReport) -> str:
        """The reason to start no further spool, in one line; empty if the others can continue."""
        result = report.result
        if result.uploaded:
            self._outages = self._rejections = 0
        if is_common(report):
            return "The answer is the same for each spool, so no further spool is started."
        if result.failed and report.exit_code == EXIT_TEMPFAIL:
            self._outages += 1
        elif any(failure.status for failure in result.failures) or (
            result.quarantined and not result.uploaded
        ):
            self._rejections += 1
        if self._outages >= _MOST_OUTAGES:
            return f"{_MOST_OUTAGES} spools in a row are out of retries, so no further spool is started."
        if self._rejections >= _MOST_REJECTIONS:
            return (
                f"Batches of {_MOST_REJECTIONS} spools in a row were rejected, so the endpoint may be wrong. "
                "Check apiUrl. No further spool is started."
            )
        return ""
