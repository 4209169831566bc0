"""The job and the outcome of a contender, and its clock. Imports count in its memory, so there are few."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict


class Job(TypedDict):
    """A delivery: the spool's folder, its names oldest first (for the floor alone), the server, the options."""

    directory: str
    names: list[str]
    url: str
    token: str
    options: dict[str, Any]


class Outcome(TypedDict, total=False):
    """Wall seconds, CPU seconds of all threads, counts, and memory in bytes.

    ``peak_bytes`` is the largest resident memory of the process, ``start_bytes`` the largest before the delivery.
    ``started_ns`` is ``time.monotonic_ns`` at the start of the delivery.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    start_bytes: int
    started_ns: int
    batches: int
    sent_bytes: int
    lateness: dict[str, Any]


class Clock:
    """Fills in an :class:`Outcome`."""

    def __init__(self) -> None:
        self.outcome: Outcome = {"batches": 0, "sent_bytes": 0}

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time the delivery in the block."""
        self.outcome["start_bytes"] = peak_bytes()
        self.outcome["started_ns"] = time.monotonic_ns()
        cpu, start = time.process_time(), time.perf_counter()
        yield
        self.outcome["seconds"] = time.perf_counter() - start
        self.outcome["cpu_seconds"] = time.process_time() - cpu

    def report(self) -> None:
        """Print the outcome."""
        self.outcome["peak_bytes"] = peak_bytes()
        print(json.dumps(self.outcome), flush=True)


def read_job() -> Job:
    """The job in the file that the command line names."""
    with open(sys.argv[1], encoding="utf-8") as file:
        job: Job = json.load(file)
    return job


def peak_bytes() -> int:
    """The largest resident memory of this process.

    On Linux from VmHWM: ``ru_maxrss`` survives exec, so a small child reports the size of its parent.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
