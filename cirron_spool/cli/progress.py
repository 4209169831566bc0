"""The progress bar of a flush on a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.text import Text

from cirron_spool.cli.console import Console, dimension
from cirron_spool.cli.views import FlushView
from cirron_spool.display.meter import Meter
from cirron_spool.events import Ended, FlushEvent, SnapshotsStarted, SpoolsFound, Started

if TYPE_CHECKING:
    from types import TracebackType

# Seconds between two updates: visible movement, without a cost for the flush.
_REDRAW_S = 0.125
_WIDEST_BAR = 40
# The width of a terminal that does not report one.
_USUAL_WIDTH = 80
# Free columns at the right, so that the echo of ^C does not wrap the line.
_MARGIN = 4

# Variables of terminals that rewrap their lines when they become narrower.
_WRAPPING = (
    *("TMUX", "VTE_VERSION", "KONSOLE_VERSION", "KITTY_WINDOW_ID", "ALACRITTY_WINDOW_ID"),
    *("WT_SESSION", "WEZTERM_PANE"),
)
_WRAPPING_PROGRAMS = ("iTerm.app", "Apple_Terminal", "WezTerm", "vscode", "ghostty")
_WIPE_AND_GO_UP = "\r\x1b[2K\x1b[1A"


class Bar(FlushView):
    """Batches, bytes, rate and time left, and below it the file in flight; redrawn in place on standard error."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._meter = Meter()
        self._widest = 0
        self._lengths: list[int] = []
        # soft_wrap: rich cuts no line, and the terminal wraps it.
        self._rich = RichConsole(file=sys.stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._live = self._new_live()
        self._next: asyncio.TimerHandle | None = None
        self._drawn = False
        self._paused_at = 0.0

    @property
    def can_be_drawn(self) -> bool:
        """Whether this terminal can redraw lines, and no variable of rich disables that."""
        return self._rich.is_interactive

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, event: FlushEvent | SpoolsFound, spool: Path | None = None) -> None:
        """Show one event."""
        super().show(event, spool)
        self._meter.note(event, spool)
        match event:
            case Started(batches=batches) if batches and not self._live.is_started:
                self._begin()
            case SnapshotsStarted(snapshots=snapshots) if snapshots and not self._live.is_started:
                self._begin()  # an empty spool beside them
            case Ended() if spool is None:
                self.close()

    def pause(self) -> None:
        """Wipe the bar and give the terminal its cursor back."""
        self._paused_at = time.monotonic()
        self._drawn = self._live.is_started
        self._stop()

    def resume(self, *, draw: bool) -> None:
        """Draw the bar again, if there was one."""
        self._meter.leave_out(time.monotonic() - self._paused_at)
        if draw and self._drawn:
            # A new display: the old one would wipe lines of the shell.
            self._live = self._new_live()
            self._start()

    def close(self) -> None:
        """Wipe the bar and give the terminal its cursor back."""
        self._stop()
        self.console.above = None

    def _begin(self) -> None:
        self._start()
        self.console.above = self._print

    def _start(self) -> None:
        self._fit()
        with self.console.uninterrupted():
            self._live.start()
        self._redraw_later()

    def _redraw_later(self) -> None:
        # The event loop redraws. rich's own thread may fail to start, and its lock can block a signal handler.
        self._next = asyncio.get_running_loop().call_later(_REDRAW_S, self._redraw)

    def _redraw(self) -> None:
        self._fit()
        with self.console.uninterrupted():
            self._live.refresh()
        self._redraw_later()

    def _fit(self) -> None:
        """Read the width of the terminal, which may have changed."""
        width = dimension("COLUMNS", 0, sys.stderr) or _USUAL_WIDTH
        if width < self._rich.width and self._live.is_started and _wraps_again():
            # A line that is too long now takes several rows, but rich wipes only one.
            rows = sum(max(0, (length - 1) // width) for length in self._lengths)
            with self.console.uninterrupted():
                self._rich.file.write(_WIPE_AND_GO_UP * rows)
        self._rich.width = width

    def _stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
        self._fit()
        with self.console.uninterrupted():
            self._live.stop()

    def _print(self, line: str) -> None:
        """One line above the bar."""
        self._fit()
        with self.console.uninterrupted():
            self._rich.print(Text(line), soft_wrap=True)

    def _new_live(self) -> Live:
        return Live(
            console=self._rich,
            get_renderable=self._lines,
            transient=True,
            auto_refresh=False,
            vertical_overflow="crop",
        )

    def _lines(self) -> Group:
        width = max(1, self._rich.width - _MARGIN)
        parts = self._meter.parts()
        # A narrow terminal drops the last parts first, and always keeps the count.
        numbers = "  ".join(parts)
        while len(numbers) > width and len(parts) > 1:
            parts.pop()
            numbers = "  ".join(parts)
        first = Text(no_wrap=True, overflow="ellipsis")
        # A fixed width for the widest numbers, so that the end of the line does not move.
        self._widest = max(self._widest, len(numbers))
        room = min(_WIDEST_BAR, width - self._widest - 2)
        if room >= 8:
            filled = int(room * self._meter.share_done)
            first.append("━" * filled, style="green")
            first.append("─" * (room - filled), style="bright_black")
            first.append("  ")
        first.append(numbers)
        first.truncate(width, overflow="ellipsis")
        second = Text(self._meter.now(), style="yellow" if self._meter.waits else "dim", no_wrap=True)
        second.truncate(width, overflow="ellipsis")
        self._lengths = [first.cell_len, second.cell_len]
        return Group(first, second)


def _wraps_again() -> bool:
    """Whether the terminal rewraps its lines when it becomes narrower. Other terminals cut them."""
    return any(map(os.environ.get, _WRAPPING)) or os.environ.get("TERM_PROGRAM") in _WRAPPING_PROGRAMS
