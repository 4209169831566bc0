"""Batch file names: recognise, order, take the batch id.

A batch is a file whose whole name is ``<created_ns>-<batch_id>.json``: decimal digits (nanoseconds since the
epoch, which the SDK pads to 20), a hyphen, lower-case hexadecimal digits of any length. Any other entry of the
directory is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

# [0-9] rather than \d: other scripts' digits are not the SDK's. No file name is longer than 255 bytes.
_BATCH_NAME = re.compile(r"([0-9]{1,255})-([0-9a-f]+)\.json")


# The SDK pads created_ns to this many digits; as long as all names do, sorting names is sorting times.
_PADDED_DIGITS = 20


T = TypeVar("T")


class BatchName(NamedTuple):
    """A batch's file name, ordered as batches are uploaded: by time as a number, then by name."""

    created_ns: int
    name: str

    @property
    def batch_id(self) -> str:
        """The hexadecimal part as it is written in the name: the platform's idempotency key."""
        return self.name[self.name.index("-") + 1 : -len(".json")]


def parse_batch_name(name: str) -> BatchName | None:
    """The batch that ``name`` is the file name of, or None when it is not a batch's name."""
    match = _BATCH_NAME.fullmatch(name)
    return BatchName(int(match[1]), name) if match else None


def format_batch_name(created_ns: int, batch_id: str) -> str:
    """The file name of a batch, as the SDK writes it."""
    return f"{created_ns:0{_PADDED_DIGITS}d}-{batch_id}.json"


def batch_id_of(name: str) -> str:
    """The idempotency key in a name that :func:`is_batch_name` accepts."""
    return name[name.index("-") + 1 : -len(".json")]


def created_ns_of(name: str) -> int:
    """The time in a name that :func:`is_batch_name` accepts: nanoseconds since the epoch."""
    return int(name.partition("-")[0])


def is_batch_name(name: str) -> bool:
    """Whether the whole of ``name`` is a batch's."""
    return _BATCH_NAME.fullmatch(name) is not None


def is_sdk_name(name: str) -> bool:
    """Whether a batch's ``name`` has its time padded as the SDK pads it."""
    return name.find("-") == _PADDED_DIGITS


# The same as a match or None: the pattern's own method, for a listing that asks it of every entry.
match_batch_name = _BATCH_NAME.fullmatch


def oldest_first(batches: Iterable[T], name_of: Callable[[T], str] = str) -> list[T]:
    """The batches in the order of upload: by created_ns as a number, then by name."""
    ordered = list(batches)
    # As long as all times are padded alike, which the SDK's are, text order is their order, and sorts much faster.
    ordered.sort(key=name_of)
    if any(name[_PADDED_DIGITS : _PADDED_DIGITS + 1] != "-" for name in map(name_of, ordered)):
        ordered.sort(key=lambda batch: created_ns_of(name_of(batch)))  # stable: equal times stay by name
    return ordered
