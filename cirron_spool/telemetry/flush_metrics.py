"""The metrics of a command: counts from the events of its flushes, and the state of its spools."""

from __future__ import annotations

from pathlib import Path

from cirron_spool.errors import EXIT_OK, SpoolError
from cirron_spool.events import (
    Ended,
    Failed,
    FlushEvent,
    Quarantined,
    Resumed,
    Retrying,
    Started,
    Uploaded,
    Waiting,
)
from cirron_spool.settings.paths import quarantine_path
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.names import created_ns_of
from cirron_spool.telemetry import families as of
from cirron_spool.telemetry.families import Family, Kind

_CAUSES = ("outage", "token")


_Values = dict[Family, dict[str, float]]


class FlushMetrics:
    """Counts the events of the flushes of one command. The counters start at the values ``before``.

    One thread calls :meth:`note`. Another thread may call the other methods, which only read single numbers.
    """

    def __init__(self, before: _Values | None = None) -> None:
        self._before = before or {}
        self._values: _Values = {
            family: {"": 0.0} if family.kind is Kind.COUNTER and not family.label else {}
            for family in of.KEPT
        }
        # The counts of this command that ``before`` includes, and those at the last call of values().
        self._included: _Values = {}
        self._read: _Values = {}
        self._spools: dict[Path, None] = {}
        self._held_up = dict.fromkeys(_CAUSES, 0.0)

    def add_spool(self, directory: Path) -> None:
        """Include the spool ``directory``."""
        self._spools[directory] = None

    def note(self, event: FlushEvent, directory: Path | None = None) -> None:
        """Count an event of the flush of ``directory``."""
        if directory is not None:
            self._spools[directory] = None
        match event:
            case Started():
                self._spools[event.directory] = None
            case Uploaded():
                self._count(of.UPLOADED)
                self._count(of.UPLOADED_BYTES, event.size)
                self._count(of.SENT_BYTES, event.sent)
            case Failed():
                self._count(of.FAILED)
            case Quarantined():
                self._count(of.QUARANTINED)
            case Retrying():
                self._count(of.RETRIES)
            case Waiting():
                self._held_up[event.cause] = 1.0
            case Resumed():
                self._held_up[event.cause] = 0.0
            case Ended():
                self._count(of.EVICTED, event.result.evicted)

    def end(self, exit_code: int, seconds: float, now: float) -> None:
        """Count the end of the command, which took ``seconds``. ``now`` is in seconds since the epoch."""
        self._count(of.FLUSHES, 1, str(exit_code))
        self._held_up = dict.fromkeys(_CAUSES, 0.0)
        self._values[of.LAST_FLUSH][""] = now
        self._values[of.LAST_EXIT_CODE][""] = exit_code
        self._values[of.LAST_DURATION][""] = seconds
        if exit_code == EXIT_OK:
            self._values[of.LAST_SUCCESS][""] = now

    def values(self, now: float) -> dict[Family, dict[str, float]]:
        """All values at ``now``. Reads the spools. Blocking."""
        left = _Left()
        for spool in tuple(self._spools):
            left.look_at(spool)
        moment = {
            of.WAITING: {"": float(left.batches)},
            of.WAITING_BYTES: {"": float(left.bytes)},
            of.OLDEST: {"": left.oldest_ns / 1e9} if left.oldest_ns is not None else {},
            of.QUARANTINE: {"": float(left.quarantined)},
            of.HELD_UP: dict(self._held_up),
            of.UPDATED: {"": now},
        }
        self._read = {family: dict(values) for family, values in self._values.items()}
        known = {family: self._continued(family) for family in of.KEPT} | moment
        return {family: known[family] for family in of.OF_A_FLUSH}

    def include(self, written: _Values) -> None:
        """Continue from ``written``, the values of the last call of :meth:`values` after their write."""
        self._before, self._included = written, self._read

    def continue_from(self, before: _Values) -> None:
        """Continue from ``before``, the values in the file, which other commands may have changed."""
        self._before = before

    def _continued(self, family: Family) -> dict[str, float]:
        """The values of a family. A counter adds the new counts to ``before``. A gauge is the own value, if any."""
        before, own = self._before.get(family, {}), self._read[family]
        if family.kind is Kind.GAUGE:
            return {**before, **own}
        included = self._included.get(family, {})
        new = {label: number - included.get(label, 0.0) for label, number in own.items()}
        return {label: before.get(label, 0.0) + new.get(label, 0.0) for label in {**before, **new}}

    def _count(self, family: Family, number: float = 1.0, label: str = "") -> None:
        values = self._values[family]
        values[label] = values.get(label, 0.0) + number


class _Left:
    """The batches in several spools and their quarantines. A spool that cannot be read counts as empty."""

    def __init__(self) -> None:
        self.batches = self.bytes = self.quarantined = 0
        self.oldest_ns: int | None = None

    def look_at(self, path: Path) -> None:
        """Count the batches of one spool."""
        try:
            with SpoolDirectory(path) as spool:
                entries = spool.entries() if spool.open() else []
            self.batches += len(entries)
            self.bytes += sum(entry.size for entry in entries)
            if entries:
                oldest = created_ns_of(entries[0].name)
                self.oldest_ns = oldest if self.oldest_ns is None else min(oldest, self.oldest_ns)
            with SpoolDirectory(quarantine_path(path)) as quarantine:
                self.quarantined += len(quarantine.listing().names) if quarantine.open() else 0
        except SpoolError:
            return
