"""A batch on its way: ready to be sent, or not sendable for a stated cause."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from cirron_spool.spool.file_identity import Fingerprint


class Digest:
    """The SHA-256 of a batch's file in hex; empty until all bytes were read."""

    __slots__ = ("hex",)

    def __init__(self, hex_digest: str = "") -> None:
        self.hex = hex_digest


class Prepared(NamedTuple):
    """A batch that is ready to be sent.

    ``parts`` are the request body in memory, ``length`` bytes together. ``length`` None marks a body too large to
    hold: it is compressed again while it is sent, and ``estimate`` is its expected length in bytes. ``digest`` is None
    unless it was asked for. That of a body that is not held is complete once the body was sent.
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
        """The bytes of the file that ``sent`` bytes of the body stand for; a guess where the length is a guess."""
        whole = self.estimate if self.length is None else self.length
        return min(self.size, self.size * sent // whole) if whole else 0


class Cause(Enum):
    """The cause that keeps a batch from being sent."""

    VANISHED = auto()
    EMPTY = auto()
    NOT_A_FILE = auto()
    UNREADABLE = auto()


@dataclass(frozen=True, slots=True)
class Unsendable:
    """A batch that cannot be sent. ``message`` says more about the cause, or is empty."""

    name: str
    cause: Cause
    message: str = ""


Ready = Prepared | Unsendable


def held_bytes(batch: Ready) -> int:
    """The bytes of memory that the body of ``batch`` takes."""
    return (batch.length or 0) if isinstance(batch, Prepared) else 0
