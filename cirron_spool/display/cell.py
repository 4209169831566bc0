"""The live display of a flush in the cell of a notebook."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from cirron_spool.display.meter import Meter
from cirron_spool.display.warning_lines import WarningLines
from cirron_spool.events import Ended, FlushEvent, Started, describe, is_for_person
from cirron_spool.html.fragments import progress_html
from cirron_spool.text import printable

# Seconds between two updates. Each one is a message to the browser.
_REDRAW_S = 0.5

# Shows the HTML, and the text for a front end without HTML.
_Show = Callable[[str, str], None]


class CellDisplay:
    """A bar with the figures of the flush, the batch in flight, and the warnings. The last state stays."""

    def __init__(self, show: _Show) -> None:
        self._show = show
        self._meter = Meter()
        self._warnings = WarningLines()
        self._next: asyncio.TimerHandle | None = None

    def note(self, event: FlushEvent) -> None:
        """Show an event. Called in the event loop of the flush."""
        self._meter.note(event)
        if is_for_person(event):
            self._warnings.append(describe(event))
        match event:
            case Started(batches=batches) if batches and self._next is None:
                self._redraw()
            case Ended(result=result):
                if self._next is not None:
                    self._next.cancel()
                    self._draw(f"Ended after {result.seconds:.1f} s.")

    def _redraw(self) -> None:
        self._draw(self._meter.now())
        # From the event loop: an update from another thread could go to another cell.
        self._next = asyncio.get_running_loop().call_later(_REDRAW_S, self._redraw)

    def _draw(self, line: str) -> None:
        figures = "  ".join(self._meter.parts())
        html = progress_html(
            self._meter.done, self._meter.total, figures, printable(line), self._warnings.lines()
        )
        self._show(html, f"{figures}  {line}".rstrip())


def cell_display() -> CellDisplay | None:
    """The display of a flush in a notebook's cell; None in any other program."""
    show = _publisher()
    return CellDisplay(show) if show is not None else None


def _publisher() -> _Show | None:
    # A process that has not imported IPython is not a kernel.
    ipython: Any = sys.modules.get("IPython")
    get_shell = getattr(ipython, "get_ipython", None)
    shell = get_shell() if get_shell is not None else None
    if getattr(shell, "kernel", None) is None:  # a terminal's IPython has none
        return None
    display = ipython.display.display
    handle: Any = None

    def show(html: str, text: str) -> None:
        nonlocal handle
        data = {"text/html": html, "text/plain": text}
        if handle is None:
            handle = display(data, raw=True, display_id=True)
        else:
            handle.update(data, raw=True)

    return show
