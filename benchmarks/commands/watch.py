"""A watch: the CPU of an idle one, the delay of a batch, and a simulated week."""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack

from benchmarks import options, report
from benchmarks.compare import MB
from benchmarks.errors import BenchmarkError
from benchmarks.session import Session
from benchmarks.sink_client import Network, SinkClient, running_sink
from benchmarks.watched import Sample, WatchedSpool, wait_for

_SIMULATED = """
The simulated week runs the real command against the real SDK's writer and a server on the loopback. Simulated is the
time: a virtual minute lasts 60 / SPEED seconds. The waits of the watch are divided by SPEED: between two looks, two
renewals of the lease, two attempts, and two looks for a login. The lease itself and timeouts of the network keep their
length. A look takes its real time, so the watch makes fewer looks than in a week. The numbers of batches, outages,
evictions, logins, set-aside batches and new spools are those of a week.
"""
_FIRST_NS = 2_000_000_000_000_000_000
_MINUTE_NS = 60_000_000_000
# The SDK writes at full speed into so many bytes, some hundred batches, and evicts above.
_FULL_SPEED_BYTES = 2_000_000
_FULL_SPEED_SPANS = 100
_EVICTING_BYTES = 20_000
_SETTLE_S = 2.0
_PARTS = 6


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_where(parser)
    numbers = (
        ("--idle-seconds", 20, "seconds of the idle watches"),
        ("--sdk-seconds", 5, "seconds in which the SDK writes, at a fixed rate and then at full speed"),
        ("--hours", 168, "virtual hours, 6 or more"),
        ("--speed", 14_400, "SPEED of the clock in the simulated week"),
    )
    for name, default, words in numbers:
        parser.add_argument(
            name, type=options.positive, default=default, metavar="N", help=f"{words} (default: {default})"
        )
    parser.epilog = f"{_SIMULATED}\n{parser.epilog}"


def run(session: Session) -> None:
    """Measure all three."""
    if session.options.hours < _PARTS:
        raise BenchmarkError("--hours must be 6 or more.")
    with running_sink(Network(), session.workspace.folder) as sink:
        _idle(session, sink)
        for pace_s in (0.05, 0.0):
            _delay(session, sink, pace_s)
        _week(session, sink)


def _idle(session: Session, sink: SinkClient) -> None:
    """The CPU time of two watches at once: of the whole process, after the first batch."""
    seconds = session.options.idle_seconds
    session.say(f"two idle watches for {seconds} s")
    kinds = {"with notices": True, "by polling": False}
    with ExitStack() as stack:
        spools = {kind: WatchedSpool(session.workspace.new_folder("idle"), sink) for kind in kinds}
        for kind, notices in kinds.items():
            stack.enter_context(spools[kind].watched(notices=notices))
        time.sleep(_SETTLE_S)
        began, before = time.monotonic(), {kind: spool.sample() for kind, spool in spools.items()}
        time.sleep(seconds)
        after, took = {kind: spool.sample() for kind, spool in spools.items()}, time.monotonic() - began
    for kind in kinds:
        share = 100 * (after[kind].cpu_seconds - before[kind].cpu_seconds) / took
        session.show(f"an idle watch {kind}: {share:.2f} % of a core over {took:.0f} s")
        session.record(f"watch idle {kind}: % of a core", share)


