"""The poller. A flush searches for spools once. A watch also repeats the search, and lists the known spools."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio

from cirron_spool.concurrency.threads import call_from_thread, in_daemon_thread
from cirron_spool.fleet.search import Changes, Places, Search
from cirron_spool.pipeline.awaited_process import AwaitedProcess
from cirron_spool.pipeline.options import WatchOptions
from cirron_spool.pipeline.source import POLL_S
from cirron_spool.spool.discovery import FoundSpool

if TYPE_CHECKING:
    from cirron_spool.pipeline.patience import Patience

T = TypeVar("T")

# The pause after a search or a listing, as a multiple of its CPU time: an idle watch takes 0.5 % of a core.
_REST = 200


class SpoolPoller:
    """Finds spools in ``places``, and with ``watch`` new batches in them, until ``ending`` is set.

    ``found`` gets spools with batches, and ``warn`` gets messages. ``is_idle`` returns True when all batches are
    sent. ``searched`` is set after the first search. ``is_over`` is True when nothing more will be found.
    """

    def __init__(
        self,
        places: Places,
        watch: WatchOptions | None,
        ending: anyio.Event,
        found: Callable[[list[FoundSpool]], None],
        warn: Callable[[str], None],
        is_idle: Callable[[], bool],
    ) -> None:
        self._places = places
        self._watch = watch
        self._ending = ending
        self._found = found
        self._warn = warn
        self._is_idle = is_idle
        self._known: dict[Path, None] = {}
        self._changes = Changes()
        self._again: list[Path] = []
        self._active_at = time.monotonic()
        self.searched = anyio.Event()
        self.is_over = False
        self.patience: Patience | None = None

    async def run(self) -> None:
        """Search and poll until the end. Raises SpoolError for a root that cannot be searched."""
        try:
            if self._watch is None:
                await self._search(self._found)
            else:
                await self._poll_until_end(self._watch)
        finally:
            self.is_over = True
            self.searched.set()

    def forget(self, path: Path) -> None:
        """Report the batches of this spool again, after the next search."""
        self._again.append(path)

    def note_activity(self) -> None:
        """Restart the idle time of the watch, since a spool was flushed."""
        self._active_at = time.monotonic()

    async def _poll_until_end(self, watch: WatchOptions) -> None:
        process = AwaitedProcess(watch.until_pid) if watch.until_pid is not None else None
        next_search = 0.0
        while True:
            is_last = self._ending.is_set()
            began = time.monotonic()
            if is_last or began >= next_search:
                for path in self._again:
                    self._changes.forget(path)
                self._again.clear()
                took_s = await self._search(self._remember)
                next_search = began + max(POLL_S, _REST * took_s)
            paths = list(self._known)
            poll = partial(_timed, partial(self._changes.poll, paths))
            new, took_s = await in_daemon_thread(poll, "cirron-spool poll")
            if new:
                self.note_activity()
                self._found(new)
            self.searched.set()
            if is_last:
                return
            if (process is not None and not process.is_running()) or (
                self._is_idle() and self._idle_s_left(watch) <= 0
            ):
                self._ending.set()
            else:
                rest_s = max(POLL_S, _REST * took_s)
                with anyio.move_on_after(max(0.0, min(rest_s, self._idle_s_left(watch)))):
                    await self._ending.wait()

    def _remember(self, found: list[FoundSpool]) -> None:
        self._known.update((spool.path, None) for spool in found)

    def _idle_s_left(self, watch: WatchOptions) -> float:
        if watch.idle_exit_s is None or not self._is_idle():
            return float("inf")
        return self._active_at + watch.idle_exit_s - time.monotonic()

    async def _search(self, found: Callable[[list[FoundSpool]], None]) -> float:
        """Search all places. Returns the CPU seconds of the search."""
        loop = asyncio.get_running_loop()
        search = Search(
            self._places,
            lambda portion: call_from_thread(loop, found, portion),
            lambda message: call_from_thread(loop, self._warn, message),
            missing_ok=self._watch is not None,
        )
        try:
            _, took_s = await in_daemon_thread(partial(_timed, search.run), "cirron-spool search")
        finally:
            search.is_over = True
        return took_s


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result of ``work``, and its CPU seconds, which do not depend on the load of the machine."""
    began = time.thread_time()
    result = work()
    return result, time.thread_time() - began
