"""What every contender in Python shares: reading its job, timing its work, and saying what it took.

Standard library only, and little of it: what is imported here is in every contender's memory.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

COMPRESS_ABOVE_BYTES = 1024
TRACES_PATH = "/api/traces"


class Job(TypedDict, total=False):
    """What a contender is told: where the batches are, in which order, and where they go.

    ``options`` are the contender's own (``in_flight``, ``tuning``, ``verify``).
    """

    directory: str
    names: list[str]
    url: str
    token: str
    options: dict[str, Any]


class Outcome(TypedDict, total=False):
    """What a contender answers: counts in batches and bytes, seconds of the wall and of the processor.

    ``peak_bytes`` is the most memory the process ever had resident, interpreter and imports included, and
    ``start_bytes`` what it had before the timed part; ``started_ns`` is ``time.monotonic_ns`` at its start.
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
    """Fills an :class:`Outcome` in."""

    def __init__(self) -> None:
        self.outcome: Outcome = {"batches": 0, "sent_bytes": 0}

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time what is inside: the wall's seconds, and the processor's, of all threads, user and system."""
        self.outcome["start_bytes"] = peak_bytes()
        self.outcome["started_ns"] = time.monotonic_ns()
        cpu = _cpu_seconds()
        start = time.perf_counter()
        yield
        self.outcome["seconds"] = time.perf_counter() - start
        self.outcome["cpu_seconds"] = _cpu_seconds() - cpu

    def sent(self, length: int) -> None:
        """Count a body of ``length`` bytes as delivered."""
        self.outcome["batches"] += 1
        self.outcome["sent_bytes"] += length

    def finish(self) -> None:
        """Say what it took, on stdout."""
        self.outcome["peak_bytes"] = peak_bytes()
        print(json.dumps(self.outcome), flush=True)


def job() -> Job:
    """The job that this process was started with."""
    with open(sys.argv[1], encoding="utf-8") as file:
        read: Job = json.load(file)
    return read


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_bytes() -> int:
    """The most memory this process ever had resident.

    Linux's VmHWM where there is one: ``ru_maxrss`` survives exec, so that a small child of a large process is
    credited with its parent's size.
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


def headers(token: str, batch_id: str, gzipped: bool) -> dict[str, str]:
    """The headers of one upload, as the contract has them."""
    fields = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "User-Agent": "cirron-spool/benchmark",
        "X-Cirron-SDK-Version": "cirron-spool/benchmark",
        "X-Cirron-Batch-Id": batch_id,
    }
    if gzipped:
        fields["Content-Encoding"] = "gzip"
    return fields


def batch_id(name: str) -> str:
    """The batch id in a file name."""
    return name.partition("-")[2].removesuffix(".json")


def path(work: Job, name: str) -> str:
    """Where the batch called ``name`` is."""
    return os.path.join(work["directory"], name)
