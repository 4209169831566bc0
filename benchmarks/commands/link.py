"""``in_flight="auto"`` beside fixed numbers, over links of several latencies and bandwidths.

Each flush has a spool that it does not finish. Its rate is that of the deliveries after the first two seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks import options, report
from benchmarks.errors import BenchmarkError
from benchmarks.session import Session
from benchmarks.sink_client import TOKEN, Network, running_sink
from benchmarks.spools import SHAPES, Spool
from cirron_spool import FlushEvent, Uploaded, flush_spool

_SETTLED_S = 2.0
# A flush that winds down begins no batch: it is not measured.
_WINDING_DOWN_S = 4.5
# No flush here delivers more batches a second.
_FASTEST = 3000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_common(parser, repeat=1)
    parser.set_defaults(spool="", batches=None, bandwidth=None)
    parser.add_argument(
        "--latency-ms", type=options.several(options.milliseconds), default="1,20,50,200", metavar="MS"
    )
    parser.add_argument(
        "--rate", type=options.several(options.byte_rate), default="1M,10M,100M", metavar="BYTES"
    )
    parser.add_argument("--in-flight", type=options.numbers, default="1,2,4,8,16,32,64", metavar="N")
    parser.add_argument(
        "--seconds", type=options.positive, default=3, metavar="S", help="measured, after the first two"
    )


def run(session: Session) -> None:
    """A table for each link: the rate of each number, as a part of the best fixed one."""
    asked = session.options
    seed = session.generate(SHAPES["typical"])
    for latency_ms in asked.latency_ms:
        for bandwidth in asked.rate:
            network = Network(latency_ms, bandwidth)
            with running_sink(network, session.workspace.folder) as sink:
                rates: dict[int | str, list[float]] = {}
                for _ in range(asked.repeat):
                    for in_flight in (*asked.in_flight, "auto"):
                        session.say(f"{latency_ms:g} ms, {bandwidth / 1e6:g} MB/s: {in_flight} in flight")
                        rate = _rate(session, seed, sink.url, in_flight, network)
                        rates.setdefault(in_flight, []).append(rate)
            best = {in_flight: max(found) for in_flight, found in rates.items()}
            fixed = max(rate for in_flight, rate in best.items() if in_flight != "auto")
            session.show(f"\n{latency_ms:g} ms, {bandwidth / 1e6:g} MB/s")
            rows = [("in flight", "batches a second", "of the best fixed")]
            rows += [(f"{key}", f"{rate:.1f}", f"{rate / fixed:.2f}") for key, rate in best.items()]
            session.show(report.table(rows))
            session.record(
                f"link {latency_ms:g}ms {bandwidth / 1e6:g}MB auto of the best", best["auto"] / fixed
            )


def _rate(session: Session, seed: Spool, url: str, in_flight: Any, network: Network) -> float:
    """Batches a second after the first two seconds."""
    seconds = _SETTLED_S + session.options.seconds
    fastest = _FASTEST if not network.latency_ms else min(_FASTEST, 64_000 / network.latency_ms)
    spool = session.workspace.multiply(seed, int(fastest * (seconds + _WINDING_DOWN_S)) + 100)
    try:
        return asyncio.run(_flush(spool.directory, url, in_flight, seconds))
    finally:
        session.workspace.remove(spool)


async def _flush(directory: Path, url: str, in_flight: Any, seconds: float) -> float:
    times: list[float] = []

    def note(event: FlushEvent) -> None:
        if isinstance(event, Uploaded):
            times.append(time.monotonic())

    began = time.monotonic()
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    result = await flush_spool(
        directory,
        api_url=url,
        token=TOKEN,
        in_flight=in_flight,
        on_event=note,
        stop=stop,
        deadline=timedelta(seconds=seconds + 60),
    )
    if result.failures or not result.skipped:
        raise BenchmarkError(f"The flush did not last: {result.uploaded} delivered, {result.failures[:1]}.")
    within = [at for at in times if _SETTLED_S <= at - began < seconds]
    return len(within) / (seconds - _SETTLED_S)
