"""The loop of a flush: send the batches of a source in order, and settle them in order."""

from __future__ import annotations

from collections.abc import Callable

from cirron_spool.pipeline.batch import Prepared
from cirron_spool.pipeline.delivery import Delivery
from cirron_spool.pipeline.disk_worker import DiskWorker
from cirron_spool.pipeline.settle import Settlement
from cirron_spool.pipeline.source import BatchSource
from cirron_spool.pipeline.window import Window
from cirron_spool.pipeline.window_size import WindowSize

# Deletes that may be pending during the next upload. After a crash at most two batches are sent again:
# the batch in flight, and one that is acknowledged but not deleted.
_DELETES_BEHIND = 1


async def send_in_order(
    source: BatchSource,
    delivery: Delivery,
    worker: DiskWorker,
    settlement: Settlement,
    *,
    window_size: WindowSize,
    on_begin: Callable[[Prepared], None] | None,
) -> None:
    """Send the batches oldest first, up to ``window_size`` at a time. Settle them strictly oldest first.

    The first group of ``source`` is already in ``worker``. ``on_begin`` is called before each batch.
    """
    window = Window(delivery, settlement, window_size)
    # The first delete proves that the directory allows deletes. Later deletes may be pending.
    may_be_pending = 0
    try:
        while True:
            batch = await worker.next()
            if batch is None:
                await window.finish()
                if source.follows:  # a watch reports all deletes before it waits
                    await worker.drain()
                settlement.check_listener()
                if settlement.ended or delivery.stopping:
                    break
                group = await source.next_group()
                if group is None:
                    break
                worker.feed(group)
                continue
            if worker.undeleted > may_be_pending:
                await worker.drain(may_be_pending)
                may_be_pending = _DELETES_BEHIND + window_size.size - 1
            settlement.check_listener()
            if settlement.ended or delivery.stopping:
                break
            if on_begin is not None and isinstance(batch, Prepared):
                on_begin(batch)
            await window.add(batch)
            if settlement.ended:
                break
        await window.finish()
        worker.poll()  # the last delete runs while the connection closes
    finally:
        await window.abandon()
