"""The output of the commands, as lines of text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cirron_spool.offline import Inventory
from cirron_spool.spool.listing import Entry
from cirron_spool.spool.quarantine import Rejection
from cirron_spool.text import beginning, count, display_width, human_size, iso_utc, printable

if TYPE_CHECKING:
    from cirron_spool.events import BatchFailure, FlushResult, FlushSpoolsResult, SnapshotCounts

_DAY_S = 24 * 60 * 60
# Shorter names could not be distinguished.
_SHORTEST_NAME = 12
# Lines of a listing without its rows: head, frame, foot, and the prompt of the shell.
_LINES_AROUND = 7
_LONGEST_TIME = len("2026-04-18T05:12:40.000+00:00")


class Times:
    """The times in batch names as text. The date of a day is cached, since its computation is slow."""

    def __init__(self) -> None:
        self._midnight = -_DAY_S
        self._until_day = ""
        # Looking a time of day up costs a third of formatting it.
        self._minutes = [f"{minute // 60:02d}:{minute % 60:02d}:" for minute in range(24 * 60)]
        self._seconds = [f"{second:02d}." for second in range(60)]

    def of(self, name: str) -> tuple[str, str]:
        """Nanoseconds since the epoch, and ISO 8601 as in :func:`cirron_spool.text.iso_utc`."""
        # The SDK writes twenty digits. Other writers may use any number.
        digits = name[:20] if name[20:21] == "-" else name.partition("-")[0].zfill(10)
        second = int(digits[:-9])
        since_midnight = second - self._midnight
        if not 0 <= since_midnight < _DAY_S:
            since_midnight = second % _DAY_S
            self._midnight = second - since_midnight
            self._until_day = iso_utc(self._midnight * 10**9)[: -len("00:00:00.000Z")]
        minute, second = divmod(since_midnight, 60)
        iso = f"{self._until_day}{self._minutes[minute]}{self._seconds[second]}{digits[-9:-6]}Z"
        return digits.lstrip("0") or "0", iso


def table(
    rows: Sequence[tuple[str, str, str]], heads: tuple[str, str, str], columns: int = 0
) -> Iterator[str]:
    """Rows in a box, with the middle column aligned right. Without ``columns``, nothing is cut or wrapped.

    On a terminal with ``columns`` columns, the last cells are shortened in the middle. A very narrow terminal does not
    get the first column.
    """
    widths = [max(len(head), *(len(row[column]) for row in rows)) for column, head in enumerate(heads)]
    shown = slice(None)
    room = columns - _frame(3) - widths[0] - widths[1]
    if columns and room < widths[2]:
        if room < _SHORTEST_NAME:
            shown = slice(1, None)
            room = max(1, columns - _frame(2) - widths[1])
        widths[2] = min(room, widths[2])
        rows = [(*row[:2], shorten(row[2], room)) for row in rows]
        heads = (*heads[:2], shorten(heads[2], room))
    aligned = [f"{{:{side}{width}}}" for side, width in zip("<><", widths, strict=True)]
    line = f"│ {' │ '.join(aligned[shown])} │"
    rules = ["─" * (width + 2) for width in widths][shown]
    yield f"┌{'┬'.join(rules)}┐"
    yield line.format(*heads[shown])
    yield f"├{'┼'.join(rules)}┤"
    for row in rows:
        yield line.format(*row[shown])
    yield f"└{'┴'.join(rules)}┘"


def _frame(cells: int) -> int:
    """The width of a table's frame in columns."""
    return 3 * cells + 1


def shorten(text: str, room: int) -> str:
    """``text`` with at most ``room`` columns (1 or more). A longer text loses its middle."""
    if display_width(text) <= room:
        return text
    tail = (room - 1) // 2
    return f"{beginning(text, room - 1 - tail)}…{beginning(text[::-1], tail)[::-1]}"


def cell(text: str, width: int, side: str = "<") -> str:
    """``text`` in ``width`` columns, at the left (``<``) or the right (``>``)."""
    shown = shorten(text, width)
    space = " " * (width - display_width(shown))
    return space + shown if side == ">" else shown + space


