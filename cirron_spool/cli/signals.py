"""The signals that end a command: SIGINT, SIGTERM and SIGHUP.

The first signal asks the command to stop, a second one ends the process at once. The handlers exist from the first
import to the end of the process. A signal that was ignored at the start, as after ``nohup``, stays ignored.
"""

from __future__ import annotations

import os
import signal
from _thread import get_ident, start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
# A shell's exit code of a program that a signal ended.
_SIGNALLED = 128
# The longest time of a command to stop.
_STOPPED_WITHIN_S = 5.0
# The longest wait of a second signal for the handler of the main thread.
_HANDLED_WITHIN_S = 0.5
# The wait for the handler of the main thread before the signal is repeated.
_REPEATED_AFTER_S = 0.05


def _interrupt() -> None:
    raise KeyboardInterrupt


def _nothing() -> None:
    pass


class Signals:
    """The present effect of the signals: interrupt the command, ask it to stop, or end the process.

    ``number`` is the first signal, or 0.
    """

    def __init__(self) -> None:
        self.number = 0
        self._ours: set[int] = set()
        self._on_first: Callable[[], None] = _interrupt
        self._last_words: Callable[[], None] = _nothing
        self._tidy: Callable[[], None] = _nothing
        self._watched = False
        self._longer_s = 0.0
        self._writing = 0
        self._postponed = False

    @property
    def exit_code(self) -> int:
        """The exit code of a command that a signal ended: 130, 143 or 129."""
        return _SIGNALLED + (self.number or signal.SIGINT)

    @property
    def name(self) -> str:
        """The name of the first signal."""
        return signal.Signals(self.number or signal.SIGINT).name

    def install(self) -> None:
        """Install the handlers until the end of the process. First they raise KeyboardInterrupt."""
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (
                signal.SIG_DFL,
                signal.default_int_handler,
            ):
                signal.signal(number, self._received)
                self._ours.add(number)

    def watch(self) -> None:
        """Start a thread that ends the process if the main thread hangs, for example on a dead mount.

        Without a thread or a pipe, only this case is missing.
        """
        if os.name == "nt":  # cannot wait for a pipe
            return
        with suppress(OSError, RuntimeError, MemoryError):
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            start_new_thread(self._watch, (reader, get_ident()))
            signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            self._watched = True

    @contextmanager
    def stopping(
        self,
        stop: Callable[[], None],
        last_words: Callable[[], None] = _nothing,
        tidy: Callable[[], None] = _nothing,
        *,
        longer_s: float = 0.0,
    ) -> Iterator[None]:
        """While the block runs, the first signal calls ``stop``, also a second time, from another thread.

        A process that is ended at once calls ``tidy`` if its main thread can, and ``last_words``. This happens after
        five seconds and ``longer_s`` at the latest. After the block the first signal ends the process, too.
        """
        self._last_words, self._tidy, self._longer_s = last_words, tidy, longer_s
        self._on_first = stop
        if self.number:  # it came before, and its exception was lost
            stop()
        try:
            yield
        finally:
            self.ending()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """While the block writes, an end at once waits for it, for half a second at most.

        A stream cannot be written by a handler that has interrupted its writing, nor a bar be wiped that is half drawn.
        """
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1
            if self._postponed and not self._writing:
                self._postponed = False
                self._leave()

    def ending(self) -> None:
        """The command is finished: from now on a signal ends the process at once."""
        self._on_first = self._leave

    def _received(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.number:
            self._leave()
        else:
            self.number = number
            self._on_first()

    def _leave(self) -> None:
        """End now. Nothing is lost: a batch without an acknowledgement stays in the spool."""
        if self._writing and self._watched:
            self._postponed = True
            return
        try:
            try:
                self._tidy()
            finally:
                self._last_words()
        finally:
            os._exit(self.exit_code)

    def _watch(self, reader: int, main: int) -> None:
        while (first := os.read(reader, 1)[0]) not in self._ours:
            pass
        import select  # seldom needed
        import time

        if self._on_first not in (_interrupt, self._leave):
            # Another thread may have received the signal: wake the event loop for the handler.
            self._on_first()
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        latest = time.monotonic() + _STOPPED_WITHIN_S + self._longer_s
        repeated = False
        while (wait_s := latest - time.monotonic()) > 0:
            is_unhandled = not (self.number or repeated)
            if poll.poll((min(wait_s, _REPEATED_AFTER_S) if is_unhandled else wait_s) * 1000):
                number = os.read(reader, 1)[0]
                if repeated and number == first:
                    repeated = False
                elif number in self._ours:
                    latest = min(latest, time.monotonic() + _HANDLED_WITHIN_S)
            elif is_unhandled and not self.number:
                # It came just before a blocking system call, which it did not interrupt.
                repeated = True
                signal.pthread_kill(main, first)
        self.number = self.number or first
        try:
            self._last_words()
        finally:
            os._exit(self.exit_code)


class StopRequest:
    """A request of a signal handler to stop, before, during or after the run of the event loop."""

    def __init__(self) -> None:
        self._asked = False
        self._on_request: Callable[[], None] = _nothing

    def __call__(self) -> None:
        """Request the stop, from any thread, any number of times."""
        self._asked = True
        self._on_request()

    def bind(self, on_request: Callable[[], None]) -> None:
        """Have the running event loop call ``on_request`` at the request, or at once after an earlier one."""
        import asyncio  # these commands import it anyway

        loop = asyncio.get_running_loop()
        done = False

        def once() -> None:
            nonlocal done
            if not done:
                done = True
                on_request()

        def ask() -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(once)

        self._on_request = ask
        if self._asked:
            ask()
