"""One batch as one POST, one snapshot as one PUT: path, headers, key. No retry, no order, no disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from cirron_spool.http.transport import PRODUCT, Transport
from cirron_spool.http.upload_body import Progress, Upload
from cirron_spool.pipeline.batch import Prepared
from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.spool.names import batch_id_of

OpenStream = Callable[[Prepared], AbstractAsyncContextManager[AsyncIterator[bytes]]]


class Ingest:
    """The platform's trace ingest: ``path`` (``/api/traces``) on ``origin`` (``https://app.cirron.com``)."""

    def __init__(self, transport: Transport, origin: str, path: str) -> None:
        self._transport = transport
        self.origin = origin
        self.path = path
        self._url = origin + path
        # The headers of the last token: it is nearly always the next token, too.
        self._token: str | None = None
        self._headers: dict[str, str] = {}

    async def resolve(self) -> None:
        """Find the route before the first batch, so that several in flight keep their order."""
        await self._transport.resolve(self._url)

    def post(
        self,
        batch: Prepared,
        token: str,
        open_stream: OpenStream,
        on_sent: Callable[[], None] | None = None,
        progress: Progress | None = None,
        before_repeat: Callable[[], Awaitable[None]] | None = None,
    ) -> Coroutine[Any, Any, Answer | NoAnswer]:
        """Upload ``batch`` under its idempotency key, the batch id of its name.

        ``open_stream`` opens a body that is not held. ``on_sent`` is called when a held body has been written.
        ``before_repeat`` comes before it is sent again on another connection.
        """
        name, _, gzip, parts, length, _, _ = batch
        headers = {**self._headers_for(token), "X-Cirron-Batch-Id": batch_id_of(name)}
        if gzip:
            headers["Content-Encoding"] = "gzip"
        if length is None:
            upload = Upload((), None, lambda: open_stream(batch), None, progress, before_repeat)
        else:
            upload = Upload(parts, length, None, on_sent, progress, before_repeat)
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
        """The URL below which the keys of snapshots are."""
        return f"{self._url}/blobs"

    def _headers_for(self, token: str) -> dict[str, str]:
        if token != self._token:
            self._token = token
            self._headers = {"Authorization": f"Bearer {token}", "X-Cirron-SDK-Version": PRODUCT}
        return self._headers
