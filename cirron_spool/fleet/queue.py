"""The queue of spools that wait for their flush: fewest turns first, the oldest batch first among equals."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from cirron_spool.events import FlushResult
from cirron_spool.pipeline.tally import Tally


@dataclass(slots=True, eq=False)
class Spool:
    """One spool: the ``batches`` that wait in it, the oldest one's time (ns), its turns, and its result so far.

    ``queued`` and ``active`` say where it is. ``again``: more was found while it was flushed. ``is_turn_over``: it has
    left batches for its next turn. ``ended``: no further flush of it is started. ``tally`` counts the turn under way.
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
    """Spools that wait. A spool that comes while it waits keeps its place."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, Spool]] = []
        self._number = count()

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, spool: Spool) -> None:
        """Add ``spool``, unless it waits already."""
        if not spool.queued:
            spool.queued = True
            heapq.heappush(self._heap, (spool.turns, spool.oldest_ns, next(self._number), spool))

    def pop(self) -> Spool:
        """The spool whose turn it is. Raises IndexError when none waits."""
        spool = heapq.heappop(self._heap)[-1]
        spool.queued = False
        return spool