def inventory_lines(
    inventory: Inventory,
    aside: Sequence[Rejection],
    listing: str,
    columns: int = 0,
    height: int = 0,
    last: int | None = None,
) -> Iterator[str]:
    """``inspect`` as text. ``listing`` is the command that lists the quarantine.

    ``columns`` and ``height`` are those of the terminal, or 0. If the first line leaves the screen, the last line
    repeats it. ``last`` limits the list to the newest batches.
    """
    place = printable(str(inventory.directory))
    entries = inventory.entries
    shown = entries[-last:] if last is not None else entries
    total = f"{count(len(entries), 'file')}, {human_size(inventory.total_bytes)}"
    if not entries:
        yield f"No spool files {'selected' if inventory.left_out else 'found'} in {place}"
    else:
        times = Times()
        yield f"Spool: {place}  ({total})"
        oldest = times.of(entries[0].name)[1]
        rows = [(times.of(entry.name)[1], human_size(entry.size), entry.name) for entry in shown]
        yield from table(rows, ("Timestamp", "Size", "File"), columns)
        if len(shown) < len(entries):
            yield f"Shown: the newest {len(shown)} of {count(len(entries), 'file')}"
        yield f"Oldest: {oldest}   Newest: {rows[-1][0]}"
    yield from lines_beside(inventory, aside, listing)
    if 0 < height <= len(shown) + _LINES_AROUND:
        yield f"Total: {total}"


def lines_beside(inventory: Inventory, aside: Sequence[Rejection], listing: str) -> Iterator[str]:
    """The lines about batches that the selection leaves out, and about those in quarantine."""
    if inventory.left_out:
        yield left_out(inventory.left_out)
    if aside:
        size = human_size(sum(rejection.size for rejection in aside))
        yield f"Quarantine: {count(len(aside), 'file')}, {size} (see {listing})"


def left_out(number: int) -> str:
    """The line about the batches that a selection left out."""
    return f"Left out by the selection: {count(number, 'file')}"


def inventory_json(
    inventory: Inventory,
    aside: Sequence[Rejection],
    ending: Mapping[str, object],
    last: int | None = None,
) -> Iterator[str]:
    """``inspect --json``: a line for each entry, created at the output.

    ``ending`` has the last keys, or is empty. ``last`` limits ``entries`` to the newest batches; 0 omits it.
    """
    entries = inventory.entries
    times = Times()

    def described(entry: Entry) -> str:
        ns, iso = times.of(entry.name)
        return f'{{ "name": "{entry.name}", "createdNs": "{ns}", "iso": "{iso}" }}'

    yield "{"
    yield f'  "dir": {json.dumps(str(inventory.directory))},'
    yield f'  "files": {len(entries)},'
    yield f'  "totalBytes": {inventory.total_bytes},'
    yield f'  "oldest": {described(entries[0]) if entries else "null"},'
    yield f'  "newest": {described(entries[-1]) if entries else "null"},'
    if aside:
        yield f'  "quarantined": {len(aside)},'
    if last is not None:
        entries = entries[len(entries) - min(last, len(entries)) :]
    comma = "," if ending else ""
    if last == 0:
        pass
    elif not entries:
        yield f'  "entries": []{comma}'
    else:
        yield '  "entries": ['
        # A flat loop: one more call for each of 100,000 batches takes 50 ms.
        times_of, end, left = times.of, ",", len(entries)
        for name, size in entries:
            left -= 1
            if not left:
                end = ""
            ns, iso = times_of(name)
            yield f'    {{ "name": "{name}", "size": {size}, "createdNs": "{ns}", "iso": "{iso}" }}{end}'
        yield f"  ]{comma}"
    if ending:
        yield ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in ending.items())
    yield "}"


def existence(*, exists: bool) -> dict[str, object]:
    """``"exists": false`` for a missing directory."""
    return {} if exists else {"exists": False}


