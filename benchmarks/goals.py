"""What the project means to reach, and whether a run of the benchmarks reached it. Pure: figures in, verdicts out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import Cell

MB = 1e6

# {strategy: {latency in ms: {spool: the most that it may take, as a multiple of the floor}}}.
_ON_A_LINK = {1.0: {"typical": 1.05, "tiny": 1.05}, 20.0: {"typical": 1.01, "tiny": 1.01}}
TIMES_FLOOR = {
    "thread": {0.0: {"typical": 2.3, "tiny": 1.7}, **_ON_A_LINK},
    "inline": {0.0: {"typical": 1.8, "tiny": 1.3}, **_ON_A_LINK},
}
# Where the bodies are big and nothing delays the answers, the compressor is the limit: MB of JSON a second.
COMPRESSED_MB_PER_SECOND = {"big": 600.0, "huge": 600.0}
# Without latency: how many times as fast as Node's way, and the most of its processor time.
TIMES_NODE = {"typical": 8.0, "tiny": 6.0, "big": 10.0, "huge": 8.0}
CPU_OF_NODE = 0.25

# Resident memory in MB of 1,000,000 bytes: spools of typical batches, batches of hundreds of MB, and what 100,000
# batches may add.
TYPICAL_PEAK_MB = 48.0
LARGE_PEAK_MB = 64.0
HUNDRED_THOUSAND_MORE_MB = 40.0

# A 1 ms ticker in the flush's loop, ms late.
LATE_P99_MS = 2.5
LATE_WORST_MS = 8.0

# Times as fast as one request at a time, at 50 ms a request.
WINDOW_SPEEDUP = {8: 7.5, 16: 14.0}
WINDOW_LATENCY_MS = 50.0

INSPECT_TIMES_NODE_START = 2.0
LISTING_TIMES_BARE = 2.0
LISTING_MEMORY_OF_NODE = 0.2


@dataclass(frozen=True)
class Goal:
    """A figure beside its limit; ``at_most`` tells which way is good."""

    name: str
    value: float
    limit: float
    at_most: bool
    unit: str = "x"

    @property
    def reached(self) -> bool:
        """Whether the figure is on the good side."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "goal": self.name,
            "value": self.value,
            "limit": self.limit,
            "at_most": self.at_most,
            "unit": self.unit,
            "reached": self.reached,
        }


def of_cells(cells: Iterable[Cell]) -> list[Goal]:
    """The goals that the figures of ``cells`` speak of. They are set for memory: a disk only stands beside it."""
    return [goal for cell in cells for goal in _of_cell(cell)]


def _of_cell(cell: Cell) -> Iterator[Goal]:
    if cell.sink != "answer-only" or cell.network.bandwidth is not None or cell.file_system != "tmpfs":
        return
    for strategy in TIMES_FLOOR:
        yield from _of_strategy(cell, strategy)


def _of_strategy(cell: Cell, strategy: str) -> Iterator[Goal]:
    ours, floor, node = cell.of(strategy), cell.of("floor"), cell.of("node")
    seconds, cpu = (ours.median("seconds"), ours.median("cpu_seconds")) if ours is not None else (None, None)
    if seconds is None or cpu is None:
        return
    latency = cell.network.latency_ms
    where = f"{cell.spool}, {latency:g} ms, {strategy}"
    limit = TIMES_FLOOR[strategy].get(latency, {}).get(cell.spool)
    lowest = floor.median("seconds") if floor is not None else None
    if limit is not None and lowest:
        yield Goal(f"{where}: seconds of the floor", seconds / lowest, limit, at_most=True)
    if latency:
        return
    if cell.spool in COMPRESSED_MB_PER_SECOND:
        rate = cell.json_bytes / MB / seconds
        yield Goal(f"{where}: JSON a second", rate, COMPRESSED_MB_PER_SECOND[cell.spool], False, "MB/s")
    if node is None or cell.spool not in TIMES_NODE:
        return
    peer_seconds, peer_cpu = node.median("seconds"), node.median("cpu_seconds")
    if peer_seconds and peer_cpu:
        yield Goal(f"{where}: as fast as Node", peer_seconds / seconds, TIMES_NODE[cell.spool], at_most=False)
        yield Goal(f"{where}: CPU seconds of Node's", cpu / peer_cpu, CPU_OF_NODE, at_most=True)
