"""Batch file names: match, sort, extract the batch id.

A batch has the name ``<created_ns>-<batch_id>.json``: decimal digits (nanoseconds since the epoch, padded to 20 by the
SDK), a hyphen, lower-case hexadecimal digits of any length. Other entries of the directory stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

# [0-9], since \d matches digits of other scripts. No file name is longer than 255 bytes.
_BATCH_NAME = re.compile(r"([0-9]{1,255})-([0-9a-f]+)\.json")


# The SDK pads created_ns to this many digits, so names sort like times.
_PADDED_DIGITS = 20


T = TypeVar("T")


class BatchName(NamedTuple):
    """A batch's file name, in the order of upload: by time as a number, then by name."""

    created_ns: int
    name: str

    @property
    def batch_id(self) -> str:
        """The hexadecimal part of the name: the platform's idempotency key."""
        return self.name[self.name.index("-") + 1 : -len(".json")]


def parse_batch_name(name: str) -> BatchName | None:
    """Parse a batch's file name; None for another name."""
    match = _BATCH_NAME.fullmatch(name)
    return BatchName(int(match[1]), name) if match else None


def format_batch_name(created_ns: int, batch_id: str) -> str:
    """The file name of a batch, as the SDK writes it."""
    return f"{created_ns:0{_PADDED_DIGITS}d}-{batch_id}.json"


def batch_id_of(name: str) -> str:
    """The idempotency key in a valid batch name."""
    return name[name.index("-") + 1 : -len(".json")]


def created_ns_of(name: str) -> int:
    """The time in a valid batch name: nanoseconds since the epoch."""
    return int(name.partition("-")[0])


def is_batch_name(name: str) -> bool:
    """Whether ``name`` is a batch's name."""
    return _BATCH_NAME.fullmatch(name) is not None


def is_sdk_name(name: str) -> bool:
    """Whether the time in a batch's ``name`` has the SDK's padding."""
    return name.find("-") == _PADDED_DIGITS


# The match or None. The method of the pattern is the fastest check for a listing.
match_batch_name = _BATCH_NAME.fullmatch


def oldest_first(batches: Iterable[T], name_of: Callable[[T], str] = str) -> list[T]:
    """The batches in the order of upload: by created_ns as a number, then by name."""
    ordered = list(batches)
    # With the SDK's padding, text order is time order, and sorts much faster.
    ordered.sort(key=name_of)
    if any(name[_PADDED_DIGITS : _PADDED_DIGITS + 1] != "-" for name in map(name_of, ordered)):
        ordered.sort(key=lambda batch: created_ns_of(name_of(batch)))  # stable: equal times stay by name
    return ordered
