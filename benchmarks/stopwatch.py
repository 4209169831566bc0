"""Time one command: its wall's and processor's seconds and its peak memory, as one line of JSON.

Run as a script of its own with as little in it as can be: Linux credits a child with the memory of the process that
started it, so whoever starts a command to measure its memory must be smaller than the command.
"""

from __future__ import annotations

import os
import sys
import time


def main() -> None:
    """``stopwatch.py PROGRAM [ARGUMENT...]``: run it with its output thrown away."""
    nothing = os.open(os.devnull, os.O_RDWR)
    quiet = [(os.POSIX_SPAWN_DUP2, nothing, 0), (os.POSIX_SPAWN_DUP2, nothing, 1)]
    start = time.perf_counter()
    pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    code = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cpu = usage.ru_utime + usage.ru_stime
    print(f'{{"seconds": {seconds}, "cpu_seconds": {cpu}, "peak_bytes": {peak}, "exit_code": {code}}}')


if __name__ == "__main__":
    main()
