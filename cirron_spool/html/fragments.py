"""Inventory and result as HTML for a notebook cell. All external text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

from cirron_spool.text import count, duration, human_size, iso_utc, printable

if TYPE_CHECKING:
    from cirron_spool.events import FlushResult

_Row = TypeVar("_Row")

# A longer table shows only its first and last rows.
_MOST_ROWS = 20
_MOST_LINES = 10


def inventory_html(
    directory: str, batches: Sequence[tuple[str, int]], left_out: int, warnings: Sequence[str]
) -> str:
    """A table of ``batches`` (name, size in bytes), oldest first. A long table shows its first and last rows."""
    place = printable(directory)
    if not batches:
        found = "selected" if left_out else "found"
        return f"<p>No spool files {found} in <code>{escape(place)}</code></p>"
    total = f"{count(len(batches), 'file')}, {human_size(sum(size for _, size in batches))}"
    rows = [(iso_utc(int(name.partition("-")[0])), human_size(size), name) for name, size in _ends(batches)]
    heads = ("Timestamp", "Size", "File")
    parts = list(_table(f"Spool: {place} ({total})", heads, rows, len(batches)))
    if left_out:
        parts.append(f"<p>Left out by the selection: {count(left_out, 'file')}</p>")
    return "".join((*parts, *_lines("Warnings", warnings)))


def result_html(result: FlushResult) -> str:
    """The counts of a flush, its failures and its warnings."""
    counts = [
        ("Uploaded", result.uploaded),
        ("Failed", result.failed),
        ("Skipped", result.skipped),
        *(
            (name, number)
            for name, number in (
                ("Quarantined", result.quarantined),
                ("Vanished", result.evicted),
                ("Left out", result.left_out),
            )
            if number
        ),
    ]
    rows = [(name, f"{number:,}") for name, number in counts]
    if result.uploaded:
        rows.append(("Sent", f"{human_size(result.bytes_sent)} in {result.seconds:.1f} s"))
    if result.destination:
        rows.append(("Destination", printable(result.destination)))
    failures = [failure.message for failure in result.failures]
    return "".join(
        (
            *_table(f"Flush of {printable(str(result.directory))}", (), rows, len(rows)),
            *_lines("Failures", failures),
            *_lines("Warnings", result.warnings),
        )
    )


def traces_html(directory: str, sessions: Sequence[dict[str, Any]], warnings: Sequence[str]) -> str:
    """The ``sessions`` of ``traces view --json`` with their trees."""
    place = printable(directory)
    if not sessions:
        return "".join(
            (f"<p>No traces found in <code>{escape(place)}</code></p>", *_lines("Warnings", warnings))
        )
    heads = ("Session", "Start", "Duration", "Rank", "Spans", "Marks")
    rows = [
        (
            printable(each["session"]),
            each["iso"],
            "live" if each["live"] else duration(each["durationNs"]),
            "" if each["rank"] is None else str(each["rank"]),
            f"{each['spans']:,}",
            f"{each['marks']:,}",
        )
        for each in _ends(sessions)
    ]
    trees = (
        f"<details><summary>{escape(row[0])}</summary><ul>{''.join(_tree(each['tree']))}</ul></details>"
        for row, each in zip(rows, _ends(sessions), strict=True)
    )
    table = _table(f"Traces: {place}", heads, rows, len(sessions))
    return "".join((*table, *trees, *_lines("Warnings", warnings)))


def _tree(root: dict[str, Any]) -> Iterator[str]:
    """The items of a tree. A loop without recursion, since scopes may nest deeply."""
    pending: list[dict[str, Any] | str] = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, str):
            yield node
            continue
        if "fold" in node:
            text = f"{node['name']} ×{node['count']:,}, total {duration(node['totalNs'])}"
        elif node.get("durationNs") is None:
            text = f"{node['name']} (open)"
        else:
            text = f"{node['name']} {duration(node['durationNs'])}"
        yield f"<li>{escape(printable(text))}"
        pending.append("</li>")
        if node["children"]:
            yield "<ul>"
            pending += ["</ul>", *reversed(node["children"])]


def progress_html(done: int, total: int, figures: str, line: str, warnings: Sequence[str]) -> str:
    """A bar at ``done`` of ``total`` with its ``figures``, the present ``line`` below it, and the warnings so far."""
    most = max(total, 1)
    bar = (
        f'<progress max="{most}" value="{min(done, most)}" aria-label="Flush" style="width: 20em"></progress>'
    )
    below = f"<div><small>{escape(line)}</small></div>" if line else ""
    return "".join((f"<div>{bar} {escape(figures)}</div>", below, *_lines("Warnings", warnings)))


def _ends(rows: Sequence[_Row]) -> list[_Row]:
    half = _MOST_ROWS // 2
    return list(rows) if len(rows) <= _MOST_ROWS else [*rows[:half], *rows[-half:]]


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], total: int) -> Iterator[str]:
    """A table of ``total`` rows, of which ``rows`` are shown. The first column has the row headers."""
    yield f'<table><caption style="text-align: left">{escape(caption)}</caption>'
    if heads:
        yield f"<thead><tr>{''.join(f'<th scope=col>{escape(head)}</th>' for head in heads)}</tr></thead>"
    yield "<tbody>"
    for number, row in enumerate(rows):
        if len(rows) < total and number == len(rows) // 2:
            yield f"<tr><td colspan={len(row)}>… {total - len(rows):,} more …</td></tr>"
        head, *cells = map(escape, row)
        yield f"<tr><th scope=row>{head}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield "</tbody></table>"


def _lines(title: str, lines: Iterable[str]) -> Iterator[str]:
    shown = [printable(line) for line in lines]
    if not shown:
        return
    items = "".join(f"<li>{escape(line)}</li>" for line in shown[-_MOST_LINES:])
    more = len(shown) - _MOST_LINES
    earlier = f" (the last {_MOST_LINES} of {len(shown)})" if more > 0 else ""
    yield f"<p>{title}{earlier}:</p><ul>{items}</ul>"
