"""The progress of a flush, computed from its events: counts, bytes, rate, time left, wait for a retry."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

from cirron_spool.events import (
    Ended,
    Failed,
    FlushEvent,
    Found,
    Progress,
    Quarantined,
    Retrying,
    Sending,
    SnapshotFailed,
    SnapshotsStarted,
    SnapshotUploaded,
    SpoolsFound,
    Started,
    Uploaded,
)
from cirron_spool.text import human_size, printable

# The rate covers only the last seconds, so it shows a slower link soon.
_RATE_OVER_S = 10.0
# Time without progress before the wait for the platform is shown.
_SILENCE_S = 3.0


class _Wait(NamedTuple):
    """The wait of one batch for its next attempt, by time.monotonic()."""

    name: str
    since: float
    until: float
    attempt: int
    reason: str


class Meter:
    """The progress of one flush.

    ``total`` and ``done`` are bytes of batches and snapshots. ``done`` includes the bytes in flight.
    """

    def __init__(self) -> None:
        self.total = 0
        self._batches = 0
        self._uploaded = 0
        self._uploaded_bytes = 0
        # Bytes of batches that will not be sent in this flush.
        self._given_up_bytes = 0
        self._sizes: dict[str, int] = {}
        self._snapshots = 0
        self._snapshots_uploaded = 0
        self._on_their_way: dict[str, int] = {}
        self._moved_at = time.monotonic()
        # Transferred bytes with failed attempts, and the same with times, for the rate.
        self._carried = 0
        self._marks: deque[tuple[float, int]] = deque()
        self._file = ""
        self._attempt = 1
        self._wait: _Wait | None = None
        # With several spools: their number, the active ones, and the finished ones.
        self._spools = 0
        self._under_way: set[Path] = set()
        self._ended: set[Path] = set()

    def note(self, event: FlushEvent | SpoolsFound, spool: Path | None = None) -> None:
        """Count an event. With several spools, ``spool`` is the directory, and batches have paths as names."""
        name = getattr(event, "name", "") if spool is None else f"{spool}/{getattr(event, 'name', '')}"
        if not isinstance(event, Progress) or event.sent != self._on_their_way.get(name, 0):
            self._moved_at = time.monotonic()
        match event:
            case SpoolsFound() | Started() | Found() | SnapshotsStarted() | Ended():
                self._note_extent(event, spool)
            case Sending():
                self._file, self._attempt = name, 1
                self._sizes[name] = event.size
            case Progress():
                self._end_wait(name)
                self._carry(name, event.sent)
            case Uploaded():
                self._forget_vanished(name)
                self._upload(name, event.size)
                self._uploaded += 1
            case SnapshotUploaded():
                self._upload(name, event.size)
                self._snapshots_uploaded += 1
            case Retrying():
                self._end_wait(name)
                self._on_their_way.pop(name, None)
                now = time.monotonic()
                self._wait = _Wait(name, now, now + event.delay_s, event.attempt, printable(event.reason))
                self._file, self._attempt = name, event.attempt
            case Failed() | Quarantined() | SnapshotFailed():
                self._forget_vanished(name)
                self._give_up(name)

    def _note_extent(
        self, event: SpoolsFound | Started | Found | SnapshotsStarted | Ended, spool: Path | None
    ) -> None:
        """Count an event about the number of files or spools."""
        match event:
            case SpoolsFound():
                self._batches = event.batches
                self._spools = event.spools if event.with_batches is None else event.with_batches
            case Started() if spool is None:
                self._batches, self.total = event.batches, event.total_bytes
                self._mark()
            case Started() if spool is not None:
                self._under_way.add(spool)
                if not self._marks:
                    self._mark()
            case Ended() if spool is not None:
                self._under_way.discard(spool)
                self._ended.add(spool)
            case Found():
                self._batches += event.batches
                self.total += event.total_bytes
            case SnapshotsStarted():
                self._snapshots += event.snapshots
                self.total += event.total_bytes

    @property
    def done(self) -> int:
        """Bytes of acknowledged files and of files in flight."""
        return self._uploaded_bytes + sum(self._on_their_way.values())

    @property
    def left(self) -> int:
        """Bytes that are still to be sent, without failed and quarantined batches.

        With several spools, only started batches have a known size. The others count as the mean.
        """
        if self._spools:
            mean = self._uploaded_bytes / self._uploaded if self._uploaded else 0
            return int(mean * max(0, self._batches - self._uploaded))
        return max(0, self.total - self.done - self._given_up_bytes)

    @property
    def share_done(self) -> float:
        """The finished part from 0 to 1: of the bytes, or of the batches of several spools."""
        done, total = (self._uploaded, self._batches) if self._spools else (self.done, self.total)
        return min(1.0, done / total) if total else 0.0

    @property
    def waits(self) -> bool:
        """Whether a batch waits for its retry, or there was no progress for some seconds."""
        return self._wait is not None or self._silent() >= _SILENCE_S

    def parts(self) -> list[str]:
        """The figures with their units, the most important first. Rate and time left appear when they are known."""
        rate = self._rate()
        figures = [f"{self._uploaded}/{self._batches} batches"]
        if self._snapshots:
            figures.append(f"{self._snapshots_uploaded}/{self._snapshots} snapshots")
        if self._spools:
            figures.insert(0, f"{len(self._ended - self._under_way)}/{self._spools} spools")
            figures.append(human_size(self.done))
        else:
            figures.append(f"{human_size(self.done)} / {human_size(self.total)}")
        if rate:
            figures += [f"{human_size(int(rate))}/s", f"{_clock(self.left / rate)} left"]
        return figures

    def now(self) -> str:
        """The file in flight, the wait for a retry with its reason, or the wait for a silent platform."""
        wait = self._wait
        left = 0 if wait is None else math.ceil(wait.until - time.monotonic())
        if wait is not None and left > 0:
            return f"retry in {left} s (attempt {wait.attempt}): {wait.reason}  {wait.name}"
        file = self._file if self._attempt == 1 else f"attempt {self._attempt}  {self._file}"
        silent = self._silent()
        if silent < _SILENCE_S:
            return file
        # Without a batch in flight, the flush checks the token or reads a slow disk.
        for_what = "the platform" if self._sizes else "the platform or the disk"
        return f"waiting for {for_what} for {int(silent)} s  {file}".rstrip()

    def leave_out(self, seconds: float) -> None:
        """Exclude ``seconds`` without possible uploads from the rate, and restart the silence."""
        self._moved_at = time.monotonic()
        self._leave_out_of_rate(seconds)

    def _silent(self) -> float:
        """Seconds without progress in which the platform could have answered."""
        now = time.monotonic()
        until = self._moved_at if self._wait is None else max(self._moved_at, self._wait.until)
        return now - until

    def _upload(self, name: str, size: int) -> None:
        self._end_wait(name)
        self._carry(name, size)
        self._on_their_way.pop(name)
        self._sizes.pop(name, None)
        self._uploaded_bytes += size

    def _carry(self, name: str, sent: int) -> None:
        before = self._on_their_way.get(name, 0)
        self._on_their_way[name] = sent
        self._carried += max(0, sent - before)
        self._mark()

    def _mark(self) -> None:
        now = time.monotonic()
        self._marks.append((now, self._carried))
        while len(self._marks) > 2 and now - self._marks[0][0] > _RATE_OVER_S:
            self._marks.popleft()

    def _forget_vanished(self, name: str) -> None:
        """Forget the batches before ``name`` in its spool: the order shows that the SDK deleted them."""
        if name in self._sizes:
            for other in list(self._sizes):
                if other == name:
                    return
                if os.path.dirname(other) == os.path.dirname(name):
                    self._give_up(other)

    def _give_up(self, name: str) -> None:
        self._end_wait(name)
        self._on_their_way.pop(name, None)
        self._given_up_bytes += self._sizes.pop(name, 0)

    def _waited(self, now: float) -> float:
        """The seconds of the present wait for a retry, which the rate excludes."""
        return 0.0 if self._wait is None else max(0.0, min(now, self._wait.until) - self._wait.since)

    def _end_wait(self, name: str) -> None:
        """End the wait of batch ``name``. Events of another batch do not end it."""
        if self._wait is not None and self._wait.name == name:
            self._leave_out_of_rate(self._waited(time.monotonic()))
            self._wait = None

    def _leave_out_of_rate(self, seconds: float) -> None:
        self._marks = deque((when + seconds, carried) for when, carried in self._marks)

    def _rate(self) -> float:
        """Bytes of files a second."""
        now = time.monotonic()
        now -= self._waited(now)
        since, carried = self._marks[0] if self._marks else (now, 0)
        seconds = now - since
        return (self._carried - carried) / seconds if seconds > 0 else 0.0


def _clock(seconds: float) -> str:
    """``0:07``, ``12:30``, ``3:05:00``."""
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
