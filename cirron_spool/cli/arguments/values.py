"""Option values with units: whole numbers, times, sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime, timedelta


class Reader(Protocol):
    """Converts the text of an option into a value.

    Raises ValueError for an invalid text. ``wants`` describes the valid texts.
    """

    wants: str

    def __call__(self, text: str) -> object:
        """The value."""


class OneOf:
    """Reads one of ``words``. Completions offer them."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.wants = f"one of {', '.join(words)}"

    def __call__(self, text: str) -> str:
        """The word."""
        if text not in self.words:
            raise ValueError(text)
        return text


class Whole:
    """Reads a whole number within bounds."""

    def __init__(self, least: int, most: int = 2**63) -> None:
        self._least = least
        self._most = most
        self.wants = "a whole number " + (
            f"of {least} or more" if most == 2**63 else f"from {least} to {most}"
        )

    def __call__(self, text: str) -> int:
        """The number."""
        if re.fullmatch("[0-9]{1,19}", text) is None or not self._least <= int(text) <= self._most:
            raise ValueError(text)
        return int(text)


class WholeOr:
    """Reads a whole number within bounds, or the text ``word``."""

    def __init__(self, word: str, least: int, most: int) -> None:
        self._word = word
        self._whole = Whole(least, most)
        self.wants = f"{self._whole.wants}, or {word}"

    def __call__(self, text: str) -> int | str:
        """The number or the word."""
        return text if text == self._word else self._whole(text)


class Measure:
    """Reads a number with one of ``units``, and rounds it down. A number alone has the unit ``""``."""

    def __init__(
        self, units: Mapping[str, int], wants: str, *, least: int, most: int = 2**63, suffix: str = ""
    ) -> None:
        self._units = units
        self._least = least
        self._most = most
        self._suffix = suffix
        self.wants = wants

    def __call__(self, text: str) -> int:
        """The measure in the smallest unit."""
        found = re.fullmatch(
            r"([0-9]{1,19})(?:\.([0-9]{1,9}))? ?([A-Za-z]*)", text.removesuffix(self._suffix)
        )
        if found is None:
            raise ValueError(text)
        whole, fraction, unit = found[1], found[2] or "", found[3]
        if unit not in self._units or (fraction and not unit):
            raise ValueError(text)
        measure = int(whole + fraction) * self._units[unit]
        for _ in fraction:
            measure //= 10
        if not self._least <= measure <= self._most:
            raise ValueError(text)
        return measure


_TIMES = {"": 1, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


_AGES = {unit: ms for unit, ms in _TIMES.items() if unit} | {"d": 86_400_000, "w": 7 * 86_400_000}
# A hundred years.
_LONGEST_AGE_MS = 36_525 * _AGES["d"]


class Age:
    """Reads a time before now, with a unit, or an ISO 8601 date or time. Without an offset, it is in UTC."""

    wants = "a time before now, such as 30m, 2h or 3d, or a date, such as 2026-04-18 or 2026-04-18T04:30Z"

    def __init__(self) -> None:
        self._measure = Measure(_AGES, self.wants, least=0, most=_LONGEST_AGE_MS)

    def __call__(self, text: str) -> timedelta | datetime:
        """The time before now, or an aware datetime."""
        from datetime import UTC, datetime, timedelta  # late import: commands must start fast

        if re.match("[0-9]{4}-", text) is None:
            return timedelta(milliseconds=self._measure(text))
        moment = datetime.fromisoformat(text)
        return moment if moment.utcoffset() is not None else moment.replace(tzinfo=UTC)


class End:
    """Reads the end of a command: a time from now with a unit, a time of day, or an ISO 8601 date."""

    wants = "a time from now, such as 90s or 2h, or a time of day, such as 04:30"

    def __init__(self) -> None:
        self._measure = Measure(_AGES, self.wants, least=1, most=_LONGEST_AGE_MS)

    def __call__(self, text: str) -> timedelta | datetime:
        """The time from now, or an aware datetime. A time of day is the next one by the local clock."""
        from datetime import datetime, time, timedelta  # as above

        if re.fullmatch("[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", text):
            now = datetime.now().astimezone()
            end = datetime.combine(now.date(), time.fromisoformat(text if text[2] == ":" else f"0{text}"))
            if end.astimezone() <= now:
                end += timedelta(days=1)
            return end.astimezone()
        if re.match("[0-9]{4}-", text):
            return datetime.fromisoformat(text).astimezone()
        return timedelta(milliseconds=self._measure(text))


# 1024-based, like printed sizes. "Mb" is left out: it may mean bits.
_SIZES = {"": 1, "B": 1} | {
    prefix + unit: 1024**power
    for power, letter in enumerate("kmgt", start=1)
    for prefix, units in ((letter, ("", "B", "iB", "b", "ib")), (letter.upper(), ("", "B", "iB")))
    for unit in units
}


def time_value(least: int) -> Measure:
    """A reader of times from ``least`` milliseconds to a day, in milliseconds."""
    wants = f"a time from {least}ms to 24h, with a unit (ms, s, m or h; milliseconds without one)"
    return Measure(_TIMES, wants, least=least, most=24 * _TIMES["h"])


def size_value(least: int, suffix: str = "") -> Measure:
    """A reader of sizes from ``least`` bytes, in bytes; ``suffix`` may follow."""
    wants = f"a size of {least} or more, with a unit (K, M or G; bytes without one)"
    return Measure(_SIZES, wants, least=least, suffix=suffix)
