"""``traces view``: the scope tree as text and as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from cirron_spool.cli.console import Console
from cirron_spool.errors import EXIT_OK, ConfigError
from cirron_spool.text import beginning, count, display_width, duration, human_size, iso_utc, printable
from cirron_spool.traces.forest import DETACHED, OPEN, STAND_IN, Forest
from cirron_spool.traces.forms import document
from cirron_spool.traces.marks import MarkGroup, Value
from cirron_spool.traces.sessions import Session
from cirron_spool.traces.trace import Trace
from cirron_spool.traces.tree import DEEPEST, MOST_SIBLINGS, Folding, Node, label
from cirron_spool.traces.view import SessionView, view

_PLACES = {DETACHED: " (no parent)", STAND_IN: ""}
_LONGEST_VALUE = 40


def show(trace: Trace, options: argparse.Namespace, console: Console) -> int:
    """Print the trees of the chosen sessions; return the exit code."""
    if options.html is not None and options.json:
        raise ConfigError("--json and --html exclude each other. Choose one.")
    if options.open and options.html in (None, "-"):
        raise ConfigError("--open is for a page. Add --html FILE, or leave it out.")
    if options.session is None and options.last is None:
        chosen = trace.newest_run()
    else:
        chosen = trace.choose(options.session, options.last)
    folding = Folding(
        DEEPEST if options.depth is None else options.depth,
        options.min_wall or 0,
        options.name,
        options.siblings or MOST_SIBLINGS,
    )
    views = view(trace, chosen, folding)
    if options.html is not None:
        from cirron_spool.cli.traces_page import write_page  # text needs no page

        return write_page(trace, chosen, views, options, console)
    if options.json:
        return console.end(EXIT_OK, document(trace, "sessions", [each.form() for each in views]))
    console.data(_lines(trace, views, console.columns))
    return EXIT_OK


def _lines(trace: Trace, views: Sequence[SessionView], columns: int) -> Iterator[str]:
    for each in views:
        for line in _session_lines(each):
            yield _cut(line, columns)
    others = len(trace.sessions) - len(views)
    if others:
        yield _cut(f"Not shown: {count(others, 'other session')}. Pass --session or --last.", columns)


def _cut(line: str, columns: int) -> str:
    return f"{beginning(line, columns - 1)}…" if 0 < columns < display_width(line) else line


def _session_lines(each: SessionView) -> Iterator[str]:
    session, tree = each.session, each.tree
    yield f"Session {printable(session.id)}  {', '.join(_facts(session))}"
    yield from _tree_lines(each)
    parts = [
        f"{number:,} {what}"
        for number, what in (
            (tree.folded, "in folds"),
            (tree.hidden, "below folds"),
            (tree.left_out, "left out by --name"),
        )
        if number
    ]
    if parts:
        yield f"Of {session.spans:,} spans: {', '.join(parts)}."


def _facts(session: Session) -> Iterator[str]:
    yield iso_utc(session.start_ns)
    yield f"live, {duration(session.duration_ns)} so far" if session.live else duration(session.duration_ns)
    if session.rank is not None:
        yield f"rank {session.rank}"
    if session.pid is not None:
        yield f"pid {session.pid}"
    for number, what in ((session.spans, "span"), (session.marks, "mark"), (session.snapshots, "snapshot")):
        yield f"{number:,} {what}{'' if number == 1 else 's'}"
    yield human_size(session.size)


def _tree_lines(each: SessionView) -> Iterator[str]:
    """The nodes from the session down, each with its branch lines."""
    pending: list[tuple[Node, str, str]] = [(each.tree.root, "", "")]
    while pending:
        node, before, below = pending.pop()
        yield before + _node(each.forest, node, each.marks.get(node.number, []))
        last = len(node.children) - 1
        for number in range(last, -1, -1):
            fork, line = ("└─ ", "   ") if number == last else ("├─ ", "│  ")
            pending.append((node.children[number], below + fork, below + line))


def _node(forest: Forest, node: Node, marks: Sequence[MarkGroup]) -> str:
    name = printable(label(forest, node))
    text = f"{name}  {_fold(node)}" if node.fold else f"{name}{_span(forest, node)}"
    if node.hidden:
        text += f"  (+ {count(node.hidden, 'span')} below)"
    return text + _marks(marks)


def _fold(node: Node) -> str:
    times = node.times
    text = f"×{len(node.spans):,}"
    if times.number:
        text += (
            f"  total {duration(times.total)}, median {duration(times.median)}, p95 {duration(times.p95)}, "
            f"longest {duration(times.most)}"
        )
    return f"{text}, {node.open} open" if node.open else text


def _span(forest: Forest, node: Node) -> str:
    number = node.spans[0]
    time = forest.duration(number)
    place = forest.place[number]
    if place == STAND_IN and number:
        return ""
    return ("  open" if time == OPEN else f"  {duration(time)}") + _PLACES.get(place, "")


def _marks(groups: Sequence[MarkGroup]) -> str:
    return f"  {{{', '.join(_mark(group) for group in groups)}}}" if groups else ""


def _mark(group: MarkGroup) -> str:
    name, last = printable(group.name), group.nonfinite or shown_value(group.last)
    if group.count == 1:
        return f"{name}={last}"
    text = f"{name} ×{group.count:,}: last {last}"
    if group.least is not None and group.most is not None:
        text += f", {shown_value(group.least)} to {shown_value(group.most)}"
    return f"{text}, {group.odd:,} not finite" if group.odd else text


def shown_value(value: Value) -> str:
    """A value in a few characters: six digits of a float, the beginning of a text."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = printable(str(value))
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
