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
# Shells add the number of the signal to this code.
_SIGNALLED = 128
# Longest time of a graceful stop.
_STOPPED_WITHIN_S = 5.0
# Longest wait for the main thread's handler after a second signal.
_HANDLED_WITHIN_S = 0.5
# The wait for the handler of the main thread before the signal is repeated.
_REPEATED_AFTER_S = 0.05


def _interrupt() -> None:
    raise KeyboardInterrupt


def _do_nothing() -> None:
    pass


class Signals:
    """The current effect of the signals: interrupt the command, stop it gracefully, or end the process.

    ``number`` is the first signal, or 0.
    """

    def __init__(self) -> None:
        self.number = 0
        self._ours: set[int] = set()
        self._on_first: Callable[[], None] = _interrupt
        self._final_output: Callable[[], None] = _do_nothing
        self._cleanup: Callable[[], None] = _do_nothing
        self._watched = False
        self._extra_s = 0.0
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
        """Install the handlers until the end of the process. At first they raise KeyboardInterrupt."""
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

        If the thread cannot start, a hung process does not end.
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
        final_output: Callable[[], None] = _do_nothing,
        cleanup: Callable[[], None] = _do_nothing,
        *,
        extra_s: float = 0.0,
    ) -> Iterator[None]:
        """While the block runs, the first signal calls ``stop``, possibly twice and from another thread.

        A second signal ends the process at once. So does a stop that takes longer than five seconds plus ``extra_s``.
        The end calls ``cleanup`` if the main thread responds, and then ``final_output``. After the block, the first
        signal also ends the process at once.
        """
        self._final_output, self._cleanup, self._extra_s = final_output, cleanup, extra_s
        self._on_first = stop
        if self.number:  # it came before, and its exception was lost
            stop()
        try:
            yield
        finally:
            self.ending()

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Delay an immediate end until the block has finished its write, by half a second at most.

        A handler that interrupts a write cannot use the same stream.
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
                self._cleanup()
            finally:
                self._final_output()
        finally:
            os._exit(self.exit_code)

    def _watch(self, reader: int, main_thread: int) -> None:
        while (first := os.read(reader, 1)[0]) not in self._ours:
            pass
        import select  # late import: rarely needed
        import time

        if self._on_first not in (_interrupt, self._leave):
            # Another thread may have received the signal: wake the event loop for the handler.
            self._on_first()
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        latest = time.monotonic() + _STOPPED_WITHIN_S + self._extra_s
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
                signal.pthread_kill(main_thread, first)
        self.number = self.number or first
        try:
            self._final_output()
        finally:
            os._exit(self.exit_code)


class StopRequest:
    """A stop request of a signal handler, before, during or after the run of the event loop."""

    def __init__(self) -> None:
        self._asked = False
        self._on_request: Callable[[], None] = _do_nothing

    def __call__(self) -> None:
        """Request the stop, from any thread, any number of times."""
        self._asked = True
        self._on_request()

    def bind(self, on_request: Callable[[], None]) -> None:
        """Let the running event loop call ``on_request`` once: at the request, or now if it came before."""
        import asyncio  # late import: not every command needs it

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
