"""The batches in flight: sent oldest first, up to N at a time, and settled strictly in order."""

from __future__ import annotations

import asyncio
from collections import deque

from cirron_spool.pipeline.batch import Prepared, Ready, Unsendable, held_bytes
from cirron_spool.pipeline.delivery import Delivery
from cirron_spool.pipeline.outcome import Outcome
from cirron_spool.pipeline.settle import Settlement
from cirron_spool.pipeline.window_size import WindowSize
from cirron_spool.protocol.verdict import Action

_InFlight = tuple[Prepared, "asyncio.Future[Outcome]"]


class Window:
    """Up to ``size.size`` batches in flight. After a batch that ends the flush, all later ones stay."""

    def __init__(self, delivery: Delivery, settlement: Settlement, size: WindowSize) -> None:
        self._delivery = delivery
        self._settlement = settlement
        self._size = size
        self._entries: deque[Unsendable | _InFlight] = deque()

    async def add(self, batch: Ready) -> None:
        """Add the next batch. Return when there is room for another."""
        if not self._size.is_one:
            self.begin(batch)
            await self.make_room()
        elif isinstance(batch, Unsendable):
            await self._settlement.skip(batch)
        else:  # a single batch needs no task
            outcome = await self._delivery.deliver(batch)
            if outcome.acknowledged:
                self._settlement.delete_acknowledged(batch, outcome)
            else:
                await self._settle(batch, outcome)

    def begin(self, batch: Ready) -> None:
        """Add the next batch, and start its delivery if it can be sent."""
        if isinstance(batch, Unsendable):
            self._entries.append(batch)
        else:
            self._entries.append((batch, asyncio.ensure_future(self._delivery.deliver(batch))))

    async def make_room(self) -> None:
        """Settle the oldest batches until there is room for another. Settle finished ones, too."""
        while self._entries and (self._is_full() or _is_done(self._entries[0])):
            await self._settle_oldest()

    async def finish(self) -> None:
        """Settle all batches in flight."""
        while self._entries:
            await self._settle_oldest()

    async def abandon(self) -> None:
        """Cancel the deliveries in flight: their batches stay in the spool.

        The oldest batches that are already acknowledged are deleted.
        """
        while self._entries and not self._settlement.ended:
            oldest = self._entries[0]
            if isinstance(oldest, Unsendable) or not _is_acknowledged(oldest[1]):
                break
            self._entries.popleft()
            self._settlement.delete_acknowledged(oldest[0], oldest[1].result())
        tasks = [entry[1] for entry in self._entries if isinstance(entry, tuple)]
        self._entries.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_full(self) -> bool:
        if len(self._entries) >= self._size.size:
            return True
        held = sum(held_bytes(entry[0]) for entry in self._entries if isinstance(entry, tuple))
        return held >= self._size.most_bytes

    async def _settle_oldest(self) -> None:
        oldest = self._entries[0]
        if isinstance(oldest, Unsendable):
            self._entries.popleft()
            await self._settlement.skip(oldest)
        else:
            batch, delivering = oldest
            outcome = await delivering  # after a cancellation here the batch is still the oldest
            self._entries.popleft()
            await self._settle(batch, outcome)
        if self._settlement.ended:
            await self.abandon()

    async def _settle(self, batch: Prepared, outcome: Outcome) -> None:
        if outcome.action is Action.RETRY and self._delivery.stopping:
            return  # stopped between two attempts: the batch counts as untried
        await self._settlement.settle(batch, outcome)


def _is_acknowledged(delivering: asyncio.Future[Outcome]) -> bool:
    """Whether a delivery ended with an acknowledgement."""
    has_outcome = delivering.done() and not delivering.cancelled() and delivering.exception() is None
    return has_outcome and delivering.result().acknowledged


def _is_done(entry: Unsendable | _InFlight) -> bool:
    return isinstance(entry, Unsendable) or entry[1].done()
