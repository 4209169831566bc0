"""The health route."""

from __future__ import annotations

from cirron_spool.receiver.answers import Answer, RefusedError
from cirron_spool.receiver.connections import Request
from cirron_spool.receiver.intake import Intake
from cirron_spool.receiver.journal import Journal
from cirron_spool.receiver.store import Store
from cirron_spool.text import printable, reason


class Health:
    """Reports the counts, and whether batches can be stored. It needs no token."""

    def __init__(self, store: Store, intake: Intake, journal: Journal) -> None:
        self._store = store
        self._intake = intake
        self._journal = journal

    async def get(self, request: Request) -> Answer:
        """The counts. Raises RefusedError (503) if nothing can be stored."""
        del request
        try:
            batches = await self._intake.run(self._store.count)
        except OSError as error:
            where = printable(str(self._store.directory))
            raise RefusedError(503, f"Cannot store in {where}: {reason(error)}.") from None
        return Answer(200, {"status": "ok", "batches": batches, **self._journal.counts()})
