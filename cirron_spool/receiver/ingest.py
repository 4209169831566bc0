"""The ingest route: batches."""

from __future__ import annotations

from cirron_spool.receiver.answers import Answer, unauthorized
from cirron_spool.receiver.body import is_gzip
from cirron_spool.receiver.connections import Request
from cirron_spool.receiver.intake import Intake
from cirron_spool.receiver.journal import Journal
from cirron_spool.receiver.store import Store
from cirron_spool.receiver.tokens import Tokens


class Ingest:
    """Stores batches in ``store``, and counts them in ``journal``."""

    def __init__(self, store: Store, intake: Intake, tokens: Tokens, journal: Journal) -> None:
        self._store = store
        self._intake = intake
        self._tokens = tokens
        self._journal = journal

    async def post(self, request: Request) -> Answer:
        """Acknowledge a batch once it is durable."""
        fields = request.head.fields
        if self._tokens.bearer(fields.get("authorization", "")) is None:
            raise unauthorized()
        batch_id = fields.get("x-cirron-batch-id", "")
        gzipped = is_gzip(fields.get("content-encoding", ""))
        upload = self._store.upload(batch_id, gzipped=gzipped)
        stored = await self._intake.store(
            request, upload, noun="batch", limit=self._store.max_bytes, directory=str(self._store.directory)
        )
        self._journal.stored(stored, request.peer)
        return Answer(200, {"success": True, "batchId": batch_id, "duplicate": stored.duplicate})
