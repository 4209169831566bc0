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
# Extra time for the end of the thread, after the grace of the watch.
_END_S = 3.0
# Options that need the caller's event loop, a single flush, or a separate process.
_FORBIDDEN_OPTIONS = ("client", "session", "stop", "snapshots", "until_pid", "idle_exit_s")


class BackgroundDelivery:
    """The delivery of a spool in a daemon thread during training: ``with BackgroundDelivery(): train()``.

    ``options`` are those of :func:`~cirron_spool.watch_spool`, without ``client``, ``session`` and ``stop``.
    ``on_event`` is called in the thread. The constructor raises ConfigError, or TypeError for an unknown option.
    Nothing else raises: a failure is a RuntimeWarning, and the batches stay in the spool.

    Several processes may deliver one spool, such as the ranks of a training. One of them holds the lock of the spool.
    The others try the lock every five seconds.

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
        self._running: _DeliveryThread | None = None
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
        with _errors_as_warnings("The delivery could not begin"), resource_errors():
            # Found at the start, since a training may change the working directory.
            directory = find_spool(self._directory, os.environ, file_needed=False).path
            running = _DeliveryThread(directory, self._options)
            running.start()
            self._running = running
            atexit.register(self.finish)  # an exception may skip every other call

    def finish(self) -> FlushResult | None:
        """Deliver the records of the run until now, and end. Returns the result, or None.

        Takes ``grace_s`` and three seconds at most. During an outage it does not wait. A KeyboardInterrupt ends the
        delivery at once, and is raised.
        """
        running, self._running = self._running, None
        if running is None:
            return self._result
        atexit.unregister(self.finish)
        with _errors_as_warnings("The delivery failed at its end"):
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


class _DeliveryThread:
    """One thread with one event loop, and the watch in it."""

    def __init__(self, directory: Path, options: dict[str, Any]) -> None:
        self.result: FlushResult | None = None
        self._directory = directory
        self._options = options
        self._thread = threading.Thread(target=self._run, name="cirron-spool delivery", daemon=True)
        self._stop = asyncio.Event()
        self._stop_requested = False
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
        """End the delivery, within ``timeout_s`` seconds. A KeyboardInterrupt cancels it."""
        try:
            if self.is_alive:
                with _errors_as_warnings("The SDK did not seal its last records"):
                    _seal_records()
            self._stop_requested = True
            self._call_in_loop(self._stop.set)
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
            self._call_in_loop(self._task.cancel)

    def _call_in_loop(self, change: Callable[[], object]) -> None:
        if self._loop is not None:
            call_from_thread(self._loop, change)

    def _run(self) -> None:
        subject = f"The delivery of {printable(str(self._directory))} has ended"
        with _errors_as_warnings(subject), resource_errors(), suppress(asyncio.CancelledError):
            event_loop.run(self._deliver)

    async def _deliver(self) -> None:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        if self._stop_requested:  # before the loop existed
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
                _warn(
                    f"The delivery of {printable(str(self._directory))} failed and will be retried: {error}"
                )
            else:
                _warn_of_left_batches(self.result)
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), RETRY_S)


def _check(options: dict[str, Any]) -> None:
    """Refuse an unknown option, and an option that the thread cannot use."""
    for option in _FORBIDDEN_OPTIONS:
        if options.get(option) is not None:
            raise ConfigError(f"{option} is not an option of BackgroundDelivery. Use flush_spool() for it.")
    if options:  # without options, nothing is imported before the training
        from cirron_spool.flush import flush_spool

        signature(flush_spool).bind(**options)


def _seal_records() -> None:
    """Let the SDK of this process write its records now. By itself it does so once a second."""
    seal = getattr(sys.modules.get("cirron"), "flush", None)
    if callable(seal):
        seal()


def _warn_of_left_batches(result: FlushResult) -> None:
    left = result.failed + result.skipped
    if left:
        cause = f": {result.failures[0].message.removesuffix('.')}" if result.failures else ""
        _warn(
            f"The delivery left {count(left, 'batch')} in {printable(str(result.directory))}{cause}. "
            f"Run cirron-spool flush --dir {printable(str(result.directory))}"
        )


@contextmanager
def _errors_as_warnings(subject: str) -> Iterator[None]:
    """Turn an exception of the block into a warning: the training must continue."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        hint = f" {error.hint}" if isinstance(error, CirronSpoolError) and error.hint else ""
        _warn(f"{subject}: {printable(str(error) or type(error).__name__)}{hint}")


def _warn(message: str) -> None:
    with suppress(Warning):  # warnings may be errors here
        warnings.warn(f"Cirron: {message}", RuntimeWarning, stacklevel=2)