def quarantine_lines(
    place: str, aside: Sequence[Rejection], columns: int = 0, height: int = 0
) -> Iterator[str]:
    """``quarantine list`` as text. ``columns`` and ``height`` are as for :func:`inventory_lines`."""
    total = f"{count(len(aside), 'file')}, {human_size(sum(rejection.size for rejection in aside))}"
    yield f"Quarantine: {place}  ({total})"
    rows = [(_when(rejection), human_size(rejection.size), rejection.name) for rejection in aside]
    yield from table(rows, ("Rejected", "Size", "File"), columns)
    said = [printable(rejection.message) for rejection in aside if rejection.message]
    yield from said
    if 0 < height <= len(aside) + len(said) + _LINES_AROUND:
        yield f"Total: {total}"


def _when(rejection: Rejection) -> str:
    """The time in a note. Another program may have written it, so an invalid one is not shown."""
    when = rejection.when or ""
    return when if when.isascii() and when.isprintable() and len(when) <= _LONGEST_TIME else "?"


def quarantine_json(place: str, aside: Sequence[Rejection]) -> dict[str, object]:
    """``quarantine list --json``."""
    entries = [
        {
            "name": rejection.name,
            "size": rejection.size,
            "rejectedAt": rejection.when,
            "status": rejection.status,
            "message": rejection.message,
        }
        for rejection in aside
    ]
    return {"dir": place, "files": len(entries), "entries": entries}


def summary(result: FlushResult | FlushSpoolsResult) -> str:
    """``Uploaded: 2  Failed: 0  Skipped: 0``, and the counts of quarantined and left-out batches above 0."""
    line = f"Uploaded: {result.uploaded}  Failed: {result.failed}  Skipped: {result.skipped}"
    further = {"Quarantined": result.quarantined, "Left out": result.left_out}
    return line + "".join(f"  {name}: {number}" for name, number in further.items() if number)


def sent_line(result: FlushResult | FlushSpoolsResult) -> str:
    """``Sent: 12.50 MB (of 42.10 MB) in 34.2 s, 374 KB/s, to https://…``, for a terminal."""
    rate = human_size(int(result.bytes_sent / result.seconds)) if result.seconds > 0 else "?"
    read = f" (of {human_size(result.bytes_read)})" if result.bytes_sent != result.bytes_read else ""
    sent = human_size(result.bytes_sent)
    return f"Sent: {sent}{read} in {result.seconds:.1f} s, {rate}/s, to {printable(result.destination)}"


def snapshot_line(counts: SnapshotCounts) -> str:
    """``Snapshots uploaded: 2  Failed: 0  Left: 0  Sent before: 1``, and the count of deleted ones above 0."""
    line = f"Snapshots uploaded: {counts.uploaded}  Failed: {counts.failed}  Left: {counts.left}"
    further = {"Sent before": counts.sent_before, "Deleted": counts.deleted}
    return line + "".join(f"  {name}: {number}" for name, number in further.items() if number)


def snapshots_json(counts: SnapshotCounts) -> dict[str, object]:
    """``snapshots`` in the object of ``flush --snapshots --json``; docs/contract.md has its keys."""
    return {
        "uploaded": counts.uploaded,
        "failed": counts.failed,
        "left": counts.left,
        "vanished": counts.vanished,
        "sentBefore": counts.sent_before,
        "deleted": counts.deleted,
        "bytesSent": counts.bytes_sent,
        "failures": _failures_json(counts.failures),
    }


def _failures_json(failures: Sequence[BatchFailure]) -> list[dict[str, object]]:
    return [
        {"name": failure.name, "status": failure.status, "message": failure.message} for failure in failures
    ]


def result_json(result: FlushResult) -> dict[str, object]:
    """The object of ``flush --json``; docs/contract.md has its keys."""
    further = {} if result.snapshots is None else {"snapshots": snapshots_json(result.snapshots)}
    return {
        "dir": str(result.directory),
        **totals_json(result),
        "failures": _failures_json(result.failures),
        "destination": result.destination or None,
        **further,
    }


def totals_json(result: FlushResult | FlushSpoolsResult) -> dict[str, object]:
    """The counts of a flush."""
    return {
        "uploaded": result.uploaded,
        "failed": result.failed,
        "skipped": result.skipped,
        "quarantined": result.quarantined,
        "evicted": result.evicted,
        "bytesRead": result.bytes_read,
        "bytesSent": result.bytes_sent,
        "seconds": round(result.seconds, 3),
    }
