"""The lines of a receipts file, and their chain. Pure.

A line is a JSON object. Its ``previous`` is the SHA-256 of the preceding receipt: the bytes of that line without the
line feed. The chain skips a line that a crash left incomplete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

# The first bytes of a receipt, also of an incomplete one.
_BEGINNING = b'{"previous": '


class Receipt(NamedTuple):
    """The acknowledgement of one batch.

    ``previous`` is the hex hash of the preceding receipt, or None for the first one. ``time`` is in UTC. ``spool`` is
    the directory of the batch. ``size`` (in bytes) and ``sha256`` (in hex) describe the batch's file. ``status`` is the
    HTTP status of the acknowledgement. ``destination`` is the origin that acknowledged.
    """

    previous: str | None
    time: str
    spool: str
    name: str
    batch_id: str
    size: int
    sha256: str
    status: int | None
    destination: str

    def line(self) -> bytes:
        """The receipt as a line, without the line feed."""
        return json.dumps(dict(zip(_KEYS, self, strict=True))).encode()


_KEYS = ("previous", "time", "spool", "name", "batchId", "bytes", "sha256", "status", "destination")
_TYPES = (str | None, str, str, str, str, int, str, int | None, str)


def parse(line: bytes) -> Receipt | None:
    """Parse a line without its line feed; None if it is not a receipt. Other keys are ignored."""
    if not line.startswith(_BEGINNING):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not entry.keys() >= set(_KEYS):
        return None
    values = [entry[key] for key in _KEYS]
    is_receipt = all(isinstance(value, kind) for value, kind in zip(values, _TYPES, strict=True))
    return Receipt(*values) if is_receipt else None


def hash_of(line: bytes) -> str:
    """The hash of a line, for the next receipt."""
    return sha256(line).hexdigest()


def is_torn(line: bytes) -> bool:
    """Whether ``line`` may be a receipt that a crash left incomplete: a part of one, or zeros."""
    part = line.rstrip(b"\0")
    return part[: len(_BEGINNING)] == _BEGINNING[: len(part)]


def last_receipt(lines: Iterable[bytes]) -> bytes | None:
    """The last receipt in the lines, or None."""
    return next((line for line in reversed(list(lines)) if parse(line) is not None), None)
