"""The selection of a part of a spool. Pure: the caller passes names, sizes and the time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from cirron_spool.errors import ConfigError
from cirron_spool.spool.names import created_ns_of
from cirron_spool.text import count, human_size

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# The largest plausible difference of two clocks: five minutes.
_CLOCKS_DIFFER_NS = 300 * 10**9


@dataclass(frozen=True, slots=True)
class Selected(Generic[T]):
    """The selected batches, and the numbers of older and newer ones that are left out.

    ``blocked`` is a warning that the first batch is larger than ``max_bytes``, or empty. ``odd`` is a warning about
    batches with a time in the future, or empty.
    """

    batches: Sequence[T]
    older: int = 0
    newer: int = 0
    blocked: str = ""
    odd: str = ""

    @property
    def left_out(self) -> int:
        """The number of batches that the selection leaves out."""
        return self.older + self.newer


@dataclass(frozen=True, slots=True)
class Selection:
    """A part of a spool. Without an option it is the whole spool.

    ``older_than`` and ``newer_than`` compare the time in a batch's name with an aware datetime, or with a timedelta
    before now. A batch with exactly this time is newer. Of these batches, ``limit`` selects this number of the oldest,
    and ``max_bytes`` the oldest with this total size of files.

    Raises ConfigError for options that no batch can fulfil.
    """

    limit: int | None = None
    max_bytes: int | None = None
    older_than: timedelta | datetime | None = None
    newer_than: timedelta | datetime | None = None

    def __post_init__(self) -> None:
        for option in ("limit", "max_bytes"):
            value = getattr(self, option)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigError(f"{option} must be a whole number above 0.")
        older, newer = self.older_than, self.newer_than
        for option, moment in (("older_than", older), ("newer_than", newer)):
            if not isinstance(moment, timedelta | datetime | None):
                raise ConfigError(f"{option} must be a timedelta or a datetime, not {type(moment).__name__}.")
            if isinstance(moment, datetime) and moment.utcoffset() is None:
                raise ConfigError(f"{option} must have a time zone, such as tzinfo=UTC.")
        # An age and a date are compared in take(), where the time is known.
        if (isinstance(older, timedelta) and isinstance(newer, timedelta) and older >= newer) or (
            isinstance(older, datetime) and isinstance(newer, datetime) and older <= newer
        ):
            raise ConfigError("older_than and newer_than leave no time between them. Exchange them.")

    def take(
        self,
        batches: Sequence[T],
        *,
        name_of: Callable[[T], str],
        size_of: Callable[[T], int],
        now_ns: int,
    ) -> Selected[T]:
        """Select from ``batches``, which are oldest first. ``now_ns`` is nanoseconds since the epoch.

        ``size_of`` is called only with ``max_bytes``, and only for batches that may be selected.
        """

        def created_ns(batch: T) -> int:
            return created_ns_of(name_of(batch))

        start, stop = 0, len(batches)
        if self.newer_than is not None:
            start = bisect_left(batches, _moment_ns(self.newer_than, now_ns), key=created_ns)
        if self.older_than is not None:
            stop = bisect_left(batches, _moment_ns(self.older_than, now_ns), lo=start, key=created_ns)
        if self.limit is not None:
            stop = min(stop, start + self.limit)
        blocked = ""
        if self.max_bytes is not None:
            total = 0
            for index in range(start, stop):
                total += size_of(batches[index])
                if total > self.max_bytes:
                    if index == start:
                        blocked = _blocked(name_of(batches[index]), total, self.max_bytes)
                    stop = index
                    break
        odd = ""
        if isinstance(self.older_than, timedelta) or isinstance(self.newer_than, timedelta):
            first = bisect_left(batches, now_ns + _CLOCKS_DIFFER_NS, key=created_ns)
            if first < len(batches):
                odd = _odd(len(batches) - first, name_of(batches[first]))
        return Selected(batches[start:stop], start, len(batches) - stop, blocked, odd)


def _moment_ns(moment: timedelta | datetime, now_ns: int) -> int:
    if isinstance(moment, datetime):
        return (moment - _EPOCH) // _MICROSECOND * 1000
    return now_ns - moment // _MICROSECOND * 1000


def _odd(number: int, name: str) -> str:
    future = (
        f"{count(number, 'batch')}, such as {name}, {'has' if number == 1 else 'have'} a time in the future."
    )
    return f"{future} Check the clock, which decides the age of a batch."


def _blocked(name: str, size: int, bound: int) -> str:
    sizes = human_size(size), human_size(bound)
    shown = sizes if sizes[0] != sizes[1] else (f"{size} bytes", f"{bound} bytes")
    return f"{name} alone has {shown[0]}, more than the bound of {shown[1]}. Nothing is selected. Raise the bound."
