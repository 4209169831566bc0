"""As much of a flush as concludes its batches: a real spool, the conclusions, and the thread that deletes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cirron_spool.events import FlushEvent
from cirron_spool.pipeline.bridge import Ahead
from cirron_spool.pipeline.read_ahead import Prefetch, Prepared, Ready
from cirron_spool.pipeline.settle import Conclusions, Kept
from cirron_spool.pipeline.tally import Tally
from cirron_spool.protocol.verdict import Verdict
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.directory import Removal, SpoolDirectory

NAME = "00000000000000000001-0a.json"
BODY = b'{"spans":[]}'
SENT = 7  # bytes of body, unlike the file's


@dataclass
class Flush:
    """One flush's conclusions; every argument as the flush has it."""

    spool: SpoolDirectory
    tally: Tally
    told: bool = True
    quarantine: bool = False
    keep_going: bool = False
    events: list[FlushEvent] = field(default_factory=list)
    streamed: dict[str, int] = field(default_factory=dict)
    handed_over: list[str] = field(default_factory=list)  # to be deleted
    kept: list[tuple[str, Removal | OSError]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prefetch = Prefetch(self.spool, Tuning())
        self.conclusions = Conclusions(
            self.spool,
            self.tally,
            self.events.append,
            told=self.told,
            quarantine=self.quarantine,
            keep_going=self.keep_going,
            streamed=self.streamed,
        )

    def prepared(self, name: str = NAME) -> Prepared:
        """The batch, read as a flush reads it; written first where it is not there."""
        path = self.spool.path_of(name)
        if not path.exists():
            path.write_bytes(BODY)
        ready = self.prefetch.prepare(name)
        assert isinstance(ready, Prepared)
        return ready._replace(length=SENT)

    async def conclude(self, outcome: Verdict | OSError, batch: Prepared | None = None) -> None:
        """Conclude a batch, and wait for its delete if there is one."""
        async with self.disk() as disk:
            await self.conclusions.conclude(batch or self.prepared(), outcome, disk)

    @asynccontextmanager
    async def disk(self) -> AsyncIterator[Ahead[Ready, Prepared, Kept]]:
        """The thread that deletes; at the end everything is deleted, and how that came out is noted."""

        def remove(batch: Prepared) -> Kept | None:
            self.handed_over.append(batch.name)
            return self.conclusions.remove(batch)

        async with self.prefetch.ahead([], remove) as disk:
            yield disk
            await disk.settled()
            for batch, why in disk.results():
                self.kept.append((batch.name, why))
                self.conclusions.kept(batch, why)

    @property
    def left(self) -> list[str]:
        """What is in the spool."""
        return sorted(os.listdir(self.spool.path))
