"""The number of batches in flight: fixed, or found from measurements of the flush.

The automatic size follows BBR, a congestion control of TCP. It is twice the bandwidth-delay product in batches: the
highest delivery rate of the last seconds, times the shortest round trip. The factor of two keeps the link busy between
an acknowledgement and the next batch. A round trip is the mean over a group of attempts, since response times vary.

While the window is the bottleneck, the size doubles with each round trip. Once the link, the platform or this machine
is the bottleneck, the rate and the size are stable. A refusal halves a limit on the size. The limit then grows by one
with each round trip. After a 429 the limit stays below the refused number. Larger sizes are tried after a time that
each 429 doubles.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

MOST_IN_FLIGHT = 64
# The smallest size that measures more than one at a time.
_FIRST = 2
_GAIN = 2.0
# Largest total of bodies in flight, in bytes. One batch may be larger.
_MOST_BYTES = 16 * 1024 * 1024
# The rate is the highest of the last seconds or round trips, the longer of the two.
_RATE_OVER_S = 2.0
_RATE_OVER_ROUND_TRIPS = 8
# The shortest round trip is measured again after this time, since the path may change.
# The window is then halved for one round trip, so that no batch waits in a queue.
_ROUND_TRIP_OVER_S = 30.0
# The mean of this many round trips counts as one measurement. Its spread is a third of theirs.
_GROUP = 8
# Time without a refusal before the refused number is tried again. Each refusal doubles it.
_FORGIVE_S = 2.0
_LONGEST_FORGIVE_S = 64.0


class Attempt(NamedTuple):
    """The start of an attempt: its time in seconds, and the number of earlier deliveries."""

    began: float
    delivered: int


class WindowSize(Protocol):
    """The size of a window, and its measurements."""

    @property
    def size(self) -> int:
        """The number of batches that may be in flight now, 1 or more."""

    @property
    def is_one(self) -> bool:
        """Whether the size is always 1."""

    @property
    def most_bytes(self) -> float:
        """Largest total of bodies in flight, in bytes. Beyond it no further batch is sent."""

    def begin(self) -> Attempt | None:
        """An attempt begins."""

    def delivered(self, attempt: Attempt | None) -> None:
        """The attempt ended with an acknowledgement."""

    def refused(self, in_flight: int, *, too_many: bool) -> None:
        """An attempt with ``in_flight`` batches in flight was refused for now. ``too_many`` is True for a 429."""


class FixedSize:
    """Always ``size`` batches."""

    most_bytes = math.inf

    def __init__(self, size: int) -> None:
        self.size = size

    @property
    def is_one(self) -> bool:
        """Whether the size is 1."""
        return self.size == 1

    def begin(self) -> None:
        """Nothing is measured."""

    def delivered(self, attempt: Attempt | None) -> None:
        """Nothing is measured."""

    def refused(self, in_flight: int, *, too_many: bool) -> None:
        """Nothing is measured."""


class AutoSize:
    """The automatic size; see the module's docstring. ``clock`` is monotonic, in seconds."""

    is_one = False
    most_bytes = float(_MOST_BYTES)

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.size = _FIRST
        self._delivered = 0
        # Times and rates, in deliveries a second. The rates decrease: a lower earlier rate never counts.
        self._rates: deque[tuple[float, float]] = deque()
        self._round_trip = _RoundTrip(clock())
        self._limit = _Limit(clock())

    def begin(self) -> Attempt:
        """An attempt begins."""
        return Attempt(self._clock(), self._delivered)

    def delivered(self, attempt: Attempt | None) -> None:
        """The attempt ended with an acknowledgement: measure, and set the size."""
        if attempt is None:
            return
        now = self._clock()
        self._delivered += 1
        took_s = max(now - attempt.began, 1e-6)
        self._round_trip.note(attempt.began, now, self.size)
        self._note_rate(now, (self._delivered - attempt.delivered) / took_s)
        self._limit.delivered(attempt.began, now)
        held = self._rates[0][1] * self._round_trip.shortest_s
        wanted = int(held / _GAIN) if self._round_trip.is_measured else math.ceil(held * _GAIN)
        self.size = max(1, min(wanted, int(self._limit.size)))

    def refused(self, in_flight: int, *, too_many: bool) -> None:
        """An attempt with ``in_flight`` batches in flight was refused for now."""
        self._limit.refused(in_flight, self._clock(), too_many=too_many)
        self.size = max(1, min(self.size, int(self._limit.size)))

    def _note_rate(self, now: float, rate: float) -> None:
        rates = self._rates
        while rates and rates[-1][1] <= rate:
            rates.pop()
        rates.append((now, rate))
        over_s = max(_RATE_OVER_S, _RATE_OVER_ROUND_TRIPS * self._round_trip.shortest_s)
        while now - rates[0][0] > over_s:
            rates.popleft()


class _RoundTrip:
    """The shortest round trip in seconds: the lowest mean over a group of attempts.

    ``is_measured`` asks for a small window, so that no batch waits in a queue.
    """

    def __init__(self, now: float) -> None:
        self.shortest_s = math.inf
        self._is_guess = True  # of one attempt
        self.is_measured = False
        self._known_at = now
        self._from = 0.0  # later attempts are measured
        self._sum_s = 0.0
        self._number = 0

    def note(self, began: float, now: float, size: int) -> None:
        """Record a round trip."""
        took_s = max(now - began, 1e-6)
        if self.shortest_s == math.inf:
            self.shortest_s = took_s
        if self.is_measured and began < self._from:
            return
        self._sum_s += took_s
        self._number += 1
        if self._number < max(_GROUP, size // 2 if self.is_measured else size):
            return
        mean_s = self._sum_s / self._number
        self._sum_s, self._number = 0.0, 0
        if mean_s <= self.shortest_s or self.is_measured or self._is_guess:
            self.shortest_s, self._known_at, self.is_measured, self._is_guess = mean_s, now, False, False
        elif now - self._known_at > _ROUND_TRIP_OVER_S:
            # The queue is empty after the delivery of the batches that are in flight now.
            self.is_measured, self._from = True, now + took_s


class _Limit:
    """The limit on the size. A round trip adds one, a refusal halves it."""

    def __init__(self, now: float) -> None:
        self.size = float(MOST_IN_FLIGHT)
        self._ceiling = MOST_IN_FLIGHT
        self._refused_at = -math.inf
        self._forgiven_at = now
        self._forgive_s = _FORGIVE_S
        self._is_recovering = False

    def delivered(self, began: float, now: float) -> None:
        """Record a delivery whose attempt started at ``began``."""
        if began < self._refused_at:
            return
        self._is_recovering = False
        if self._ceiling < MOST_IN_FLIGHT and now - self._forgiven_at > self._forgive_s:
            self._ceiling += max(1, self._ceiling // 2)
            self._forgiven_at = now
        self.size = min(self.size + 1 / self.size, float(self._ceiling))

    def refused(self, in_flight: int, now: float, *, too_many: bool) -> None:
        """Record a refusal. Until the next delivery, further refusals belong to the same burst and change nothing."""
        self._refused_at = self._forgiven_at = now
        if self._is_recovering:
            return
        self._is_recovering = True
        if too_many and in_flight > 1:  # one alone is not too many
            self._ceiling = max(1, min(self._ceiling, in_flight - 1))
            self._forgive_s = min(2 * self._forgive_s, _LONGEST_FORGIVE_S)
        self.size = max(1.0, min(in_flight / 2, float(self._ceiling)))
