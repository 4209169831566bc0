"""``BackgroundDelivery``: deliver the batches of a run from a thread of its process. A failure is a warning."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from inspect import signature
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cirron_spool.concurrency import event_loop
from cirron_spool.concurrency.threads import call_from_thread, start
from cirron_spool.errors import EXIT_TEMPFAIL, CirronSpoolError, ConfigError, SpoolBusyError, resource_errors
from cirron_spool.settings.paths import find_spool, path_text
from cirron_spool.text import count, printable
from cirron_spool.watch import WATCH_GRACE_S, watch_spool

if TYPE_CHECKING:
    from pathlib import Path

    from cirron_spool.events import FlushResult

# Seconds between two checks of a spool that another process holds.
RETRY_S = 5.0
# A watch ends within its grace. The thread may take this much longer.
_END_S = 3.0
# They belong to an event loop of the caller, to a flush, or to a process of its own.
_NOT_HERE = ("client", "session", "stop", "snapshots", "until_pid", "idle_exit_s")


class BackgroundDelivery:
    """The delivery of a spool in a daemon thread beside a training: ``with BackgroundDelivery(): train()``.

    ``options`` are those of :func:`~cirron_spool.watch_spool`, without ``client``, ``session`` and ``stop``.
    ``on_event`` is called in the thread. Raises ConfigError, or TypeError for an unknown option, when it is made.
    After that nothing raises: a failure is a RuntimeWarning, and the batches stay in the spool.

    Many processes may deliver one spool, such as the ranks of a training. One of them holds the lock of the spool.
    The others look every five seconds whether they can take over.

    A pickle or a copy has the options, and is not started. A fork of the process delivers nothing.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        grace_s: float = WATCH_GRACE_S,
        **options: Any,
    ) -> None:
        if directory is not None:
            path_text(directory, "directory")
        _check(options)
        watch_spool(directory, grace_s=grace_s, **options)
        self._directory = directory
        self._options = {**options, "grace_s": grace_s}
        self._running: _Running | None = None
        self._result: FlushResult | None = None

    @property
    def result(self) -> FlushResult | None:
        """The counts of the last finished delivery; None before its end, and after an error."""
        return self._result

    def start(self) -> None:
        """Start the delivery, unless it is running."""
        if self._running is not None and self._running.is_alive:
            return
        self._result = None
        with _warned("The delivery could not begin"), resource_errors():
            # Found at the start, since a training may change the working directory.
            directory = find_spool(self._directory, os.environ, file_needed=False).path
            running = _Running(directory, self._options)
            running.start()
            self._running = running
            atexit.register(self.finish)  # after an exception, nothing else may call it

    def finish(self) -> FlushResult | None:
        """Deliver the records of the run until now, and end. Returns the result, or None.

        Takes ``grace_s`` and three seconds at most, and no time where an outage is waited out. A KeyboardInterrupt ends
        the delivery at once, and is raised.
        """
        running, self._running = self._running, None
        if running is None:
            return self._result
        atexit.unregister(self.finish)
        with _warned("The delivery did not end well"):
            running.finish(self._options["grace_s"] + _END_S)
            self._result = running.result
        return self._result

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_running": None}


class _Running:
    """One thread with one event loop, and the watch in it."""

    def __init__(self, directory: Path, options: dict[str, Any]) -> None:
        self.result: FlushResult | None = None
        self._directory = directory
        self._options = options
        self._thread = threading.Thread(target=self._run, name="cirron-spool delivery", daemon=True)
        self._stop = asyncio.Event()
        self._is_asked = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs: not after its end, and not in a fork."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread. Raises NoThreadError."""
        start(self._thread)

    def finish(self, timeout_s: float) -> None:
        """Ask for the end, and wait for it up to ``timeout_s`` seconds. A KeyboardInterrupt cancels the delivery."""
        try:
            if self.is_alive:
                with _warned("The SDK did not seal its last records"):
                    _seal_records()
            self._is_asked = True
            self._tell(self._stop.set)
            self._thread.join(timeout_s)
        except BaseException:
            self._cancel()
            self._thread.join(_END_S)
            raise
        if self.is_alive:
            self._cancel()
            _warn("The delivery did not end in time. Its batches stay in the spool.")

    def _cancel(self) -> None:
        if self._task is not None:
            self._tell(self._task.cancel)

    def _tell(self, change: Callable[[], object]) -> None:
        if self._loop is not None:
            call_from_thread(self._loop, change)

    def _run(self) -> None:
        subject = f"The delivery of {printable(str(self._directory))} has ended"
        with _warned(subject), resource_errors(), suppress(asyncio.CancelledError):
            event_loop.run(self._deliver)

    async def _deliver(self) -> None:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        if self._is_asked:  # before there was a loop to tell
            self._stop.set()
        while self.result is None:
            is_last = self._stop.is_set()
            try:
                async with watch_spool(self._directory, stop=self._stop, **self._options) as watch:
                    self.result = await watch.wait()
            except SpoolBusyError:
                if is_last:
                    return  # the process with the lock delivers
            except CirronSpoolError as error:
                if error.exit_code != EXIT_TEMPFAIL or is_last:
                    raise
                _warn(f"The delivery of {printable(str(self._directory))} is tried again: {error}")
            else:
                _warn_of_the_rest(self.result)
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), RETRY_S)


def _check(options: dict[str, Any]) -> None:
    """Refuse an unknown option, and an option that the thread cannot use."""
    for option in _NOT_HERE:
        if options.get(option) is not None:
            raise ConfigError(
                f"{option} is no option of a delivery in the background. Use flush_spool() for it."
            )
    if options:  # without options, nothing is imported before the training
        from cirron_spool.flush import flush_spool

        signature(flush_spool).bind(**options)


def _seal_records() -> None:
    """Have the SDK of this process write its records now, not at the end of the second."""
    seal = getattr(sys.modules.get("cirron"), "flush", None)
    if callable(seal):
        seal()


def _warn_of_the_rest(result: FlushResult) -> None:
    left = result.failed + result.skipped
    if left:
        cause = f": {result.failures[0].message.removesuffix('.')}" if result.failures else ""
        _warn(
            f"The delivery left {count(left, 'batch')} in {printable(str(result.directory))}{cause}. "
            f"Run cirron-spool flush --dir {printable(str(result.directory))}"
        )


@contextmanager
def _warned(subject: str) -> Iterator[None]:
    """Turn an exception of the block into a warning: the training must continue."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        hint = f" {error.hint}" if isinstance(error, CirronSpoolError) and error.hint else ""
        _warn(f"{subject}: {printable(str(error) or type(error).__name__)}{hint}")


def _warn(message: str) -> None:
    with suppress(Warning):  # warnings may be errors here
        warnings.warn(f"Cirron: {message}", RuntimeWarning, stacklevel=2)
