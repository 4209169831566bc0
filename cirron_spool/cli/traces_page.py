"""``traces view --html``: the run as a page."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from cirron_spool.cli.console import Console
from cirron_spool.cli.output_file import write_file
from cirron_spool.errors import EXIT_OK, ConfigError
from cirron_spool.html.trace_page import trace_page
from cirron_spool.text import printable
from cirron_spool.traces.exports.rows import Rows
from cirron_spool.traces.forms import document
from cirron_spool.traces.series import gather_series
from cirron_spool.traces.timeline import draw
from cirron_spool.traces.trace import Trace
from cirron_spool.traces.tree import Folding
from cirron_spool.traces.view import SessionView, view

_EPOCH = "epoch"
# Most lines for a useful drawing.
_MOST_EPOCHS = 300


def write_page(
    trace: Trace,
    chosen: Sequence[int],
    views: Sequence[SessionView],
    options: argparse.Namespace,
    console: Console,
) -> int:
    """Write the page of the chosen sessions, and open it with ``--open``; return the exit code."""
    plotly = _load_plotly()
    page = _document(trace, chosen, views, options.name)
    parts = (part.encode("utf-8", "backslashreplace") for part in trace_page(page, plotly))
    if options.html == "-":
        console.parts(parts)
        return EXIT_OK
    write_file(options.html, parts, option="--html")
    path = os.path.abspath(options.html)
    console.line(f"Success: The page is {printable(path)}.")
    if options.open and not _open(path):
        console.warning("No browser could be opened. Open the page by hand.")
    return EXIT_OK


def _load_plotly() -> str:
    """The script of the drawings. Raises ConfigError if the library is not installed."""
    try:
        script: str = import_module("plotly.offline").get_plotlyjs()
    except ImportError as error:
        raise ConfigError(
            f"The page needs Plotly ({error}). Install it: pip install 'cirron-spool[html]'."
        ) from None
    return script


def _document(
    trace: Trace, chosen: Sequence[int], views: Sequence[SessionView], name: str | None
) -> dict[str, Any]:
    rows = Rows(trace, chosen)
    by_name = view(trace, chosen, Folding(siblings=1, name=name))
    sessions = []
    for number, each, folded in zip(chosen, views, by_name, strict=True):
        series, left_out = gather_series(rows, number)
        epochs = list(_epochs(rows, number))
        sessions.append(
            {
                **each.form(),
                "aggregated": folded.form()["tree"],
                "aggregatedHidden": folded.tree.hidden,
                "timeline": draw(rows, number).form(),
                "series": [one.form() for one in series],
                "seriesLeftOut": left_out,
                "epochs": epochs[:_MOST_EPOCHS],
                "epochsLeftOut": len(epochs[_MOST_EPOCHS:]),
            }
        )
    return document(trace, "sessions", sessions)


def _epochs(rows: Rows, number: int) -> Iterator[tuple[int, int | None]]:
    """The starts of the run's epochs, in ns since its start, with their indexes."""
    start_ns = rows.session(number).start_ns
    for span in rows.spans():
        if span.number == number and span.name == _EPOCH:
            yield span.start_ns - start_ns, span.position


def _open(path: str) -> bool:
    import webbrowser

    try:
        return webbrowser.open(Path(path).as_uri())
    except (OSError, webbrowser.Error):
        return False
