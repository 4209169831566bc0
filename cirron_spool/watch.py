"""``watch_spool``: deliver the batches of a run while it writes them, with one ``flush_spool``."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cirron_spool.errors import ConfigError
from cirron_spool.lazy_flush import flush_spool

if TYPE_CHECKING:
    from cirron_spool.events import FlushResult

WATCH_GRACE_S = 10.0


class Watch:
    """A flush that follows a spool; :func:`watch_spool` returns it."""

    def __init__(
        self,
        directory: str | os.PathLike[str] | None,
        options: dict[str, Any],
        *,
        until_pid: int | None,
        idle_exit_s: float | None,
        grace_s: float,
    ) -> None:
        self._directory = directory
        self._options = options
        self._until_pid = until_pid
        self._idle_exit_s = idle_exit_s
        self._grace_s = grace_s
        self._given_stop: Any = options.pop("stop", None)
        self._stop = asyncio.Event()
        self._task: asyncio.Task[FlushResult] | None = None

    @property
    def result(self) -> FlushResult | None:
        """The result; None until the watch has ended. Raises the error that ended the watch."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.result()

    def stop(self) -> None:
        """Ask the watch to deliver the batches that exist now, and to end. Returns at once."""
        self._stop.set()

    async def wait(self) -> FlushResult:
        """Wait for the end of the watch. Return its result or raise its error. A cancellation does not end it."""
        if self._task is None:
            raise RuntimeError("The watch has not started. Use it within: async with watch_spool() as watch.")
        return await asyncio.shield(self._task)

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("The watch has started already. Make another with watch_spool().")
        self._task = asyncio.create_task(self._follow(), name="cirron-spool watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is None:
            return
        self.stop()
        if isinstance(error, asyncio.CancelledError):
            self._task.cancel()
        try:
            await asyncio.wait([self._task])
        finally:
            if not self._task.done():  # cancelled here
                self._task.cancel()
                await asyncio.wait([self._task])
        if error is None:
            self._task.result()
        elif not self._task.cancelled():
            self._task.exception()  # the error of the block is raised instead

    async def _follow(self) -> FlushResult:
        from cirron_spool.pipeline.options import WatchOptions

        options = WatchOptions(self._until_pid, self._idle_exit_s, self._grace_s)
        forwarding = asyncio.create_task(self._forward_stop())
        try:
            return await flush_spool(self._directory, watch=options, stop=self._stop, **self._options)
        finally:
            forwarding.cancel()

    async def _forward_stop(self) -> None:
        if self._given_stop is not None:
            with suppress(asyncio.CancelledError):
                await self._given_stop.wait()
                self.stop()


def watch_spool(
    directory: str | os.PathLike[str] | None = None,
    *,
    until_pid: int | None = None,
    idle_exit_s: float | None = None,
    grace_s: float = WATCH_GRACE_S,
    **options: Any,
) -> Watch:
    """Deliver the batches of a run while it writes them. The result is an async context manager.

    ``async with watch_spool(…) as watch: await train()`` starts the watch, and ends it with the block. ``directory``
    and ``options`` are those of :func:`~cirron_spool.flush_spool`, without ``dry_run`` and ``keep_going``. A
    ``selection`` has no ``limit`` and no ``max_bytes``. The watch may start before the spool exists. It holds the
    spool's lock until it ends.

    The watch waits during an outage of the platform, and for a new login when the platform refuses the token. It ends
    with the process ``until_pid``, or ``idle_exit_s`` seconds after the last batch. It ends when the platform rejects a
    batch, unless ``quarantine`` is set.

    The end of the block, ``watch.stop()`` or ``stop`` end the watch. It first delivers the batches that exist then, for
    at most ``grace_s`` seconds. A cancellation ends it at once. ``watch.result`` is the :class:`FlushResult` after the
    end. ``await watch.wait()`` waits for it. The end of the block raises the errors of :func:`flush_spool`.

    Raises ConfigError for options that cannot be used.
    """
    for option in ("dry_run", "keep_going"):
        if options.get(option):
            raise ConfigError(f"A watch has no {option}. Use flush_spool() for it.")
    if "watch" in options:
        raise ConfigError("watch is no option of watch_spool().")
    selection = options.get("selection")
    if getattr(selection, "limit", None) is not None or getattr(selection, "max_bytes", None) is not None:
        raise ConfigError("A watch has no limit and no max_bytes: it delivers each batch. Use flush_spool().")
    _check_pid(until_pid)
    _check_seconds("idle_exit_s", idle_exit_s)
    _check_seconds("grace_s", grace_s)
    return Watch(directory, options, until_pid=until_pid, idle_exit_s=idle_exit_s, grace_s=grace_s)


def _check_pid(pid: object) -> None:
    if pid is not None:
        if os.name == "nt":
            raise ConfigError("until_pid is not available on Windows. Use idle_exit_s.")
        if not isinstance(pid, int) or isinstance(pid, bool) or not 1 <= pid < 2**31:
            raise ConfigError("until_pid must be a process id above 0.")


def _check_seconds(option: str, seconds: object) -> None:
    if seconds is None and option == "idle_exit_s":
        return
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds < 2**31:
        raise ConfigError(f"{option} must be a number of seconds, 0 or more.")
