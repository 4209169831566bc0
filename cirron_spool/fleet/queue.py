"""The queue of waiting spools: fewest turns first, then the oldest batch."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from cirron_spool.events import FlushResult
from cirron_spool.pipeline.tally import Tally


@dataclass(slots=True, eq=False)
class Spool:
    """One spool: its waiting ``batches``, the time of the oldest (ns), its turns, and its result so far.

    ``queued`` and ``active`` are its state. ``again`` is True if more batches were found during its flush.
    ``is_turn_over`` is True if batches are left for its next turn. ``ended`` is True if it has no further flush.
    ``tally`` counts the present turn.
    """

    path: Path
    batches: int = 0
    oldest_ns: int = 0
    turns: int = 0
    queued: bool = False
    active: bool = False
    again: bool = False
    is_turn_over: bool = False
    ended: bool = False
    tally: Tally | None = None
    result: FlushResult | None = None


class SpoolQueue:
    """The waiting spools. A spool that is added again keeps its place."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, Spool]] = []
        self._number = count()

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, spool: Spool) -> None:
        """Add ``spool``, unless it already waits."""
        if not spool.queued:
            spool.queued = True
            heapq.heappush(self._heap, (spool.turns, spool.oldest_ns, next(self._number), spool))

    def pop(self) -> Spool:
        """Remove and return the next spool. Raises IndexError when none waits."""
        spool = heapq.heappop(self._heap)[-1]
        spool.queued = False
        return spool
