"""The marks of the nodes of a tree, grouped by name."""

from __future__ import annotations

import sqlite3
from array import array
from dataclasses import dataclass

from cirron_spool.traces.forest import Forest
from cirron_spool.traces.sessions import Sessions
from cirron_spool.traces.tree import Tree

Value = float | int | str | bool | None


@dataclass(slots=True)
class MarkGroup:
    """The marks of one name on one node.

    ``last`` is the last value, or None for a float that is not finite. ``nonfinite`` is the word for such a float.
    ``least`` and ``most`` cover the finite numbers, and are None without any. ``odd`` counts the other floats.
    """

    name: str
    kind: str
    count: int = 0
    last: Value = None
    nonfinite: str | None = None
    least: float | None = None
    most: float | None = None
    odd: int = 0

    def add(self, value: Value, nonfinite: str | None) -> None:
        """Take in the next mark."""
        self.count += 1
        self.last, self.nonfinite = value, nonfinite
        self.odd += nonfinite is not None
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.least = value if self.least is None else min(self.least, value)
            self.most = value if self.most is None else max(self.most, value)


def typed(value: Value, value_type: str) -> Value:
    """The value of a mark in its original type. SQLite has no booleans."""
    return bool(value) if value_type == "bool" and value in (0, 1) else value


def gather_marks(
    connection: sqlite3.Connection, sessions: Sessions, number: int, forest: Forest, tree: Tree
) -> dict[int, list[MarkGroup]]:
    """The marks of each node of the session with that ``number``, by the node's number, in order of their times.

    A mark of a missing span belongs to its stand-in, or without one to the session.
    """
    nodes = array("i", [-1]) * len(sessions.of_span)
    for each, row in enumerate(forest.row):
        if row:
            nodes[row] = tree.node_of[each]
    groups: dict[tuple[int, str], MarkGroup] = {}
    for row, span, span_id, name, kind, value, value_type, nonfinite in connection.execute(
        "SELECT m.n, s.n, m.span_id, m.name, m.kind, m.value, m.value_type, m.nonfinite "
        "FROM mark m LEFT JOIN span s ON s.id = m.span_id ORDER BY m.ts_ns, m.n"
    ):
        if sessions.of_mark[row] != number:
            continue
        node = nodes[span] if span is not None else tree.node_of[forest.missing.get(span_id, 0)]
        if node < 0:
            continue
        group = groups.get((node, name))
        if group is None:
            group = groups[node, name] = MarkGroup(name, kind)
        group.add(typed(value, value_type), nonfinite)
    found: dict[int, list[MarkGroup]] = {}
    for (node, _), group in groups.items():
        found.setdefault(node, []).append(group)
    return found
