"""Values as text for a person: times, sizes, counts, and untrusted text with escapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from reprlib import Repr

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The Gregorian calendar repeats after 400 years, so times beyond the year 9999 can be shown.
_CYCLE_MS = 146_097 * 86_400_000
_NS_IN_MS = 1_000_000

# The first items and levels of a value, with whole texts.
_REPR = Repr()
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 4
_REPR.maxlevel = 3
_REPR.maxstring = _REPR.maxother = 500

_BARS = "▁▂▃▄▅▆▇█"

# C0, DEL and C1 controls, and Unicode marks that reorder or break lines: they could control a terminal.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

# A shorter token, such as "t" of a test receiver, is no secret. Its redaction would garble a sentence.
_SHORTEST_SECRET = 8
# The last four characters of a shorter token would reveal too much.
_SHORTEST_SHOWN_SECRET = 20


def iso_utc(created_ns: int) -> str:
    """``2026-04-18T04:29:58.051Z``: UTC, milliseconds, truncated.

    Years above 9999 have a sign (``+010000-01-01…``), as ISO 8601 and JavaScript do.
    """
    cycles, ms = divmod(created_ns // _NS_IN_MS, _CYCLE_MS)
    moment = _EPOCH + timedelta(milliseconds=ms)
    year = moment.year + 400 * cycles
    shown = f"{year:04d}" if year <= 9999 else f"+{year:06d}"
    return f"{shown}{moment:-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def human_size(size: int) -> str:
    """``444 B``, ``6 KB`` (whole), ``2.51 MB`` (two decimals, as GB and TB); 1024-based, halves round up."""
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


def time_span(seconds: float) -> str:
    """``2 days``, ``1 hour``, ``40 minutes``, ``0 seconds``: whole numbers of the largest unit that fits."""
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length_s:
            return count(int(seconds) // length_s, unit)
    return count(max(0, int(seconds)), "second")


def sparkline(values: Sequence[float]) -> str:
    """One bar for each value, relative to the largest. Only the value 0 has the lowest bar, ``▁``."""
    most = max(values, default=0)
    steps = len(_BARS) - 1
    return "".join(_BARS[int(-(-value * steps // most)) if most > 0 else 0] for value in values)


def duration(ns: int) -> str:
    """``870 ns``, ``4.62 ms``, ``12.30 s``, ``2 m 05 s``, ``3 h 07 m``: three or four digits, rounded."""
    if ns < 1000:
        return f"{ns} ns"
    for digits, unit in ((3, "µs"), (6, "ms"), (9, "s")):
        hundredths = (ns * 100 + 10**digits // 2) // 10**digits
        if hundredths < (100_000 if digits < 9 else 6000):
            return f"{hundredths // 100}.{hundredths % 100:02d} {unit}"
    minutes, seconds = divmod((ns + 500_000_000) // 10**9, 60)
    return f"{minutes} m {seconds:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} m"


def display_width(text: str) -> int:
    """The columns of ``text`` on a terminal: two for a wide East Asian character or emoji, none for a combining mark.

    A sequence of emoji that a terminal joins counts each of them: too wide is a gap, too narrow a broken line.
    """
    if text.isascii():
        return len(text)
    return sum(map(_width_of, text))


def _width_of(character: str) -> int:
    if character.isascii():
        return 1
    import unicodedata  # rarely needed: the start of a command is measured

    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def beginning(text: str, columns: int) -> str:
    """As much of ``text`` from its start as fits in ``columns``."""
    if text.isascii():
        return text[: max(0, columns)]
    for place, character in enumerate(text):
        columns -= _width_of(character)
        if columns < 0:
            return text[:place]
    return text


def printable(text: str) -> str:
    r"""``text`` with escapes for all characters that could control a terminal (``\x1b``, ``\n``, ``\u202e``)."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def reason(error: OSError) -> str:
    """The reason of an OSError, without its path."""
    return printable(error.strerror or str(error) or type(error).__name__)


def bounded_repr(value: object) -> str:
    """The ``repr()`` of a dataclass or a named tuple with the first items of long sequences.

    A notebook keeps it beside the HTML of a cell, and a full spool has 20,000 batches.
    """
    names: Iterable[str] = getattr(value, "_fields", ()) or getattr(value, "__dataclass_fields__", ())
    return (
        f"{type(value).__name__}({', '.join(f'{name}={_REPR.repr(getattr(value, name))}' for name in names)})"
    )


def redact(text: str, *secrets: str | None) -> str:
    """Replace the ``secrets`` in ``text`` by ``…``: an answer may repeat a token."""
    for secret in secrets:
        if secret is not None and len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "…")
    return text


def mask(secret: str) -> str:
    """``sk-…wxyz``: the last four characters of a long token, so that its owner recognises it; else ``…``."""
    if len(secret) < _SHORTEST_SHOWN_SECRET or not (secret.isascii() and secret.isprintable()):
        return "…"
    return f"{'sk-' if secret.startswith('sk-') else ''}…{secret[-4:]}"
