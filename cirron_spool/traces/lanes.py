"""Lanes for the spans of a thread. Two spans in one lane overlap only if one contains the other.

Nested spans need one lane. Concurrent requests in an event loop need several.
"""

from __future__ import annotations


class Lanes:
    """The lanes of one thread, filled with its spans in order of their starts."""

    def __init__(self) -> None:
        # The open spans of each lane: their ends and keys.
        self._open: list[list[tuple[int, int]]] = []
        self._lane_of: dict[int, int] = {}

    def place(self, key: int, parent: int | None, start: int, end: int) -> tuple[int, int]:
        """The lane of a span, and its depth in the lane. ``parent`` is the key of a span of any thread."""
        preferred = self._lane_of.get(parent) if parent is not None else None
        order = range(len(self._open)) if preferred is None else (preferred, *range(len(self._open)))
        for lane in order:
            spans = self._open[lane]
            while spans and spans[-1][0] <= start:
                del self._lane_of[spans.pop()[1]]
            if not spans or (spans[-1][1] == parent and end <= spans[-1][0]):
                break
        else:
            lane = len(self._open)
            spans = []
            self._open.append(spans)
        spans.append((end, key))
        self._lane_of[key] = lane
        return lane, len(spans) - 1
