"""How far a flush is, reckoned from its events: counts, bytes, rate, time left, and the wait for a retry."""

from __future__ import annotations

import math
import time
from collections import deque

from cirron_spool.events import (
    Failed,
    FlushEvent,
    Progress,
    Quarantined,
    Retrying,
    Sending,
    Started,
    Uploaded,
)
from cirron_spool.text import human_size, printable

# The rate is that of the last seconds: a link that has become slow shows soon.
_RATE_OVER_S = 10.0


class Meter:
    """The progress of one flush.

    ``total`` and ``done`` are bytes of batches; ``done`` includes bytes that are on their way.
    """

    def __init__(self) -> None:
        self.total = 0
        self._batches = 0
        self._uploaded = 0
        self._uploaded_bytes = 0
        self._on_their_way: dict[str, int] = {}
        # What the link has carried, bytes of failed attempts included; and when it was how much, of late.
        self._carried = 0
        self._marks: deque[tuple[float, int]] = deque()
        self._file = ""
        self._attempt = 1
        self._retry_at: float | None = None
        self._waits_since = 0.0
        self._why = ""

    def note(self, event: FlushEvent) -> None:
        """Take an event into account."""
        match event:
            case Started():
                self._batches, self.total = event.batches, event.total_bytes
                self._mark()
            case Sending():
                self._end_wait()
                self._file, self._attempt = event.name, 1
            case Progress():
                if event.name == self._file:
                    self._end_wait()
                self._carry(event.name, event.sent)
            case Uploaded():
                self._end_wait()
                self._carry(event.name, event.size)
                self._on_their_way.pop(event.name)
                self._uploaded += 1
                self._uploaded_bytes += event.size
            case Retrying():
                self._end_wait()
                self._on_their_way.pop(event.name, None)
                self._waits_since = time.monotonic()
                self._retry_at, self._attempt = self._waits_since + event.delay_s, event.attempt
                self._file = event.name
                # Its words before the colon name the batch, which stands beside it.
                self._why = printable(event.message.partition(": ")[2])
            case Failed() | Quarantined():
                self._end_wait()
                self._on_their_way.pop(event.name, None)

    @property
    def done(self) -> int:
        """Bytes of batches that were acknowledged or are on their way."""
        return self._uploaded_bytes + sum(self._on_their_way.values())

    @property
    def waits(self) -> bool:
        """Whether a retry is waited for."""
        return self._retry_at is not None

    def parts(self) -> list[str]:
        """The figures with their units, the most important first; the rate and the time left once they are known."""
        rate = self._rate()
        figures = [
            f"{self._uploaded}/{self._batches} batches",
            f"{human_size(self.done)} / {human_size(self.total)}",
        ]
        if rate:
            left = _clock(max(0, self.total - self.done) / rate)
            figures += [f"{human_size(int(rate))}/s", f"{left} left"]
        return figures

    def now(self) -> str:
        """The file in flight, or how long until it is tried again and why."""
        left = 0 if self._retry_at is None else math.ceil(self._retry_at - time.monotonic())
        if left > 0:
            return f"retry in {left} s (attempt {self._attempt}): {self._why}  {self._file}"
        return self._file if self._attempt == 1 else f"attempt {self._attempt}  {self._file}"

    def leave_out(self, seconds: float) -> None:
        """Take seconds in which nothing could be sent out of what the rate is reckoned from."""
        self._marks = deque((when + seconds, carried) for when, carried in self._marks)

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

    def _waited(self, now: float) -> float:
        """The seconds of the wait for a retry so far: the link is not slower for a server that asked us to wait."""
        if self._retry_at is None:
            return 0.0
        return max(0.0, min(now, self._retry_at) - self._waits_since)

    def _end_wait(self) -> None:
        if self._retry_at is not None:
            self.leave_out(self._waited(time.monotonic()))
            self._retry_at = None

    def _rate(self) -> float:
        """Bytes of batches a second."""
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
