"""``--nice``: set the lowest priorities of the system, before the work of the process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

_NICEST = 19
# From the system's sys/resource.h; Python has their names since 3.12.
_PRIO_DARWIN_PROCESS, _PRIO_DARWIN_BG = 4, 0x1000


def lower_priority(warn: Callable[[str], None]) -> None:
    """Give this process the lowest priority for the processor and the disk. Threads that start later inherit it.

    ``warn`` is called with one line for each priority that stays higher.
    """
    if sys.platform not in ("linux", "darwin"):
        warn("--nice has no effect: priorities are lowered on Linux and macOS only.")
        return
    try:
        os.nice(_NICEST)
        if sys.platform == "darwin":  # processor, disk and network
            os.setpriority(_PRIO_DARWIN_PROCESS, 0, _PRIO_DARWIN_BG)
        else:  # below every nice value
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:
        warn(f"The system refuses the lowest processor priority: {error.strerror}.")
    if sys.platform == "linux":
        _lower_disk_priority(warn)


def _lower_disk_priority(warn: Callable[[str], None]) -> None:
    # Python has no function for it, and the number of the system call depends on the processor.
    command = ["ionice", "-c", "3", "-p", str(os.getpid())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # in no fixed place
    except OSError:
        warn("The disk priority stays: there is no ionice on PATH.")
        return
    if done.returncode != 0:
        warn(f"The disk priority stays: {done.stderr.strip()}.")