def _delay(session: Session, sink: SinkClient, pace_s: float) -> None:
    """The time from the SDK's rename to the head of the request at the sink."""
    how = "20 batches a second" if pace_s else "full speed, evicting"
    session.say(f"the SDK writes {how}")
    spool = WatchedSpool(session.workspace.new_folder("delay"), sink)
    spool.limit(_FULL_SPEED_BYTES)
    sealed_ns: list[int] = []
    with spool.watched():
        until = time.monotonic() + session.options.sdk_seconds
        while time.monotonic() < until:
            sealed_ns.append(spool.seal(time.time_ns(), spans=_FULL_SPEED_SPANS))
            time.sleep(pace_s)
    spool.check_arrived()
    tally = sink.tally()
    arrived = dict(zip(tally.started, tally.started_ns, strict=True))
    pairs = zip(spool.sealed[-len(sealed_ns) :], sealed_ns, strict=True)
    # The sink can have the head before the writer has returned.
    delays = [max(0, arrived[name] - when) / 1e9 for name, when in pairs if name in arrived]
    session.show(
        f"from sealing to arrival, the SDK at {how}: median {statistics.median(delays):.3f} s, "
        f"worst {max(delays):.3f} s; {len(sealed_ns):,} sealed, {len(delays):,} arrived, {spool.evicted:,} evicted"
    )
    name = "watch delay" if not pace_s else "watch delay at a fixed rate"
    session.record(f"{name}: worst s", max(delays))


def _week(session: Session, sink: SinkClient) -> None:
    """The simulated week, by hours; a sample at the end of each sixth."""
    asked = session.options
    spool = WatchedSpool(session.workspace.new_folder("week"), sink)
    hours = asked.hours
    ends = {hours * part // _PARTS for part in range(1, _PARTS + 1)}
    samples: list[tuple[int, int, Sample]] = []
    set_aside = 0
    began = time.monotonic()
    with spool.watched(speed=asked.speed):
        samples.append((0, 1, spool.sample()))
        for hour in range(hours):
            session.say(f"virtual hour {hour} of {hours}")
            set_aside += _hour(spool, sink, hour, 60 / asked.speed)
            if hour + 1 in ends:
                samples.append((hour + 1, len(spool.sealed), spool.sample()))
    took = time.monotonic() - began
    arrived = spool.check_arrived(set_aside)
    head = ["virtual hour", "sealed", "descriptors", "threads", "resident MB", "CPU s"]
    rows = [
        [
            *(f"{number:,}" for number in (hour, sealed, each.descriptors, each.threads)),
            f"{each.resident_bytes / MB:.2f}",
            f"{each.cpu_seconds:.2f}",
        ]
        for hour, sealed, each in samples
    ]
    session.show(
        f"\na simulated week: {hours} virtual hours in {took:.0f} s, {len(spool.sealed):,} batches sealed, "
        f"{len(arrived):,} arrived, {spool.evicted:,} evicted, {set_aside} set aside\n{report.table([head, *rows])}"
    )
    # The first third fills caches.
    warm, middle, last = samples[2][2], samples[4][2], samples[6][2]
    session.record("watch week: descriptors more", last.descriptors - warm.descriptors)
    session.record("watch week: threads more", last.threads - warm.threads)
    session.record("watch week: MB more", (last.resident_bytes - warm.resident_bytes) / MB)
    earlier = middle.cpu_seconds - warm.cpu_seconds
    session.record("watch week: times CPU", (last.cpu_seconds - middle.cpu_seconds) / max(earlier, 0.01))


def _hour(spool: WatchedSpool, sink: SinkClient, hour: int, minute_s: float) -> int:
    """A batch each minute, or 60 at once, and the event of this hour of the day. Returns the batches set aside."""
    of_day = hour % 24
    refusal = {8: 503, 12: 401, 16: 503}.get(of_day)
    if of_day == 20:
        spool.new_run()
    if of_day == 16:
        spool.limit(_EVICTING_BYTES)
    if refusal is not None:
        sink.refuse(refusal)
    for minute in range(60):
        spool.seal(_FIRST_NS + (hour * 60 + minute) * _MINUTE_NS)
        if of_day % 6 != 5:  # else a burst
            time.sleep(minute_s)
        if refusal is not None and minute == 30:
            sink.refuse(None)
            if refusal == 401:
                spool.log_in()
    if of_day == 16:
        spool.limit(None)
    spool.drain()
    if of_day not in (2, 10, 18, 22):
        return 0
    sink.refuse(400)
    spool.seal(_FIRST_NS + (hour * 60 + 60) * _MINUTE_NS - 1)
    wait_for(lambda: not spool.waiting(), "a rejected batch was not set aside")
    sink.refuse(None)
    return 1
