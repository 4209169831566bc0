"""The process whose end ends a watch. It need not be a child of this process."""

from __future__ import annotations

from cirron_spool.concurrency.processes import is_running, start_of


class AwaitedProcess:
    """The process ``pid``. On systems with /proc, a later process with the same number is distinguished."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._start = start_of(pid)

    def is_running(self) -> bool:
        """Whether the process still runs. A zombie process has ended."""
        return is_running(self._pid, self._start)
