"""The route of snapshots: the weights and gradients that batches refer to."""

from __future__ import annotations

import re

from cirron_spool.receiver.answers import Answer, RefusedError, unauthorized
from cirron_spool.receiver.connections import Request
from cirron_spool.receiver.intake import Intake
from cirron_spool.receiver.journal import Journal
from cirron_spool.receiver.snapshot_file import SnapshotFile
from cirron_spool.receiver.store import Store
from cirron_spool.receiver.tokens import Tokens

# Each path below it is a key.
SNAPSHOTS = "/api/traces/blobs/"

# No dots, so the path stays in the store. The length is that of a batch identifier.
_KEY = re.compile(r"snapshots/[0-9A-Za-z_-]{1,128}/(?:weights|gradients)\.safetensors")


class Snapshots:
    """Stores snapshots below ``store``, each under its key, and counts them in ``journal``."""

    def __init__(
        self, store: Store, intake: Intake, tokens: Tokens, journal: Journal, *, max_bytes: int
    ) -> None:
        self._store = store
        self._intake = intake
        self._tokens = tokens
        self._journal = journal
        self._max_bytes = max_bytes

    async def put(self, request: Request) -> Answer:
        """Acknowledge a snapshot when it is durable: 201, or 200 for a duplicate."""
        fields = request.head.fields
        if self._tokens.bearer(fields.get("authorization", "")) is None:
            raise unauthorized()
        key = request.head.path.removeprefix(SNAPSHOTS)
        if not _KEY.fullmatch(key):
            raise RefusedError(
                404, f"No such route. A snapshot is put at {SNAPSHOTS}snapshots/SPAN/weights.safetensors."
            )
        if fields.get("x-cirron-blob-key") != key:
            raise RefusedError(400, "X-Cirron-Blob-Key must be the key in the path.")
        if "content-length" not in fields:
            raise RefusedError(411, "A snapshot needs a Content-Length.")
        if not request.head.length:
            raise RefusedError(400, "The snapshot is empty.")
        stored = await self._intake.store(
            request,
            SnapshotFile(self._store, key),
            noun="snapshot",
            limit=self._max_bytes,
            directory=str(self._store.directory),
        )
        self._journal.stored_snapshot(stored, request.peer)
        content = {"success": True, "key": key, "duplicate": stored.duplicate}
        return Answer(200 if stored.duplicate else 201, content, {"Location": f"{SNAPSHOTS}{key}"})
