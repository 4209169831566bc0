"""``inspect --summary``: the figures of a spool, as lines of text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator

from cirron_spool.cli.render import Times
from cirron_spool.offline import Inventory
from cirron_spool.spool.summary import Summary
from cirron_spool.text import count, human_size, printable, sparkline, time_span


def summary_lines(inventory: Inventory, figures: Summary) -> Iterator[str]:
    """``figures`` for a person."""
    times = Times()
    oldest, newest = (times.of(entry.name)[1] for entry in (inventory.entries[0], inventory.entries[-1]))
    total = f"{count(len(inventory.entries), 'file')}, {human_size(inventory.total_bytes)}"
    yield f"Spool: {printable(str(inventory.directory))}  ({total})"
    yield f"Oldest: {oldest}   Newest: {newest}"
    yield f"Span: {time_span(figures.span_s)}"
    yield f"Largest: {human_size(figures.largest.size)} ({figures.largest.name})"
    if figures.rate:
        yield f"Rate: {human_size(round(figures.rate * 60))} a minute (over the last {time_span(figures.rate_s)})"
    if figures.cap is not None:
        full = f"{human_size(figures.cap)}, {figures.used * 100 // figures.cap} % full"
        yield f"SDK limit: {full}. {_eviction(figures)}"
    yield f"Bytes over time: {sparkline(figures.bytes_over_time)}"


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
