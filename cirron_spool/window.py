"""The batches in flight, oldest first: begun in order, up to N at a time, and concluded strictly in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

from cirron_spool.bridge import Ahead
from cirron_spool.conclusion import Conclusions, Removed
from cirron_spool.delivery import Delivery
from cirron_spool.prefetch import Prepared, Ready, Unsendable
from cirron_spool.verdict import Action, Verdict

# One batch's delivery, awaited at once or running beside others.
_Delivering = Coroutine[Any, Any, "Verdict | OSError"] | asyncio.Future["Verdict | OSError"]


class Window:
    """Up to ``most`` batches in flight. What is behind a batch that ends the flush is kept, never deleted."""

    def __init__(
        self, disk: Ahead[Ready, Prepared, Removed], delivery: Delivery, conclusions: Conclusions, most: int
    ) -> None:
        self._disk = disk
        self._delivery = delivery
        self._conclusions = conclusions
        self._most = most
        self._entries: deque[Unsendable | tuple[Prepared, _Delivering]] = deque()

    def begin(self, item: Ready) -> None:
        """Take in the next batch, and begin to post it if it can be sent."""
        if isinstance(item, Unsendable):
            self._entries.append(item)
            return
        delivering: _Delivering = self._delivery.deliver(item, self._disk.meanwhile)
        if self._most > 1:  # one alone needs no task of its own: it is awaited at once
            delivering = asyncio.ensure_future(delivering)
        self._entries.append((item, delivering))

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
            if isinstance(oldest, Unsendable) or (outcome := _acknowledgement(oldest[1])) is None:
                break
            self._entries.popleft()
            # To conclude an acknowledgement has no suspension.
            await self._conclusions.conclude(oldest[0], outcome, self._disk)
        deliveries = [entry[1] for entry in self._entries if isinstance(entry, tuple)]
        self._entries.clear()
        tasks = [delivering for delivering in deliveries if isinstance(delivering, asyncio.Future)]
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
            if isinstance(outcome, Verdict) and outcome.action is Action.RETRY and self._delivery.stopping():
                return  # asked to stop in the midst of its attempts: it stays, untried
            await self._conclusions.conclude(batch, outcome, self._disk)
        if self._conclusions.ended:
            await self.abandon()


def _acknowledgement(delivering: _Delivering) -> Verdict | None:
    """What a delivery has come to, if that is an acknowledgement."""
    if not isinstance(delivering, asyncio.Future) or not delivering.done() or delivering.cancelled():
        return None
    if delivering.exception() is not None:
        return None
    outcome = delivering.result()
    return outcome if isinstance(outcome, Verdict) and outcome.action is Action.ACKNOWLEDGED else None


def _is_done(entry: Unsendable | tuple[Prepared, _Delivering]) -> bool:
    return isinstance(entry, Unsendable) or (isinstance(entry[1], asyncio.Future) and entry[1].done())
