"""The spans of one session as arrays. A span takes some fifty bytes, so a tree may have a million spans.

Spans have numbers, and number 0 is the session. A stand-in without an end replaces a missing root span or a missing
parent.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator, Sequence

from cirron_spool.traces.sessions import MISSING, SESSION, Sessions

NOT_THERE = "(span not in the spool)"
NO_INDEX = -(2**63)
OPEN = -1
# The origin of a span's place in the tree.
TREE, DETACHED, STAND_IN = 0, 1, 2


class Forest:
    """The spans of one session by their numbers, in order of their starts. Times are in ns.

    ``name`` has indexes into ``names``. ``end`` and ``duration`` are OPEN for an open span. ``row`` is the row in the
    database, or 0 for a stand-in. ``ids`` has the identifiers of stand-ins. ``below`` counts the descendants. ``place``
    marks a DETACHED span, whose thread had no open span at its start.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.row = array("i")
        self.name = array("i")
        self.index = array("q")
        self.start = array("q")
        self.end = array("q")
        self.thread = array("q")
        self.place = array("b")
        self.parent = array("i")
        self.below = array("i")
        self.ids: dict[int, str] = {}
        # The numbers of stand-ins by the identifiers of the missing spans.
        self.missing: dict[str, int] = {}
        self._first = array("i")
        self._next = array("i")
        self._name_numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.start)

    def duration(self, number: int) -> int:
        """The duration in ns, never negative; OPEN for an open span."""
        end = self.end[number]
        return OPEN if end == OPEN else max(0, end - self.start[number])

    def children(self, number: int) -> Iterator[int]:
        """The direct children of a span, by their start."""
        child = self._first[number]
        while child >= 0:
            yield child
            child = self._next[child]

    def add(
        self, row: int, name: str, index: int | None, start: int, end: int | None, thread: int | None
    ) -> int:
        """Append a span; returns its number."""
        number = self._name_numbers.get(name)
        if number is None:
            number = self._name_numbers[name] = len(self.names)
            self.names.append(name)
        self.row.append(row)
        self.name.append(number)
        self.index.append(NO_INDEX if index is None else index)
        self.start.append(start)
        self.end.append(OPEN if end is None else end)
        self.thread.append(thread or 0)
        self.place.append(TREE if row else STAND_IN)
        self.parent.append(0)
        return len(self.start) - 1

    def stand_in(self, id_: str, name: str, start: int) -> int:
        """Append a stand-in for a missing span; returns its number."""
        number = self.add(0, name, None, start, None, None)
        self.ids[number] = id_
        self.missing[id_] = number
        return number

    def link(self) -> None:
        """Compute the children from the parents, and count the descendants."""
        total = len(self)
        self._first = array("i", [-1]) * total
        self._next = array("i", [-1]) * total
        tops = []
        for number in range(total - 1, 0, -1):  # spans were added by their start, stand-ins behind them
            parent = self.parent[number]
            if not parent:
                tops.append(number)
                continue
            self._next[number] = self._first[parent]
            self._first[parent] = number
        tops.sort(key=self.start.__getitem__, reverse=True)
        for number in tops:
            self._next[number] = self._first[0]
            self._first[0] = number
        order = [0]
        for number in order:
            order.extend(self.children(number))
        self.below = array("i", [0]) * total
        for number in reversed(order):
            if number:
                self.below[self.parent[number]] += self.below[number] + 1


def grow(connection: sqlite3.Connection, sessions: Sessions, chosen: Sequence[int]) -> list[Forest]:
    """The trees of the ``chosen`` sessions, by their numbers."""
    forests = {number: _with_root(sessions, number) for number in chosen}
    numbers = array("i", [-1]) * len(sessions.of_span)
    parent_ids: dict[int, list[tuple[int, str]]] = {number: [] for number in chosen}
    for row, name, index, start, end, thread, parent_id in connection.execute(
        "SELECT n, name, idx, start_ns, end_ns, thread_id, parent_id FROM span ORDER BY start_ns, n"
    ):
        session = sessions.of_span[row]
        forest = forests.get(session)
        if forest is None:
            continue
        if row == sessions.sessions[session].root:
            numbers[row] = 0
            forest.row[0], forest.place[0], forest.thread[0] = row, TREE, thread or 0
            continue
        number = numbers[row] = forest.add(row, name, index, start, end, thread)
        if sessions.parents[row] == MISSING and parent_id is not None:
            parent_ids[session].append((number, parent_id))
    for session, forest in forests.items():
        _set_parents(forest, sessions, session, numbers)
        for number, parent_id in parent_ids[session]:
            if parent_id not in forest.missing:
                forest.stand_in(parent_id, NOT_THERE, forest.start[number])
            forest.parent[number] = forest.missing[parent_id]
            forest.place[number] = TREE
        forest.link()
    return [forests[number] for number in chosen]


def _with_root(sessions: Sessions, number: int) -> Forest:
    session = sessions.sessions[number]
    forest = Forest()
    root = forest.stand_in(session.id, SESSION, session.start_ns)
    if session.end_ns is not None:
        forest.end[root] = session.end_ns
    return forest


def _set_parents(forest: Forest, sessions: Sessions, session: int, numbers: array[int]) -> None:
    for number in range(1, len(forest)):
        parent = sessions.parents[forest.row[number]]
        if parent > 0 and sessions.of_span[parent] == session:
            forest.parent[number] = numbers[parent]
        else:
            forest.place[number] = DETACHED
