"""A process whose end is awaited, and which is no child of this one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# In /proc/PID/stat behind the name in brackets: the state is the first field, the start time the twentieth.
_STATE, _START = 0, 19


class AwaitedProcess:
    """The process ``pid``. Where the system has /proc, a later process with the same number is another one."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._start = self._stat(_START)

    def is_running(self) -> bool:
        """Whether the process still runs. One that waits for its parent to read its exit code has ended."""
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # it is another user's
            pass
        return self._stat(_STATE) not in ("Z", "X") and self._stat(_START) == self._start

    def _stat(self, field: int) -> str:
        with suppress(OSError, IndexError):
            text = Path(f"/proc/{self._pid}/stat").read_text(encoding="utf-8", errors="replace")
            return text.rpartition(")")[2].split()[field]
        return ""
