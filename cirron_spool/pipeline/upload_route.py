"""The upload request of one kind of file, and the verdict on its answer: a batch is a POST, a snapshot a PUT."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol, TypeVar

from cirron_spool.http.upload_body import Upload
from cirron_spool.pipeline.batch import Prepared
from cirron_spool.pipeline.ingest import Ingest
from cirron_spool.pipeline.outcome import Outcome
from cirron_spool.pipeline.part_stream import PartStream
from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.protocol.snapshot_verdict import judge_snapshot
from cirron_spool.protocol.verdict import Action, judge
from cirron_spool.spool.file_identity import Fingerprint
from cirron_spool.spool.sent_ledger import SentFile
from cirron_spool.spool.snapshot_folder import SnapshotFile, SnapshotFolder

OpenStream = Callable[[Prepared], AbstractAsyncContextManager[AsyncIterator[bytes]]]

# A snapshot is read in chunks, and read ahead up to this many bytes.
_CHUNK_BYTES = 256 * 1024
_AHEAD_BYTES = 1024 * 1024


class Item(Protocol):
    """A file that is ready for the upload."""

    @property
    def name(self) -> str:
        """The name in events and messages."""

    @property
    def size(self) -> int:
        """The file's size in bytes."""

    def share_of_file(self, sent: int) -> int:
        """The bytes of the file that ``sent`` bytes of the request body stand for."""


T_contra = TypeVar("T_contra", bound=Item, contravariant=True)


class UploadRoute(Protocol[T_contra]):
    """The request that uploads one kind of file, and the verdict on its answer."""

    async def send(
        self, item: T_contra, token: str, progress: Callable[[int], None] | None
    ) -> Answer | NoAnswer:
        """Send ``item``. Raises OSError when the file cannot be read during the upload."""

    def judge(self, item: T_contra, token: str, answer: Answer | NoAnswer) -> Outcome:
        """The outcome of one attempt."""


class BatchRoute:
    """The route of batches.

    ``open_stream`` opens a streamed body. ``on_sent`` is called after the write of a body from memory, before the
    answer. ``ensure_claim`` is called before a batch is sent again on another connection.
    """

    def __init__(
        self,
        ingest: Ingest,
        open_stream: OpenStream,
        on_sent: Callable[[], None],
        ensure_claim: Callable[[], Awaitable[None]],
    ) -> None:
        self._ingest = ingest
        self._open_stream = open_stream
        self._on_sent = on_sent
        self._ensure_claim = ensure_claim

    async def send(
        self, item: Prepared, token: str, progress: Callable[[int], None] | None
    ) -> Answer | NoAnswer:
        """POST the batch."""
        if item.length is None:
            upload = Upload((), None, partial(self._open_stream, item), None, progress, self._ensure_claim)
        else:
            upload = Upload(item.parts, item.length, None, self._on_sent, progress, self._ensure_claim)
        return await self._ingest.post_batch(item.name, token, upload, gzip=item.gzip)

    def judge(self, item: Prepared, token: str, answer: Answer | NoAnswer) -> Outcome:
        """The outcome of one attempt, with the size of the request body."""
        verdict = judge(
            answer,
            name=item.name,
            origin=self._ingest.origin,
            path=self._ingest.path,
            now=datetime.now(UTC),
            secrets=(token,),
        )
        if verdict.action is not Action.ACKNOWLEDGED:
            return Outcome(verdict)
        return Outcome(verdict, bytes_sent=item.length if item.length is not None else _bytes_sent(answer))


@dataclass(frozen=True, slots=True)
class OpenSnapshot:
    """A snapshot that is whole, and the identity of its file."""

    file: SnapshotFile
    fingerprint: Fingerprint

    @property
    def name(self) -> str:
        """The key."""
        return self.file.key

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return self.fingerprint.size

    @property
    def sent_file(self) -> SentFile:
        """The file as the ledger records it."""
        return SentFile(self.fingerprint.size, self.fingerprint.mtime_ns)

    def share_of_file(self, sent: int) -> int:
        """The same number: snapshots are not compressed."""
        return min(sent, self.size)


class SnapshotRoute:
    """The route of snapshots. ``ensure_claim`` is called before one is sent again on another connection."""

    def __init__(
        self, ingest: Ingest, folder: SnapshotFolder, ensure_claim: Callable[[], Awaitable[None]]
    ) -> None:
        self._ingest = ingest
        self._folder = folder
        self._ensure_claim = ensure_claim

    async def send(
        self, item: OpenSnapshot, token: str, progress: Callable[[int], None] | None
    ) -> Answer | NoAnswer:
        """PUT the file. Each attempt reads it again."""

        def open_stream() -> PartStream:
            return PartStream(self._folder.chunks(item.file, item.fingerprint, _CHUNK_BYTES), _AHEAD_BYTES)

        upload = Upload((), item.size, open_stream, None, progress, self._ensure_claim)
        return await self._ingest.put_snapshot(item.name, token, upload)

    def judge(self, item: OpenSnapshot, token: str, answer: Answer | NoAnswer) -> Outcome:
        """The outcome of one attempt."""
        verdict = judge_snapshot(
            answer, key=item.name, origin=self._ingest.origin, now=datetime.now(UTC), secrets=(token,)
        )
        return Outcome(verdict, bytes_sent=item.size if verdict.action is Action.ACKNOWLEDGED else 0)


def _bytes_sent(answer: Answer | NoAnswer) -> int:
    return answer.sent if isinstance(answer, Answer) else 0
