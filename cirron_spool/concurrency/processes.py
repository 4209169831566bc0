"""Other processes of this machine, identified by number and start time."""

from __future__ import annotations

import os
from contextlib import suppress

# Fields of /proc/PID/stat after the name in parentheses: state and start time.
_STATE, _START = 0, 19


def start_of(pid: int) -> str:
    """The start time of the process ``pid`` in ticks since boot; empty if the system does not report it."""
    return _stat(pid, _START)


def is_running(pid: int, start: str) -> bool:
    """Whether the process ``pid`` with this ``start`` time still runs. A later process with its number does not count.

    A zombie process has ended.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        pass
    return _stat(pid, _STATE) not in ("Z", "X") and start_of(pid) == start


def _stat(pid: int, field: int) -> str:
    with suppress(OSError, IndexError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[field]
    return ""
