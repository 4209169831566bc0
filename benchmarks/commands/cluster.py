"""Many spools: one at a time, several at a time, and on the workers of a Dask cluster, some of which are killed."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import options, records, report
from benchmarks.dask_cluster import DaskCluster
from benchmarks.errors import BenchmarkError
from benchmarks.session import Session
from benchmarks.sink_client import TOKEN, SinkClient, running_sink
from benchmarks.spools import Spool, Workspace
from cirron_spool import FlushSpoolsResult, SpoolEvent, Uploaded, flush_on_dask, flush_spools
from cirron_spool.spool.names import format_batch_name


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_common(parser, spool="tiny", latency="20", repeat=1, batches="50")
    for name, default, noun in (
        ("--spools", 200, "spools"),
        ("--workers", 2, "worker processes"),
        ("--threads", 4, "threads of each worker"),
        ("--kills", 10, "workers that are killed with SIGKILL in the last run"),
    ):
        help_ = f"{noun} (default: {default})"
        parser.add_argument(name, type=options.positive, default=default, metavar="N", help=help_)


def run(session: Session) -> None:
    """Flush the same spools in each way."""
    asked = session.options
    at_once = asked.workers * asked.threads
    for spool in session.spools():
        batches = asked.spools * len(spool.names)
        for network in session.networks():
            home = session.workspace.new_folder("home")
            with (
                running_sink(network, home) as sink,
                DaskCluster(_with_login(home, sink), workers=asked.workers, threads=asked.threads) as cluster,
            ):
                fleet = _Fleet(session.workspace, spool, sink, asked.spools)
                fleet.time(partial(_on_dask, cluster), spools=at_once)  # the workers import
                ways: dict[str, Callable[[Path], Coroutine[Any, Any, FlushSpoolsResult]]] = {
                    "one at a time": partial(_here, sink, 1),
                    f"{at_once} at a time": partial(_here, sink, at_once),
                    "Dask": partial(_on_dask, cluster),
                    f"Dask, {asked.kills} kills": partial(
                        _on_dask, cluster, kills=asked.kills, batches=batches
                    ),
                }
                seconds: dict[str, float] = {}
                for name, way in ways.items():
                    session.say(name)
                    seconds[name] = fleet.time(way)
            one = seconds["one at a time"]
            rows = [["", "s", "x one at a time"]]
            rows += [[name, f"{each:.2f}", f"{one / each:.2f}"] for name, each in seconds.items()]
            title = (
                f"{asked.spools} spools of {len(spool.names)} {spool.name} batches, {network.latency_ms:g} ms"
            )
            session.show(f"\n{title}\n{report.table(rows)}\nsent again after the kills: {fleet.resent}")
            for name in (f"{at_once} at a time", "Dask"):
                session.record(
                    f"cluster {network.latency_ms:g}ms {name}: times as fast as one", one / seconds[name]
                )


@dataclass
class _Fleet:
    """Spools that are made anew for each run. ``resent`` counts the batches that came twice in the last run."""

    workspace: Workspace
    original: Spool
    sink: SinkClient
    spools: int
    resent: int = 0

    def time(
        self, way: Callable[[Path], Coroutine[Any, Any, FlushSpoolsResult]], spools: int | None = None
    ) -> float:
        """The seconds of a flush. Raises BenchmarkError unless each batch was sent, in order within its spool."""
        root = self.workspace.new_folder("fleet")
        ids = [self._make(root / f"run{number:05d}") for number in range(spools or self.spools)]
        self.sink.reset(proof=False)
        began = time.monotonic()
        result = asyncio.run(way(root))
        seconds = time.monotonic() - began
        if result.exit_code:
            raise BenchmarkError(f"The flush ended with exit code {result.exit_code}: {result.warnings}")
        started = self.sink.tally().started
        first_times = {batch_id: place for place, batch_id in enumerate(dict.fromkeys(started))}
        for batches in ids:
            places = [first_times.get(batch_id, -1) for batch_id in batches]
            if -1 in places or places != sorted(places):
                raise BenchmarkError("A spool was not delivered whole and in order.")
        self.resent = len(started) - len(first_times)
        return seconds

    def _make(self, folder: Path) -> list[str]:
        spool = folder / ".cirron" / "spool"
        spool.mkdir(parents=True)
        clock = time.time_ns()
        ids = [records.new_id() for _ in self.original.names]
        for place, (name, batch_id) in enumerate(zip(self.original.names, ids, strict=True)):
            os.link(self.original.directory / name, spool / format_batch_name(clock + place, batch_id))
        return ids


def _with_login(home: Path, sink: SinkClient) -> Path:
    """The home of the workers, with the login that they use."""
    config = home / ".cirron" / "config.json"
    config.parent.mkdir(mode=0o700)
    config.write_text(json.dumps({"apiUrl": sink.url, "token": TOKEN}))
    config.chmod(0o600)
    return home


async def _here(sink: SinkClient, spools: int, root: Path) -> FlushSpoolsResult:
    return await flush_spools(root, api_url=sink.url, token=TOKEN, spools=spools)


async def _on_dask(cluster: DaskCluster, root: Path, kills: int = 0, batches: int = 0) -> FlushSpoolsResult:
    """Flush on the cluster; kill a worker each time that a further share of the ``batches`` has been sent."""
    uploads = 0
    killed = 0

    def hear(event: SpoolEvent) -> None:
        nonlocal uploads, killed
        uploads += isinstance(event.event, Uploaded)
        if killed < kills and uploads >= batches * (killed + 1) / (kills + 2):
            killed += 1
            cluster.replace_worker()

    result = await flush_on_dask(root, scheduler=cluster.address, on_event=hear, timeout_s=60)
    if killed < kills:
        raise BenchmarkError(f"Only {killed} workers were killed.")
    return result
