"""The batches in flight, oldest first: begun in order, up to N at a time, and concluded strictly in order."""

from __future__ import annotations

import asyncio
from collections import deque

from cirron_spool.pipeline.bridge import Ahead
from cirron_spool.pipeline.delivery import Delivery
from cirron_spool.pipeline.read_ahead import Prepared, Ready, Unsendable
from cirron_spool.pipeline.settle import Conclusions, Kept
from cirron_spool.protocol.verdict import Action, Verdict

_Delivering = asyncio.Future["Verdict | OSError"]


class Window:
    """Up to ``most`` batches in flight. What is behind a batch that ends the flush is kept, never deleted."""

    def __init__(
        self, disk: Ahead[Ready, Prepared, Kept], delivery: Delivery, conclusions: Conclusions, most: int
    ) -> None:
        self._disk = disk
        self._delivery = delivery
        self._conclusions = conclusions
        self._most = most
        self._entries: deque[Unsendable | tuple[Prepared, _Delivering]] = deque()

    async def take(self, item: Ready) -> None:
        """Take in the next batch, and return once another may be."""
        if self._most > 1:
            self.begin(item)
            await self.make_room()
        elif isinstance(item, Unsendable):
            self._conclusions.pass_by(item)
        else:  # one alone needs no task, and no place in a row
            outcome = await self._delivery.deliver(item, self._disk.meanwhile)
            if _acknowledges(outcome):
                self._conclusions.acknowledged(item, self._disk)
            else:
                await self._conclude(item, outcome)

    def begin(self, item: Ready) -> None:
        """Take in the next batch beside others, and begin to post it if it can be sent."""
        if isinstance(item, Unsendable):
            self._entries.append(item)
        else:
            delivery = self._delivery.deliver(item, self._disk.meanwhile)
            self._entries.append((item, asyncio.ensure_future(delivery)))

    async def make_room(self) -> None:
        """Conclude the oldest until another may be begun, and those that are done already."""
        while self._entries and (len(self._entries) >= self._most or _is_done(self._entries[0])):
            await self._conclude_oldest()

    async def finish(self) -> None:
        """Conclude all that is in flight."""
        while self._entries:
            await self._conclude_oldest()

    async def abandon(self) -> None:
        """Let go of what is left in flight, whatever the server may have made of it: it stays in the spool.

        But what is acknowledged already, with everything before it, is deleted: ended or not, it was its turn.
        """
        while self._entries and not self._conclusions.ended:
            oldest = self._entries[0]
            if isinstance(oldest, Unsendable) or not _is_acknowledged(oldest[1]):
                break
            self._entries.popleft()
            self._conclusions.acknowledged(oldest[0], self._disk)
        tasks = [entry[1] for entry in self._entries if isinstance(entry, tuple)]
        self._entries.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _conclude_oldest(self) -> None:
        oldest = self._entries[0]
        if isinstance(oldest, Unsendable):
            self._entries.popleft()
            self._conclusions.pass_by(oldest)
        else:
            batch, delivering = oldest
            outcome = await delivering  # ended in here, it keeps its place before those behind it
            self._entries.popleft()
            await self._conclude(batch, outcome)
        if self._conclusions.ended:
            await self.abandon()

    async def _conclude(self, batch: Prepared, outcome: Verdict | OSError) -> None:
        if isinstance(outcome, Verdict) and outcome.action is Action.RETRY and self._delivery.stopping:
            return  # asked to stop in the midst of its attempts: it stays, untried
        await self._conclusions.conclude(batch, outcome, self._disk)


def _acknowledges(outcome: Verdict | OSError) -> bool:
    return isinstance(outcome, Verdict) and outcome.action is Action.ACKNOWLEDGED


def _is_acknowledged(delivering: _Delivering) -> bool:
    """Whether a delivery has come to an acknowledgement."""
    has_outcome = delivering.done() and not delivering.cancelled() and delivering.exception() is None
    return has_outcome and _acknowledges(delivering.result())


def _is_done(entry: Unsendable | tuple[Prepared, _Delivering]) -> bool:
    return isinstance(entry, Unsendable) or entry[1].done()
