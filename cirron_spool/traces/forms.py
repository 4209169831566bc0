"""Sessions and trees as JSON documents. Times since the epoch are strings: they exceed JavaScript's integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cirron_spool.text import iso_utc
from cirron_spool.traces.forest import DETACHED, NO_INDEX, OPEN, STAND_IN, Forest
from cirron_spool.traces.marks import MarkGroup
from cirron_spool.traces.sessions import Session
from cirron_spool.traces.trace import Trace
from cirron_spool.traces.tree import Node, Tree


def session_form(session: Session) -> dict[str, Any]:
    """A session as ``traces list --json`` has it."""
    return {
        "session": session.id,
        "startNs": str(session.start_ns),
        "iso": iso_utc(session.start_ns),
        "endNs": None if session.end_ns is None else str(session.end_ns),
        "durationNs": session.duration_ns,
        "live": session.live,
        "pid": session.pid,
        "rank": session.rank,
        "spans": session.spans,
        "openSpans": session.open_spans,
        "orphans": session.orphans,
        "marks": session.marks,
        "snapshots": session.snapshots,
        "batches": len(session.batches),
        "bytes": session.size,
    }


def document(trace: Trace, name: str, forms: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The object of ``--json``: ``forms`` under the key ``name``, and counts of skipped batches and odd records."""
    return {
        "dir": str(trace.path),
        name: forms,
        "batches": trace.loaded.batches,
        "totalBytes": trace.loaded.size,
        "brokenBatches": trace.loaded.broken,
        "duplicates": trace.loaded.duplicates,
        "orphans": trace.orphans,
        "cycles": trace.found.cycles,
    }


def tree_form(
    forest: Forest, tree: Tree, marks: dict[int, list[MarkGroup]], ids: dict[int, str]
) -> dict[str, Any]:
    """The tree of a session as ``traces view --json`` has it. ``ids`` are identifiers by database row."""
    forms = {node.number: _node_form(forest, node, marks, ids) for node in tree.nodes}
    for node in tree.nodes:
        forms[node.number]["children"] = [forms[child.number] for child in node.children]
    return {
        "shown": tree.shown,
        "folded": tree.folded,
        "hidden": tree.hidden,
        "leftOut": tree.left_out,
        "tree": forms[tree.root.number],
    }


def _node_form(
    forest: Forest, node: Node, marks: dict[int, list[MarkGroup]], ids: dict[int, str]
) -> dict[str, Any]:
    form: dict[str, Any] = {"name": node.name}
    first, times = node.spans[0], node.times
    if node.fold:
        form |= {
            "fold": node.fold,
            "count": len(node.spans),
            "totalNs": times.total,
            "medianNs": times.median,
            "p95Ns": times.p95,
            "minNs": times.least,
            "maxNs": times.most,
            "startNs": str(forest.start[first]),
        }
    else:
        end, place = forest.end[first], forest.place[first]
        form |= {
            "index": None if forest.index[first] == NO_INDEX else forest.index[first],
            "id": ids.get(forest.row[first]) or forest.ids.get(first),
            "startNs": str(forest.start[first]),
            "endNs": None if end == OPEN else str(end),
            "durationNs": None if end == OPEN else forest.duration(first),
            "thread": forest.thread[first],
        }
        if place != 0:
            form["place"] = {DETACHED: "detached", STAND_IN: "missing"}[place]
    if node.open:
        form["open"] = node.open
    if node.hidden:
        form["hidden"] = node.hidden
    form["marks"] = [mark_form(group) for group in marks.get(node.number, ())]
    return form


def mark_form(group: MarkGroup) -> dict[str, Any]:
    """The marks of one name. A value that is not finite is null, and a second key has its word."""
    form: dict[str, Any] = {"name": group.name, "kind": group.kind, "count": group.count, "last": group.last}
    if group.nonfinite is not None:
        form["lastNonfinite"] = group.nonfinite
    if group.count > 1:
        form |= {"min": group.least, "max": group.most, "nonfinite": group.odd}
    return form
