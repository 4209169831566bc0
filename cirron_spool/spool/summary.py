"""The figures of a spool: its time range, its rate, and the time until the SDK deletes batches. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cirron_spool.spool.listing import Entry
from cirron_spool.spool.names import created_ns_of

# The rate of the last ten minutes, since a spool may have batches of an earlier run.
_RATE_SPAN_S = 600
# The SDK writes a batch each second: those of a shorter time, as at the end of a run, give no rate.
_SHORTEST_RATE_NS = 10**9
# A run writes a batch each second. After this time without one, it has probably ended.
_SILENCE_S = 120
# The columns of the sparkline.
_BUCKETS = 40


class Summary(NamedTuple):
    """The figures of a spool with batches.

    ``span_s`` is the time from the oldest to the newest batch in seconds. ``rate`` is bytes a second over the
    ``rate_s`` seconds before the newest batch. It is 0 for less than a second. ``cap`` is the SDK's limit in bytes, or
    None. ``silent_s`` is the time since the newest batch. ``full_in_s`` is the time in seconds until the SDK deletes
    the oldest batch at this rate. It is 0 at the limit, and None if no run writes or there is no rate.
    ``bytes_over_time`` has the bytes of equal parts of the time range.
    """

    span_s: float
    largest: Entry
    rate: float
    rate_s: float
    cap: int | None
    used: int
    silent_s: float
    full_in_s: float | None
    bytes_over_time: Sequence[int]


def summarise(entries: Sequence[Entry], *, cap: int | None, now_ns: int) -> Summary:
    """The figures of ``entries``, which are oldest first and at least one.

    ``cap`` is the SDK's limit in bytes, or None for a part of a spool. ``now_ns`` is nanoseconds since the epoch.
    """
    times = [created_ns_of(entry.name) for entry in entries]
    first, last = times[0], times[-1]
    total = sum(entry.size for entry in entries)
    rate_ns = min(last - first, _RATE_SPAN_S * 10**9)
    # The batch at the start of that time has records of the time before.
    recent = sum(entry.size for entry, at in zip(entries, times, strict=True) if last - rate_ns < at)
    rate = recent * 1e9 / rate_ns if rate_ns >= _SHORTEST_RATE_NS else 0.0
    silent_s = (now_ns - last) / 1e9
    full_in_s = None
    if cap is not None and total >= cap:
        full_in_s = 0.0
    elif cap is not None and rate and silent_s < _SILENCE_S:
        full_in_s = max(0.0, (cap - total) / rate - max(0.0, silent_s))
    return Summary(
        (last - first) / 1e9,
        max(entries, key=lambda entry: entry.size),
        rate,
        rate_ns / 1e9,
        cap,
        total,
        silent_s,
        full_in_s,
        _over_time(entries, times),
    )


def _over_time(entries: Sequence[Entry], times: Sequence[int]) -> list[int]:
    first, span = times[0], times[-1] - times[0]
    if not span:
        return [sum(entry.size for entry in entries)]
    sums = [0] * min(_BUCKETS, len(entries))
    for entry, at in zip(entries, times, strict=True):
        sums[min((at - first) * len(sums) // span, len(sums) - 1)] += entry.size
    return sums
