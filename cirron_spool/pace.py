"""Whether a disk is quick enough for an event loop to do a small file's work itself.

Handing a small file's work to a thread costs the loop more than the work: each system call of the thread gives up the
interpreter lock, and getting it back delays the loop by 20 to 90 µs a file. On a quick disk it is kinder to everybody
in the loop to do 10 to 60 µs of work while a request is under way and there is nothing else to do. A slow disk (a
network file system, a full journal) must never hold the loop up: one slow piece of work, and the thread has it back.
"""

from __future__ import annotations

# What a piece of work in the thread may take to count as quick. Reading, compressing and deleting 100 KB take 30 to
# 200 µs on local disks, and up to 700 µs while the loop keeps the interpreter busy (1 of 1,000 takes longer); a round
# trip to a file server takes some 200 µs, and one file needs several.
QUICK_S = 0.001
# What a piece in the loop may take before it counts as slow: a fourth of what a harness may notice (8 ms), and more
# than the machine itself often takes a core away for.
SLOW_S = 0.002
# So many quick pieces in a row, done by the thread, speak for a disk; ten times as many after it turned out slow.
_TRIALS = 4
# A slow piece weighs as much as so many quick ones, and two with fewer between them are the disk's doing.
_SLOW_WEIGHT = 100
# Having turned out slow so many times, the disk is left to the thread for good.
_MOST_TURNS = 3


class Pace:
    """Judges the pieces of work of one flush by their seconds: the thread's and the event loop's, beside each other."""

    def __init__(self) -> None:
        self.quick = False  # whether the event loop may do the next piece itself
        # Written by the thread alone.
        self._pieces = 0
        self._last_slow_piece = 0
        # Written by the event loop alone.
        self._trusted_from = 0
        self._needed = _TRIALS
        self._slowness = 0
        self._turns = 0

    def tried(self, seconds: float) -> None:
        """Note what a piece took in the thread."""
        self._pieces += 1
        if seconds > QUICK_S:
            self._last_slow_piece = self._pieces
        quick_in_a_row = self._pieces - max(self._last_slow_piece, self._trusted_from)
        # The loop may have lost its trust since this was reckoned; then the next piece takes it back.
        self.quick = quick_in_a_row >= self._needed and self._turns < _MOST_TURNS

    def done_in_loop(self, seconds: float) -> None:
        """Note what a piece took in the event loop."""
        if seconds <= SLOW_S:
            if self._slowness:
                self._slowness -= 1
            return
        self._slowness += _SLOW_WEIGHT
        if self._slowness > _SLOW_WEIGHT:
            self._slowness = 0
            self._trusted_from = self._pieces
            self._needed *= 10
            self._turns += 1
            self.quick = False
