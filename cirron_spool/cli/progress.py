"""The progress bar of a flush on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeRemainingColumn,
)
from rich.text import Text

from cirron_spool.cli.console import Console
from cirron_spool.cli.views import FlushView
from cirron_spool.naming import human_size
from cirron_spool.report import Ended, Failed, FlushEvent, Quarantined, Retrying, Sending, Started, Uploaded

if TYPE_CHECKING:
    from types import TracebackType

# Redraws a second: enough to look alive, too few to be felt by the flush.
_REDRAWS_A_SECOND = 8


class _Amounts(ProgressColumn):
    """Batches and bytes done of all, and the rate."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        done, batches = task.fields["done"], task.fields["batches"]
        rate = f"  {human_size(int(task.speed))}/s" if task.speed else ""
        size = f"{human_size(int(task.completed))} / {human_size(int(task.total or 0))}"
        return Text(f"{done}/{batches} batches  {size}{rate}")


class _Now(ProgressColumn):
    """The file in flight, or how long until it is tried again."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        retry_at = task.fields["retry_at"]
        name: str = task.fields["name"]
        if retry_at is not None:
            left = max(0.0, retry_at - time.monotonic())
            return Text(f"retry in {left:.0f} s (attempt {task.fields['attempt']})  {name}", style="yellow")
        return Text(name, style="dim")


class Bar(FlushView):
    """Batches, bytes, rate, time left and the file in flight, redrawn in place on standard error."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        # soft_wrap: a long line of words is the terminal's to wrap, never ours to cut.
        self._rich = RichConsole(file=sys.stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._progress = Progress(
            BarColumn(bar_width=None),
            _Amounts(),
            TimeRemainingColumn(compact=True),
            _Now(),
            console=self._rich,
            transient=True,
            refresh_per_second=_REDRAWS_A_SECOND,
            expand=True,
        )
        self._task = self._progress.add_task(
            "flush",
            start=False,
            total=None,
            done=0,
            batches=0,
            name="",
            retry_at=None,
            attempt=0,
            visible=False,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, event: FlushEvent) -> None:
        """Show one event."""
        super().show(event)
        match event:
            case Started():
                self._progress.start_task(self._task)
                self._progress.update(
                    self._task, total=event.total_bytes, batches=event.batches, visible=event.batches > 0
                )
            case Sending():
                self._progress.update(self._task, name=event.name, retry_at=None)
            case Retrying():
                self._progress.update(
                    self._task,
                    name=event.name,
                    retry_at=time.monotonic() + event.delay_s,
                    attempt=event.attempt,
                )
            case Uploaded():
                self._progress.update(self._task, advance=event.size, done=self._uploaded, retry_at=None)
            case Failed() | Quarantined():
                self._progress.update(self._task, retry_at=None)
            case Ended():
                self._progress.stop()

    def say(self, line: str) -> None:
        """One line above the bar."""
        self._progress.console.print(Text(line), soft_wrap=True)

    def abandon(self) -> None:
        """Give the terminal its cursor back, then the last words."""
        self._progress.stop()
        super().abandon()
