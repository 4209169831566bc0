"""The source of batches: a spool that is listed once, or a spool that is followed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import anyio

from cirron_spool.pipeline.awaited_process import AwaitedProcess
from cirron_spool.pipeline.notifications import Notifications
from cirron_spool.pipeline.options import WatchOptions
from cirron_spool.pipeline.preflight import Contents

# Seconds between two listings of a followed spool.
POLL_S = 1.0
# Batches between two checks for a waiting spool.
_GROUP_BATCHES = 128


class BatchSource(Protocol):
    """The batches of one flush, in groups, oldest first. ``follows`` is True if the next group may take time."""

    follows: bool

    async def next_group(self) -> Sequence[str] | None:
        """The names of the next batches, perhaps none; None at the end. All earlier batches are settled before."""


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
    """The batches of one listing, in groups, while ``may_go_on`` returns True."""

    follows = False

    def __init__(self, names: Sequence[str], may_go_on: Callable[[], bool]) -> None:
        self._names = names
        self._given = 0
        self._may_go_on = may_go_on

    async def next_group(self) -> Sequence[str] | None:
        """The next names; None at the end, or when another spool has its turn."""
        if self._given >= len(self._names) or (self._given and not self._may_go_on()):
            return None
        group = self._names[self._given : self._given + _GROUP_BATCHES]
        self._given += len(group)
        return group


class FollowedSpool:
    """The batches of the spool at ``path``, which a run writes to.

    ``list_spool`` lists it, and returns whether another directory replaced it. ``report`` gets the first listing, and
    the new batches of each later one. :meth:`end` sets ``ending``.
    """

    follows = True

    def __init__(
        self,
        path: Path,
        list_spool: Callable[[], Awaitable[tuple[Contents, bool]]],
        report: Callable[[Contents], None],
        options: WatchOptions,
        ending: anyio.Event,
    ) -> None:
        self._list_spool = list_spool
        self._report = report
        self._options = options
        self._ending = ending
        self._notifications = Notifications(path, self._wake_up)
        self._given: set[str] = set()  # of the last listing
        self._listings = 0
        self._idle_since = time.monotonic()
        self._wake = anyio.Event()

    def end(self) -> None:
        """End after one more listing."""
        self._ending.set()
        self._wake_up()

    def stop(self) -> None:
        """Stop the notifications."""
        self._notifications.stop()

    async def next_group(self) -> Sequence[str] | None:
        """The new batches of the spool. The first call does not wait."""
        if self._given:
            self._idle_since = time.monotonic()
        while True:
            self._wake = anyio.Event()  # before the listing: a later batch wakes the loop
            is_last = self._ending.is_set() or self._idle_s_left() <= 0
            contents, is_replaced = await self._list_spool()
            if is_replaced:
                self._notifications.restart()
            new = self.new_in(contents)
            names = new.selected.batches
            is_first = not self._listings
            self._listings += 1
            if names or is_first:
                self._report(new)
                return names
            if is_last:
                return None
            with anyio.move_on_after(max(0.0, min(POLL_S, self._idle_s_left()))):
                await self._wake.wait()

    def new_in(self, contents: Contents) -> Contents:
        """The batches of ``contents`` that were not returned before. A batch that stays is returned once."""
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

    async def watch_directory(self) -> None:
        """List the spool soon after each new batch, until :meth:`stop`."""
        await self._notifications.run()

    async def watch_process(self) -> None:
        """End once the process ``until_pid`` has ended."""
        if self._options.until_pid is not None:
            process = AwaitedProcess(self._options.until_pid)
            while not self._ending.is_set():
                if not process.is_running():
                    self.end()
                with anyio.move_on_after(POLL_S):
                    await self._ending.wait()

    def _wake_up(self) -> None:
        self._wake.set()

    def _idle_s_left(self) -> float:
        if self._options.idle_exit_s is None:
            return float("inf")
        return self._idle_since + self._options.idle_exit_s - time.monotonic()
