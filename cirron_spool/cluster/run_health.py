"""Decide from the reports of tasks whether each further spool would fail, too."""

from __future__ import annotations

from cirron_spool.cluster.task import SpoolReport
from cirron_spool.errors import EXIT_TEMPFAIL, AuthError, ConfigError, TokenRenewalError
from cirron_spool.fleet.platform_health import FailureCounts

# The errors that each spool would end with.
COMMON = (AuthError, TokenRenewalError, ConfigError)


def is_common(report: SpoolReport) -> bool:
    """Whether each spool would fail as the one of ``report`` did."""
    if report.error is not None:
        return isinstance(report.error, COMMON)
    return any(failure.is_common for failure in report.result.failures)


class RunHealth:
    """The failures of the spools of a run since the last acknowledgement."""

    def __init__(self) -> None:
        self._counts = FailureCounts()

    def judge(self, report: SpoolReport) -> str:
        """The reason to start no further spool, in one line; empty if the others can continue."""
        result = report.result
        return self._counts.count(
            result,
            is_common=is_common(report),
            is_outage=result.failed > 0 and report.exit_code == EXIT_TEMPFAIL,
            is_rejection=any(failure.status for failure in result.failures),
        )
