"""One batch as one POST, one snapshot as one PUT: URL and headers. No retry, no order, no disk."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from cirron_spool.http.transport import PRODUCT, Transport
from cirron_spool.http.upload_body import Upload
from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.spool.names import batch_id_of


class Ingest:
    """The platform's trace ingest: ``path`` (``/api/traces``) on ``origin`` (``https://app.cirron.com``)."""

    def __init__(self, transport: Transport, origin: str, path: str) -> None:
        self._transport = transport
        self.origin = origin
        self.path = path
        self._url = origin + path
        # Headers are cached, since the token rarely changes.
        self._token: str | None = None
        self._headers: dict[str, str] = {}

    async def resolve(self) -> None:
        """Find the route before the first batch, so that concurrent batches start in order."""
        await self._transport.resolve(self._url)

    def post_batch(
        self, name: str, token: str, upload: Upload, *, gzip: bool
    ) -> Coroutine[Any, Any, Answer | NoAnswer]:
        """Upload the batch ``name``. The batch id in its name is the idempotency key."""
        headers = {**self._headers_for(token), "X-Cirron-Batch-Id": batch_id_of(name)}
        if gzip:
            headers["Content-Encoding"] = "gzip"
        return self._transport.post(self._url, headers, upload)

    def put_snapshot(self, key: str, token: str, upload: Upload) -> Coroutine[Any, Any, Answer | NoAnswer]:
        """Upload a snapshot under ``key``, ``snapshots/<span id>/<file>``. The key needs no quoting in a URL."""
        headers = {
            **self._headers_for(token),
            "Content-Type": "application/octet-stream",
            "X-Cirron-Blob-Key": key,
        }
        return self._transport.put(f"{self.snapshots_url}/{key}", headers, upload)

    @property
    def snapshots_url(self) -> str:
        """The URL of all snapshots, without a key."""
        return f"{self._url}/blobs"

    def _headers_for(self, token: str) -> dict[str, str]:
        if token != self._token:
            self._token = token
            self._headers = {"Authorization": f"Bearer {token}", "X-Cirron-SDK-Version": PRODUCT}
        return self._headers
