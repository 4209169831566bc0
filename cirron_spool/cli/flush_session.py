"""One run of a flush command: the graceful stop, Ctrl-Z, and the output at the end."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cirron_spool.cli.console import INTERRUPTED, Fault
from cirron_spool.cli.signals import Signals, StopRequest
from cirron_spool.cli.views import FlushView
from cirron_spool.errors import EXIT_TEMPFAIL, CirronSpoolError
from cirron_spool.events import FlushEvent, SpoolsFound

if TYPE_CHECKING:
    from cirron_spool.telemetry.metrics_file import MetricsFile

R = TypeVar("R")


class FlushSession(ABC, Generic[R]):
    """One run of a flush command, shown in ``view``. ``watching`` are the options of a watch, or empty.

    ``metrics`` is the metrics file, or None.
    """

    metrics: MetricsFile | None = None

    def __init__(
        self, view: FlushView, options: argparse.Namespace, signals: Signals, watching: Mapping[str, Any]
    ) -> None:
        self._view = view
        self._options = options
        self._signals = signals
        self._watching = watching
        self._ended = False
        self.stop = StopRequest()

    @abstractmethod
    async def deliver(self, stop: asyncio.Event, **options: Any) -> R:
        """Flush with the ``options`` of the library until the end, or until ``stop`` is set."""

    @abstractmethod
    def conclude(self, result: R, exit_code: int, fault: Fault | None) -> int:
        """Print ``result`` as text or JSON; return ``exit_code``."""

    @abstractmethod
    def result_in(self, error: CirronSpoolError) -> R | None:
        """The result so far that ``error`` holds; None if no flush had started."""

    @abstractmethod
    def empty_result(self) -> R:
        """The result of a flush that could not start."""

    @abstractmethod
    def partial_result(self) -> R:
        """The result so far, for a process that ends at once."""

    @property
    def watched(self) -> str:
        """The name of the watched place in messages."""
        return "the spool"

    def stopping(self) -> AbstractContextManager[None]:
        """While the block runs, the first signal ends the flush gracefully."""
        extra_s = self._watching.get("grace_s", 0.0)
        return self._signals.stopping(self.stop, self.print_final_output, self._view.close, extra_s=extra_s)

    async def run(self, **options: Any) -> R:
        """Flush until the end or a signal."""
        stopped = asyncio.Event()

        def stop() -> None:
            wait = "4 s for the batch in flight"
            if self._watching:
                wait = f"{self._watching['grace_s']:g} s for the sealed batches"
            self._view.console.warning(f"Stopping: waiting up to {wait}. Press Ctrl-C again to stop now.")
            stopped.set()

        self.stop.bind(stop)
        with self._suspending(asyncio.get_running_loop()):
            if self._watching and not self._options.quiet:
                self._view.console.say(
                    f"Watching {self.watched}. Press Ctrl-C to send the sealed batches and stop."
                )
            async with self.metrics.kept_written() if self.metrics is not None else nullcontext():
                return await self.deliver(stopped, **options)

    def handle_event(self, event: FlushEvent | SpoolsFound, spool: Path | None = None) -> None:
        """Show an event, and count it. ``spool`` is the directory of one of several spools."""
        if self.metrics is not None and not isinstance(event, SpoolsFound):
            self.metrics.note(event, spool)
        self._view.show(event, spool)

    def end(self, result: R, exit_code: int, fault: Fault | None = None) -> int:
        """Print the result; return the exit code of the flush, or that of the signal that ended it."""
        self._ended = True
        if self._signals.number:
            exit_code = self._signals.exit_code
            fault = fault or Fault(INTERRUPTED, f"Stopped by {self._signals.name}.")
        return self.conclude(result, exit_code, fault)

    def print_final_output(self) -> None:
        """Print the counts so far, for a process that ends at once."""
        if not self._ended:
            self._view.console.write_unbuffered()
            self.end(self.partial_result(), EXIT_TEMPFAIL)

    @contextmanager
    def _suspending(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """While the block runs, Ctrl-Z restores the terminal before the process is suspended."""
        # SIGTSTP is ignored without a shell that could continue the process. It stays ignored.
        if not hasattr(signal, "SIGTSTP") or signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
            yield
            return

        def suspend() -> None:
            self._view.pause()
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, suspend_soon)
            self._view.resume(draw=_in_foreground())

        def suspend_soon(number: int, frame: FrameType | None) -> None:
            del number, frame
            loop.call_soon_threadsafe(suspend)

        signal.signal(signal.SIGTSTP, suspend_soon)
        try:
            yield
        finally:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)


def _in_foreground() -> bool:
    """Whether this process may draw on the terminal. After ``bg`` it may not."""
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False
