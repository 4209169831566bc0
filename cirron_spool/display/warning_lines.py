"""The first and the last warnings of a flush, which may run for weeks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

# Kept warnings of each kind. Most flushes have far fewer.
KEPT = 500
LEFT_OUT = "Further warnings are left out here. The events and the log have all of them."


class WarningLines:
    """The first 500 lines and the last 500, with :data:`LEFT_OUT` for the missing ones."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._first: list[str] = []
        self._last: deque[str] = deque()
        self._left_out = False
        for line in lines:
            self.append(line)

    def append(self, line: str) -> None:
        """Add a line."""
        if line == LEFT_OUT:
            self._left_out = True
        elif len(self._first) < KEPT:
            self._first.append(line)
        else:
            self._last.append(line)
            if len(self._last) > KEPT:
                self._last.popleft()
                self._left_out = True

    def lines(self) -> tuple[str, ...]:
        """All kept lines, in order."""
        return (*self._first, *([LEFT_OUT] if self._left_out else []), *self._last)


class RecentLines:
    """The last 1,000 different lines. It tells whether a line is new."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def is_new(self, line: str) -> bool:
        """Whether this is the first call with ``line``."""
        is_new = line not in self._lines
        self._lines.pop(line, None)
        self._lines[line] = None  # now the newest
        if len(self._lines) > 2 * KEPT:
            del self._lines[next(iter(self._lines))]
        return is_new
