"""The source of a flush's batches: a spool that is listed once, or one that is followed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

import anyio

from cirron_spool.pipeline.awaited_process import AwaitedProcess
from cirron_spool.pipeline.options import WatchOptions
from cirron_spool.pipeline.preflight import Contents

# Seconds between two looks at a followed spool.
POLL_S = 1.0
# Batches between two questions whether another spool is to have its turn.
_GROUP_BATCHES = 128


class BatchSource(Protocol):
    """The batches of one flush, in groups, oldest first. ``follows`` says that a group may be waited for."""

    follows: bool

    async def next_group(self) -> Sequence[str] | None:
        """The names of the next batches, perhaps none; None at the end. All earlier ones are settled by now."""


class ListedOnce:
    """The batches of one listing."""

    follows = False

    def __init__(self, names: Sequence[str]) -> None:
        self._names: Sequence[str] | None = names

    async def next_group(self) -> Sequence[str] | None:
        """All names, then None."""
        names, self._names = self._names, None
        return names


class ListedInTurns:
    """The batches of one listing, in groups, as long as ``may_go_on`` says so."""

    follows = False

    def __init__(self, names: Sequence[str], may_go_on: Callable[[], bool]) -> None:
        self._names = names
        self._given = 0
        self._may_go_on = may_go_on

    async def next_group(self) -> Sequence[str] | None:
        """The next names, and none once another spool is to have its turn."""
        if self._given >= len(self._names) or (self._given and not self._may_go_on()):
            return None
        group = self._names[self._given : self._given + _GROUP_BATCHES]
        self._given += len(group)
        return group


class FollowedSpool:
    """The batches of a spool that a run is writing to.

    ``look`` lists the spool. ``note`` is called with the new part of each listing that has one, and with the first
    listing. ``ending`` is set by :meth:`end`.
    """

    follows = True

    def __init__(
        self,
        look: Callable[[], Awaitable[Contents]],
        note: Callable[[Contents], None],
        options: WatchOptions,
        ending: anyio.Event,
    ) -> None:
        self._look = look
        self._note = note
        self._options = options
        self._ending = ending
        self._given: set[str] = set()  # of those that were listed last
        self._looks = 0
        self._idle_since = time.monotonic()
        self._wake = anyio.Event()

    def wake(self) -> None:
        """Look again at once. Called in the event loop."""
        self._wake.set()

    def end(self) -> None:
        """End after one more look."""
        self._ending.set()
        self.wake()

    async def next_group(self) -> Sequence[str] | None:
        """The batches that are new in the spool. The first call does not wait."""
        if self._given:
            self._idle_since = time.monotonic()
        while True:
            self._wake = anyio.Event()  # before the look: a batch behind it wakes
            is_last = self._ending.is_set() or self._idle_s_left() <= 0
            new = self.new_in(await self._look())
            names = new.selected.batches
            is_first = not self._looks
            self._looks += 1
            if names or is_first:
                self._note(new)
                return names
            if is_last:
                return None
            with anyio.move_on_after(max(0.0, min(POLL_S, self._idle_s_left()))):
                await self._wake.wait()

    def new_in(self, contents: Contents) -> Contents:
        """The part of ``contents`` that was never given. A batch that stays in the spool is given once."""
        listed = contents.selected.batches
        old = self._given.intersection(listed)
        self._given = old.union(listed)
        if not old:
            return contents
        new = [index for index, name in enumerate(listed) if name not in old]
        return contents._replace(
            selected=replace(contents.selected, batches=[listed[index] for index in new]),
            sizes=[contents.sizes[index] for index in new] if contents.sizes else [],
        )

    async def watch_process(self) -> None:
        """End once the process ``until_pid`` has ended."""
        if self._options.until_pid is not None:
            process = AwaitedProcess(self._options.until_pid)
            while not self._ending.is_set():
                if not process.is_running():
                    self.end()
                with anyio.move_on_after(POLL_S):
                    await self._ending.wait()

    def _idle_s_left(self) -> float:
        if self._options.idle_exit_s is None:
            return float("inf")
        return self._idle_since + self._options.idle_exit_s - time.monotonic()
