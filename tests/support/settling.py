"""The part of a flush that settles its batches: a real spool, the settlement, and the worker that deletes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cirron_spool.events import FlushEvent
from cirron_spool.pipeline.batch import Prepared
from cirron_spool.pipeline.batch_reader import BatchReader
from cirron_spool.pipeline.inline_worker import InlineWorker
from cirron_spool.pipeline.outcome import Outcome
from cirron_spool.pipeline.settle import Settlement, remove_acknowledged
from cirron_spool.pipeline.tally import Tally
from cirron_spool.pipeline.thread_worker import ThreadWorker
from cirron_spool.pipeline.window_size import FixedSize
from cirron_spool.protocol.verdict import Verdict
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.file_identity import Removal

NAME = "00000000000000000001-0a.json"
BODY = b'{"spans":[]}'
SENT = 7  # bytes of body, unlike the file's


@dataclass
class Flush:
    """The settlement of one flush, with the arguments of a real one. `worker` is a context of its own each time."""

    spool: SpoolDirectory
    tally: Tally
    has_listener: bool = True
    quarantine: bool = False
    keep_going: bool = False
    kind: type[ThreadWorker | InlineWorker] = ThreadWorker
    events: list[FlushEvent] = field(default_factory=list)
    handed_over: list[str] = field(default_factory=list)  # names of files to be deleted

    def __post_init__(self) -> None:
        self.reader = BatchReader(self.spool, Tuning())
        self._process = os.getpid()
        self._settlement: Settlement | None = None

    @property
    def settlement(self) -> Settlement:
        """The settlement; one for the whole flush."""
        assert self._settlement is not None, "use it within worker()"
        return self._settlement

    def prepared(self, name: str = NAME) -> Prepared:
        """The batch, read as a flush reads it; written first where it is not there."""
        path = self.spool.path_of(name)
        if not path.exists():
            path.write_bytes(BODY)
        ready = self.reader.read(name)
        assert isinstance(ready, Prepared)
        return ready._replace(length=SENT)

    async def settle(self, result: Verdict | OSError, batch: Prepared | None = None) -> None:
        """Settle a batch, and wait for its delete if there is one."""
        async with self.worker():
            await self.settlement.settle(batch or self.prepared(), outcome(result))

    def remove(self, batch: Prepared) -> Removal:
        """Delete one file as a flush does, and note its name."""
        self.handed_over.append(batch.name)
        return remove_acknowledged(self.spool, self._process, batch)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[ThreadWorker | InlineWorker]:
        """The worker that deletes. At the end everything is deleted and reported."""
        async with self.kind(self.reader, self.remove, Tuning(), window_size=FixedSize(1)) as worker:
            if self._settlement is None:
                self._settlement = Settlement(
                    self.spool,
                    worker,
                    self.tally,
                    self.events.append,
                    has_listener=self.has_listener,
                    quarantine=self.quarantine,
                    keep_going=self.keep_going,
                )
            else:
                self._settlement._worker = worker
            yield worker
            await worker.drain()

    @property
    def left(self) -> list[str]:
        """The names in the spool."""
        return sorted(os.listdir(self.spool.path))


def outcome(result: Verdict | OSError) -> Outcome:
    """The outcome that a delivery has with this verdict or error of the file."""
    return Outcome(result) if isinstance(result, OSError) else Outcome(result, bytes_sent=SENT)
