"""One batch, one POST, one answer. No retry, no order, no disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from cirron_spool.naming import batch_id_of
from cirron_spool.prefetch import Prepared
from cirron_spool.transport import PRODUCT, Transport
from cirron_spool.verdict import INGEST_PATH, Answer, NoAnswer
from cirron_spool.wire import Moment, Upload

Stream = Callable[[Prepared], AbstractAsyncContextManager[AsyncIterator[bytes]]]


class Ingest:
    """The platform's trace ingest at ``origin`` (``https://app.cirron.com``)."""

    def __init__(self, transport: Transport, origin: str) -> None:
        self._transport = transport
        self.origin = origin
        self._url = origin + INGEST_PATH

    async def preconnect(self) -> None:
        """Open the connection before the first batch is ready for it."""
        await self._transport.preconnect(self._url)

    async def resolve(self) -> None:
        """Look up the way before the first batch: several in flight must not overtake each other on finding it."""
        await self._transport.resolve(self._url)

    async def post(
        self, prepared: Prepared, token: str, stream: Stream, meanwhile: Moment | None = None
    ) -> Answer | NoAnswer:
        """Upload ``prepared`` under its idempotency key, the batch id in its name. ``stream`` opens an unheld body."""
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "X-Cirron-SDK-Version": PRODUCT,
            "X-Cirron-Batch-Id": batch_id_of(prepared.name),
        }
        if prepared.gzip:
            headers["Content-Encoding"] = "gzip"
        if prepared.length is None:
            upload = Upload(length=None, stream=lambda: stream(prepared))
        else:
            upload = Upload(prepared.parts, prepared.length, meanwhile=meanwhile)
        return await self._transport.post(self._url, headers, upload)
