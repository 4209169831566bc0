"""Items that wait to be taken, within bounds. No lock: one side at a time adds, and one takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Buffer(Generic[T]):
    """Is full with ``max_items`` items, or with items of ``max_weight`` together by ``weigh``.

    One item may go beyond the weight, since it is known only once it is made. Until the first is taken ``head_start``
    items are enough: what else is to be done before that then has the processors. ``items`` are those that wait, with
    their weights.
    """

    def __init__(
        self, max_items: int, max_weight: int, weigh: Callable[[T], int], head_start: int | None = None
    ) -> None:
        self._max_items = max_items
        self._max_weight = max_weight
        self._weigh = weigh
        self.items: deque[tuple[T, int]] = deque()
        # Written by who adds.
        self._added_weight = 0
        # Written by who takes.
        self._taken_weight = 0
        self._limit = max_items if head_start is None else min(head_start, max_items)

    def add(self, item: T) -> None:
        """Put ``item`` behind the others."""
        weight = self._weigh(item)
        self._added_weight += weight
        self.items.append((item, weight))

    def take(self) -> T:
        """The oldest item; it must have one."""
        item, weight = self.items.popleft()
        self._taken_weight += weight
        self._limit = self._max_items
        return item

    def is_full(self) -> bool:
        """Whether no more is to be added."""
        return len(self.items) >= self._limit or self._added_weight - self._taken_weight >= self._max_weight

    def is_half_empty(self) -> bool:
        """Whether there is room for half of what it holds."""
        weight = self._added_weight - self._taken_weight
        return len(self.items) * 2 <= self._limit and weight * 2 <= self._max_weight
