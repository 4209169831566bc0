"""A batch after reading: prepared for the upload, or unsendable for a cause."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from cirron_spool.spool.file_identity import Fingerprint


class Digest:
    """The SHA-256 of a batch's file in hex; empty until all bytes are read."""

    __slots__ = ("hex",)

    def __init__(self, hex_digest: str = "") -> None:
        self.hex = hex_digest


class Prepared(NamedTuple):
    """A batch that can be sent.

    ``parts`` are the request body in memory, ``length`` its bytes. ``length`` is None for a streamed body, which is too
    large for memory and is compressed during the upload. ``estimate`` is the expected length of a streamed body in
    bytes. ``digest`` is None without receipts. The digest of a streamed body is complete after the upload.
    """

    name: str
    fingerprint: Fingerprint
    gzip: bool
    parts: tuple[bytes, ...]
    length: int | None
    estimate: int = 0
    digest: Digest | None = None

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return self.fingerprint.size

    def share_of_file(self, sent: int) -> int:
        """Convert ``sent`` bytes of the body to bytes of the file; an estimate for a streamed body."""
        whole = self.estimate if self.length is None else self.length
        return min(self.size, self.size * sent // whole) if whole else 0


class Cause(Enum):
    """The reason why a batch cannot be sent."""

    VANISHED = auto()
    EMPTY = auto()
    NOT_A_FILE = auto()
    UNREADABLE = auto()


@dataclass(frozen=True, slots=True)
class Unsendable:
    """A batch that cannot be sent. ``message`` has details of the cause, or is empty."""

    name: str
    cause: Cause
    message: str = ""


Ready = Prepared | Unsendable


def held_bytes(batch: Ready) -> int:
    """The size of the body of ``batch`` in memory, in bytes."""
    return (batch.length or 0) if isinstance(batch, Prepared) else 0
