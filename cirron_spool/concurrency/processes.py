"""Other processes of this machine, told apart by their number and their start."""

from __future__ import annotations

import os
from contextlib import suppress

# In /proc/PID/stat behind the name in brackets: the state is the first field, the start time the twentieth.
_STATE, _START = 0, 19


def start_of(pid: int) -> str:
    """The start time of the process ``pid`` in ticks since the boot; empty where the system does not say."""
    return _stat(pid, _START)


def is_running(pid: int, start: str) -> bool:
    """Whether the process ``pid`` that began at ``start`` still runs. A later one with its number is another one.

    A process that waits for its parent to read its exit code has ended.
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
