"""Whether a disk is quick enough for an event loop to do a small file's work itself.

Handing a small file's work to a thread costs the loop more than the work: each system call of the thread gives up the
interpreter lock, and getting it back delays the loop by 20 to 90 µs a file. On a quick disk it is kinder to everybody
in the loop to do 10 to 60 µs of work while a request is under way and there is nothing else to do. A slow disk (a
network file system, a full journal) must not hold the loop up: two slow pieces of work, and the thread has it back.
"""

from __future__ import annotations

# What a piece of work in the thread may take to speak for the disk. Reading, compressing and deleting 100 KB take 30 to
# 200 µs on local disks; a round trip to a file server takes as long, and one file needs several.
QUICK_S = 0.000_5
# What a piece in the loop may take before it counts as slow: a fourth of what a harness may notice (8 ms), and more
# than the machine itself often takes a core away for. One that takes as long in the thread, too, is the disk's doing;
# one in between may only have waited for the interpreter, as one in ten does beside a busy loop.
SLOW_S = 0.002
# The lead that quick pieces must have over others before the loop may work: at first, and after the disk turned out
# slow once and twice; after that it is left to the thread for good. More than twice of that lead is not kept, so that a
# disk that gets slower is noticed.
_LEADS = (4, 40, 400)
# A slow piece weighs as much as so many quick ones, and two with fewer between them are the disk's doing.
_SLOW_WEIGHT = 100


class Pace:
    """Judges the pieces of work of one flush by their seconds: the thread's and the event loop's, beside each other."""

    def __init__(self) -> None:
        # Written by the thread alone.
        self._lead = 0
        self._heeded = 0  # so many turns
        self._quick_at = -1  # after so many turns the lead is enough
        # Written by the event loop alone.
        self._slowness = 0
        self._turns = 0

    @property
    def quick(self) -> bool:
        """Whether the event loop may do the next piece itself."""
        return self._quick_at == self._turns

    def tried(self, seconds: float) -> None:
        """Note what a piece took in the thread."""
        turns = self._turns  # once: the loop writes it
        if turns >= len(_LEADS):
            return
        if self._heeded != turns or seconds > SLOW_S:
            self._heeded = turns
            self._lead = 0
        if seconds <= QUICK_S:
            self._lead = min(self._lead + 1, 2 * _LEADS[turns])
        elif self._lead:
            self._lead -= 1
        self._quick_at = turns if self._lead >= _LEADS[turns] else -1

    def done_in_loop(self, seconds: float) -> None:
        """Note what a piece took in the event loop."""
        if seconds <= SLOW_S:
            if self._slowness:
                self._slowness -= 1
            return
        self._slowness += _SLOW_WEIGHT
        if self._slowness > _SLOW_WEIGHT:
            self._slowness = 0
            self._turns += 1
