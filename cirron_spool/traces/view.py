"""The folded trees of chosen sessions with their marks. Text, JSON and page are made from this model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cirron_spool.traces.forest import Forest, grow
from cirron_spool.traces.forms import session_form, tree_form
from cirron_spool.traces.marks import MarkGroup, gather_marks
from cirron_spool.traces.sessions import Session
from cirron_spool.traces.trace import Trace
from cirron_spool.traces.tree import Folding, Tree, fold


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session with its tree. ``marks`` are by the numbers of nodes, ``ids`` by the rows of the database."""

    session: Session
    forest: Forest
    tree: Tree
    marks: dict[int, list[MarkGroup]]
    ids: dict[int, str]

    def form(self) -> dict[str, Any]:
        """The session as ``traces view --json`` has it."""
        return {**session_form(self.session), **tree_form(self.forest, self.tree, self.marks, self.ids)}


def view(trace: Trace, chosen: Sequence[int], folding: Folding) -> list[SessionView]:
    """The views of the ``chosen`` sessions, by their numbers."""
    views = []
    for number, forest in zip(chosen, grow(trace.connection, trace.found, chosen), strict=True):
        tree = fold(forest, folding)
        marks = gather_marks(trace.connection, trace.found, number, forest, tree)
        views.append(SessionView(trace.sessions[number], forest, tree, marks, _ids(trace, forest, tree)))
    return views


def _ids(trace: Trace, forest: Forest, tree: Tree) -> dict[int, str]:
    """The identifiers of the spans with their own node, by database row."""
    rows = [forest.row[node.spans[0]] for node in tree.nodes if not node.fold]
    ask = trace.connection.execute
    return {row: ask("SELECT id FROM span WHERE n = ?", (row,)).fetchone()[0] for row in rows if row}
