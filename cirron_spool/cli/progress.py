"""The progress bar of a flush on a terminal."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.text import Text

from cirron_spool.cli.console import Console
from cirron_spool.cli.views import FlushView
from cirron_spool.naming import human_size, printable
from cirron_spool.report import Ended, Failed, FlushEvent, Quarantined, Retrying, Sending, Started, Uploaded

if TYPE_CHECKING:
    from types import TracebackType

# Redraws a second: enough to look alive, too few to be felt by the flush.
_REDRAWS_A_SECOND = 8
# The rate is that of the last seconds: a link that has become slow shows soon.
_RATE_OVER_S = 10.0
_WIDEST_BAR = 40
# Free columns at the right: the terminal's echo of ^C must not wrap the line that is to be wiped.
_MARGIN = 4


class Bar(FlushView):
    """Batches, bytes, rate and time left, and below it the file in flight; redrawn in place on standard error."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._total = 0
        self._sent = 0
        self._file = ""
        self._retry_at: float | None = None
        self._waits_since = 0.0
        self._attempt = 1
        self._why = ""
        self._widest = 0
        # When so many bytes were done, over the last seconds.
        self._marks: deque[tuple[float, int]] = deque()
        # soft_wrap: a long line of words is the terminal's to wrap, never ours to cut.
        self._rich = RichConsole(file=sys.stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._live = self._new_live()
        self._drawn = False
        self._paused_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, event: FlushEvent) -> None:
        """Show one event."""
        super().show(event)
        match event:
            case Started():
                self._total = event.total_bytes
                self._mark()
                if event.batches:
                    self._live.start()
                    self.console.above = self._print
            case Sending():
                self._end_wait()
                self._file, self._attempt = event.name, 1
            case Retrying():
                self._end_wait()
                self._waits_since = time.monotonic()
                self._retry_at, self._attempt = self._waits_since + event.delay_s, event.attempt
                self._file = event.name
                # Its words before the colon name the batch, which stands beside it.
                self._why = printable(event.message.partition(": ")[2])
            case Uploaded():
                self._end_wait()
                self._sent += event.size
                self._mark()
            case Failed() | Quarantined():
                self._end_wait()
            case Ended():
                self.close()

    def pause(self) -> None:
        """Wipe the bar and give the terminal its cursor back."""
        self._paused_at = time.monotonic()
        self._drawn = self._live.is_started
        self._live.stop()

    def resume(self, *, draw: bool) -> None:
        """Draw on, if there was anything to show."""
        self._leave_out(time.monotonic() - self._paused_at)
        if draw and self._drawn:
            # A new one: the old one would begin with wiping the lines above, which are the shell's by now.
            self._live = self._new_live()
            self._live.start()

    def close(self) -> None:
        """Wipe the bar and give the terminal its cursor back."""
        self._live.stop()
        self.console.above = None

    def _print(self, line: str) -> None:
        """One line above the bar."""
        self._rich.print(Text(line), soft_wrap=True)

    def _new_live(self) -> Live:
        return Live(
            console=self._rich,
            get_renderable=self._lines,
            transient=True,
            refresh_per_second=_REDRAWS_A_SECOND,
        )

    def _mark(self) -> None:
        now = time.monotonic()
        self._marks.append((now, self._sent))
        while len(self._marks) > 2 and now - self._marks[0][0] > _RATE_OVER_S:
            self._marks.popleft()

    def _waited(self, now: float) -> float:
        """The seconds of the wait for a retry so far: the link is not slower for a server that asked us to wait."""
        if self._retry_at is None:
            return 0.0
        return max(0.0, min(now, self._retry_at) - self._waits_since)

    def _end_wait(self) -> None:
        if self._retry_at is not None:
            self._leave_out(self._waited(time.monotonic()))
            self._retry_at = None

    def _leave_out(self, seconds: float) -> None:
        """Take seconds in which nothing could be sent out of what the rate is reckoned from."""
        self._marks = deque((when + seconds, sent) for when, sent in self._marks)

    def _rate(self) -> float:
        """Bytes of batches a second."""
        now = time.monotonic()
        now -= self._waited(now)
        since, sent = self._marks[0] if self._marks else (now, 0)
        seconds = now - since
        return (self._sent - sent) / seconds if seconds > 0 else 0.0

    def _lines(self) -> Group:
        width = max(1, self._rich.width - _MARGIN)
        rate = self._rate()
        parts = [
            f"{self.tally.uploaded}/{self.tally.listed} batches",
            f"{human_size(self._sent)} / {human_size(self._total)}",
            f"{human_size(int(rate))}/s" if rate else "",
            f"{_clock((self._total - self._sent) / rate)} left" if rate else "",
        ]
        # On a narrow terminal the last parts go first; the count always stays.
        numbers = "  ".join(filter(None, parts))
        while len(numbers) > width and len(parts) > 1:
            parts.pop()
            numbers = "  ".join(filter(None, parts))
        first = Text(no_wrap=True, overflow="ellipsis")
        # As wide as the widest numbers leave it: its end must not jump about as they change.
        self._widest = max(self._widest, len(numbers))
        room = min(_WIDEST_BAR, width - self._widest - 2)
        if room >= 8:
            filled = room * self._sent // self._total if self._total else 0
            first.append("━" * filled, style="green")
            first.append("─" * (room - filled), style="bright_black")
            first.append("  ")
        first.append(numbers)
        first.truncate(width, overflow="ellipsis")
        second = Text(self._now(), style="dim" if self._retry_at is None else "yellow", no_wrap=True)
        second.truncate(width, overflow="ellipsis")
        return Group(first, second)

    def _now(self) -> str:
        """The file in flight, or how long until it is tried again and why."""
        if self._retry_at is not None:
            left = math.ceil(self._retry_at - time.monotonic())
            if left > 0:
                return f"retry in {left} s (attempt {self._attempt}): {self._why}  {self._file}"
            return f"attempt {self._attempt}  {self._file}"
        return self._file


def _clock(seconds: float) -> str:
    """``0:07``, ``12:30``, ``3:05:00``."""
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
