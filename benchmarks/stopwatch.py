"""Time one command: wall and CPU seconds and peak memory, as a line of JSON.

A script of its own with few imports: Linux credits a child with the memory of its parent.
"""

from __future__ import annotations

import os
import sys
import time


def main() -> int:
    """Run ``stopwatch.py PROGRAM [ARGUMENT...]`` without its output; return its exit code."""
    null = os.open(os.devnull, os.O_RDWR)
    start = time.perf_counter()
    pid = os.posix_spawnp(
        sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)]
    )
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cpu = usage.ru_utime + usage.ru_stime
    print(f'{{"seconds": {seconds}, "cpu_seconds": {cpu}, "peak_bytes": {peak}}}')
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
