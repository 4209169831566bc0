"""What a batch is called, how names are ordered, and how names, times and sizes are shown.

A batch is a file whose whole name is ``<created_ns>-<batch_id>.json``: decimal digits (nanoseconds since the
epoch, which the SDK pads to 20), a hyphen, lower-case hexadecimal digits of any length. Anything else in the
directory belongs to somebody else. Nothing here knows directories, clocks or sockets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

# [0-9] rather than \d: other scripts' digits are not the SDK's. No file name is longer than 255 bytes.
_BATCH_NAME = re.compile(r"([0-9]{1,255})-([0-9a-f]+)\.json")

# The SDK pads created_ns to this many digits; as long as all names do, sorting names is sorting times.
_PADDED_DIGITS = 20

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The Gregorian calendar repeats after 400 years, which lets a time beyond datetime's year 9999 be shown too.
_CYCLE_MS = 146_097 * 86_400_000
_NS_IN_MS = 1_000_000

# C0, DEL and C1 controls, and the Unicode marks that reorder or break lines: what may drive a terminal.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


T = TypeVar("T")


class BatchName(NamedTuple):
    """A batch's file name, ordered as batches are uploaded: by time as a number, then by name."""

    created_ns: int
    name: str

    @property
    def batch_id(self) -> str:
        """The hexadecimal part as it is written in the name: the platform's idempotency key."""
        return self.name[self.name.index("-") + 1 : -len(".json")]


def parse(name: str) -> BatchName | None:
    """The batch that ``name`` is the file name of, or None when it is not a batch's name."""
    match = _BATCH_NAME.fullmatch(name)
    return BatchName(int(match[1]), name) if match else None


def format_name(created_ns: int, batch_id: str) -> str:
    """The file name of a batch, as the SDK writes it."""
    return f"{created_ns:0{_PADDED_DIGITS}d}-{batch_id}.json"


def batch_id_of(name: str) -> str:
    """The idempotency key in a name that :func:`is_batch_name` accepts."""
    return name[name.index("-") + 1 : -len(".json")]


def is_batch_name(name: str) -> bool:
    """Whether the whole of ``name`` is a batch's."""
    return _BATCH_NAME.fullmatch(name) is not None


# The same as a match or None: the pattern's own method, for a listing that asks it of every entry.
match_batch_name = _BATCH_NAME.fullmatch


def oldest_first(batches: Iterable[T], name_of: Callable[[T], str] = str) -> list[T]:
    """The batches in the order of upload: by created_ns as a number, then by name."""
    ordered = list(batches)
    # As long as all times are padded alike, which the SDK's are, text order is their order, and sorts much faster.
    ordered.sort(key=name_of)
    if any(name[_PADDED_DIGITS : _PADDED_DIGITS + 1] != "-" for name in map(name_of, ordered)):
        ordered.sort(
            key=lambda batch: int(name_of(batch).partition("-")[0])
        )  # stable: equal times stay by name
    return ordered


def iso_utc(created_ns: int) -> str:
    """``2026-04-18T04:29:58.051Z``: UTC, milliseconds, cut and not rounded.

    Years above 9999 are written with their sign (``+010000-01-01…``), as ISO 8601 and JavaScript do.
    """
    cycles, ms = divmod(created_ns // _NS_IN_MS, _CYCLE_MS)
    moment = _EPOCH + timedelta(milliseconds=ms)
    year = moment.year + 400 * cycles
    shown = f"{year:04d}" if year <= 9999 else f"+{year:06d}"
    return f"{shown}{moment:-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def human_size(size: int) -> str:
    """``444 B``, ``6 KB`` (whole), ``2.51 MB`` (two decimals, GB and TB too); 1024-based, halves go up."""
    if size < 1024:
        return f"{size} B"
    kilobytes = (size + 512) >> 10
    if kilobytes < 1024:
        return f"{kilobytes} KB"
    for power, unit in ((20, "MB"), (30, "GB")):
        hundredths = (size * 100 + (1 << (power - 1))) >> power
        if hundredths < 102_400:
            return f"{hundredths // 100}.{hundredths % 100:02d} {unit}"
    hundredths = (size * 100 + (1 << 39)) >> 40
    return f"{hundredths // 100}.{hundredths % 100:02d} TB"


def count(number: int, singular: str, plural: str | None = None) -> str:
    """``1 file``, ``3 files``, ``2 batches``."""
    if number == 1:
        return f"{number} {singular}"
    return f"{number} {plural or singular + ('es' if singular.endswith('ch') else 's')}"


def printable(text: str) -> str:
    r"""``text`` with everything that could drive a terminal escaped (``\x1b``, ``\n``, ``\u202e``)."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def reason(error: OSError) -> str:
    """An OSError in a few words, without its path."""
    return printable(error.strerror or str(error) or type(error).__name__)
