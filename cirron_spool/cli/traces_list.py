"""``traces list``: the sessions as a table."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from cirron_spool.cli.console import Console
from cirron_spool.cli.grid import grid
from cirron_spool.errors import EXIT_OK
from cirron_spool.text import count, duration, human_size, iso_utc, printable
from cirron_spool.traces.forms import document, session_form
from cirron_spool.traces.sessions import Session
from cirron_spool.traces.trace import Trace

_HEADS = ("Session", "Start", "Duration", "Rank", "Spans", "Marks", "Snapshots", "Bytes")
_SIDES = "<>>>>>>>"
SHORT_ID = 8


def show(trace: Trace, options: argparse.Namespace, console: Console) -> int:
    """Print the chosen sessions; return the exit code."""
    chosen = [trace.sessions[number] for number in trace.choose(options.session, options.last)]
    if options.json:
        return console.end(EXIT_OK, document(trace, "sessions", [session_form(each) for each in chosen]))
    console.data(_lines(trace, chosen, console.columns))
    return EXIT_OK


def _lines(trace: Trace, sessions: Sequence[Session], columns: int) -> Iterator[str]:
    place = printable(str(trace.path))
    batches = count(trace.loaded.batches, "batch")
    yield f"Spool: {place}  ({count(len(sessions), 'session')}, {batches}, {human_size(trace.loaded.size)})"
    yield from grid([_row(session) for session in sessions], _HEADS, _SIDES, columns, shortest=SHORT_ID)


def _row(session: Session) -> tuple[str, ...]:
    rank = "" if session.rank is None else str(session.rank)
    numbers = (session.spans, session.marks, session.snapshots)
    return (
        printable(session.id),
        iso_utc(session.start_ns),
        "live" if session.live else duration(session.duration_ns),
        rank,
        *(f"{number:,}" for number in numbers),
        human_size(session.size),
    )
