"""``inspect --summary`` and ``--html``: the figures of a spool, as lines of text, as JSON and as a page."""

from __future__ import annotations

from collections.abc import Iterator

from cirron_spool.cli.render import Times
from cirron_spool.html.spool_page import MOST_ROWS, Row, spool_page
from cirron_spool.offline import Inventory
from cirron_spool.spool.summary import Summary
from cirron_spool.text import count, human_size, printable, sparkline, time_span


def summary_lines(inventory: Inventory, figures: Summary) -> Iterator[str]:
    """``figures`` as text."""
    total = f"{count(len(inventory.entries), 'file')}, {human_size(inventory.total_bytes)}"
    yield f"Spool: {printable(str(inventory.directory))}  ({total})"
    oldest, newest = _ends(inventory)
    yield f"Oldest: {oldest}   Newest: {newest}"
    for name, value in _figures(figures):
        yield f"{name}: {value}"
    yield f"Bytes over time: {sparkline(figures.bytes_over_time)}"


def summary_page(
    inventory: Inventory, figures: Summary | None, last: int | None, written: str
) -> Iterator[bytes]:
    """``figures`` and the newest batches as a page; ``written`` is its time."""
    times = Times()
    shown = min(last or MOST_ROWS, MOST_ROWS, len(inventory.entries))
    entries = inventory.entries[len(inventory.entries) - shown :]
    rows = [Row(times.of(entry.name)[1], entry.size, entry.name) for entry in entries]
    values = [("Batches", f"{len(inventory.entries):,}"), ("Size", human_size(inventory.total_bytes))]
    if figures is not None:
        values += [*zip(("Oldest", "Newest"), _ends(inventory), strict=True), *_figures(figures)]
    if inventory.left_out:
        values.append(("Left out by the selection", count(inventory.left_out, "file")))
    page = spool_page(
        str(inventory.directory),
        values,
        figures.bytes_over_time if figures is not None else (),
        rows,
        batches=len(inventory.entries),
        written=written,
    )
    return (part.encode("utf-8", "backslashreplace") for part in page)


def _ends(inventory: Inventory) -> tuple[str, str]:
    times = Times()
    return times.of(inventory.entries[0].name)[1], times.of(inventory.entries[-1].name)[1]


def _figures(figures: Summary) -> Iterator[tuple[str, str]]:
    yield "Span", time_span(figures.span_s)
    yield "Largest", f"{human_size(figures.largest.size)} ({figures.largest.name})"
    if figures.rate:
        rate = f"{human_size(round(figures.rate * 60))} a minute"
        yield "Rate", f"{rate} (over the last {time_span(figures.rate_s)})"
    if figures.cap is not None:
        full = f"{human_size(figures.cap)}, {figures.used * 100 // figures.cap} % full"
        yield "SDK limit", f"{full}. {_eviction(figures)}"


def _eviction(figures: Summary) -> str:
    if figures.full_in_s == 0:
        return "The SDK deletes the oldest batch with each new one."
    if figures.full_in_s is not None:
        return f"At this rate the SDK deletes the oldest batch in {time_span(figures.full_in_s)}."
    if figures.rate and figures.silent_s > 0:
        return f"Nothing was written in the last {time_span(figures.silent_s)}."
    return "There is no rate yet."


def summary_json(figures: Summary | None) -> dict[str, object] | None:
    """``summary`` in the object of ``inspect --summary --json``; None for an empty spool."""
    if figures is None:
        return None
    return {
        "spanSeconds": round(figures.span_s, 3),
        "largest": {"name": figures.largest.name, "size": figures.largest.size},
        "bytesPerSecond": round(figures.rate, 3),
        "rateSeconds": round(figures.rate_s, 3),
        "limitBytes": figures.cap,
        "secondsToLimit": None if figures.full_in_s is None else round(figures.full_in_s, 3),
        "bytesOverTime": list(figures.bytes_over_time),
    }
