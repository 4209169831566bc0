"""A process whose end is awaited, and which is no child of this one."""

from __future__ import annotations

from cirron_spool.concurrency.processes import is_running, start_of


class AwaitedProcess:
    """The process ``pid``. Where the system has /proc, a later process with the same number is another one."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._start = start_of(pid)

    def is_running(self) -> bool:
        """Whether the process still runs. One that waits for its parent to read its exit code has ended."""
        return is_running(self._pid, self._start)
