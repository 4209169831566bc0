"""Many spools: one at a time beside several at once; discovery beside ``os.walk``; peak memory."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import machine, options, report, sink_client
from benchmarks.compare import MB
from benchmarks.errors import BenchmarkError, last_line
from benchmarks.session import Session
from benchmarks.sink_client import TOKEN, Network, SinkClient
from cirron_spool.spool.discovery import discover
from cirron_spool.spool.names import format_batch_name

_BATCH = b'{"spans":[]}'
_FIRST_NS = 1_776_486_598_051_509_000
# Spools in one folder, as a year of archives may have them.
_SPOOLS_A_FOLDER = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_common(parser, repeat=3)
    numbers = (
        ("--spools", 200, "spools to flush"),
        ("--batches", 50, "batches in each of them"),
        ("--at-once", 8, "spools flushed at the same time"),
        ("--archive", 10_000, "spools of 3 batches for discovery and memory"),
    )
    for name, default, words in numbers:
        parser.add_argument(
            name, type=options.positive, default=default, metavar="N", help=f"{words} (default: {default})"
        )
    parser.add_argument(
        "--latency-ms",
        type=options.milliseconds,
        default=20.0,
        metavar="MS",
        help="delay of each answer (default: 20)",
    )


def run(session: Session) -> None:
    """Measure all three."""
    asked = session.options
    with sink_client.running_sink(Network(asked.latency_ms), session.workspace.folder) as sink:
        rows = []
        for at_once in (1, asked.at_once):
            session.say(f"{asked.spools} spools of {asked.batches} batches, {at_once} at a time")
            with _tree(session, asked.spools, asked.batches) as tree:
                rows.append((at_once, _flush(tree, sink, at_once)))
    one, several = (outcome["seconds"] for _, outcome in rows)
    head = ["at a time", "seconds", "CPU s", "peak MB", "times as fast"]
    lines = [
        [
            str(n),
            f"{each['seconds']:.2f}",
            f"{each['cpu_seconds']:.2f}",
            _mb(each),
            f"{one / each['seconds']:.2f}",
        ]
        for n, each in rows
    ]
    title = f"{asked.spools} spools of {asked.batches} batches at {asked.latency_ms:g} ms a request"
    session.show(f"\n{title}\n{report.table([head, *lines])}")
    session.record(f"many {asked.latency_ms:g}ms {asked.at_once} at once: times as fast", one / several)
    _archive(session)


def _archive(session: Session) -> None:
    """Discover and flush an archive of small spools."""
    asked = session.options
    with _tree(session, asked.archive, 3) as tree:
        tasks = (lambda: sum(1 for _ in os.walk(tree)), lambda: sum(1 for _ in discover([tree])))
        walks = [_times(*tasks) for _ in range(asked.repeat)]
        walk, found = (statistics.median(times) for times in zip(*walks, strict=True))
        session.say(f"flushing {asked.archive:,} spools")
        with sink_client.running_sink(Network(), session.workspace.folder) as sink:
            outcome = _flush(tree, sink, asked.at_once)
    session.show(
        f"\n{asked.archive:,} spools of 3 batches: os.walk {walk:.3f} s, discovery {found:.3f} s "
        f"({found / walk:.2f} times); flushed in {outcome['seconds']:.1f} s, peak {_mb(outcome)} MB"
    )
    session.record("many discovery: times os.walk", found / walk)
    session.record("many archive: peak MB", outcome["peak_bytes"] / MB)


def _times(*tasks: Callable[[], int]) -> tuple[float, ...]:
    """The seconds of each task."""
    seconds = []
    for task in tasks:
        began = time.perf_counter()
        assert task()
        seconds.append(time.perf_counter() - began)
    return tuple(seconds)


@contextmanager
def _tree(session: Session, spools: int, batches: int) -> Iterator[Path]:
    """A folder with ``spools`` spools, removed at the end."""
    root = session.workspace.new_folder("archive")
    number = count()
    for index in range(spools):
        folder = f"{index // _SPOOLS_A_FOLDER:04d}"
        spool = root / folder / f"run-{index}" / ".cirron" / "spool"
        spool.mkdir(parents=True)
        for batch in range(batches):
            name = format_batch_name(_FIRST_NS + batch * 1_000_000_000 + index, f"{next(number):032x}")
            (spool / name).write_bytes(_BATCH)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _flush(tree: Path, sink: SinkClient, at_once: int) -> dict[str, Any]:
    """The outcome of a flush in a process of its own; all batches arrive, in order within each spool."""
    listed = {spool.path: sorted(os.listdir(spool.path)) for spool in discover([tree])}
    expected = {
        name.partition("-")[2].removesuffix(".json"): path for path in listed for name in listed[path]
    }
    sink.reset(proof=False)
    job = tree.parent / f"{tree.name}.json"
    job.write_text(
        json.dumps(
            {
                "directory": str(tree),
                "names": [],
                "url": sink.url,
                "token": TOKEN,
                "options": {"spools": at_once},
            }
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.contenders.flush_many", str(job)],
        capture_output=True,
        cwd=machine.REPOSITORY,
        env=machine.child_environment(tree.parent),
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"The flush failed: {last_line(done.stderr)}")
    arrived: dict[Path, list[str]] = {}
    for batch_id in sink.tally().started:
        arrived.setdefault(expected[batch_id], []).append(batch_id)
    for path, names in listed.items():
        if arrived.get(path, []) != [name.partition("-")[2].removesuffix(".json") for name in names]:
            raise BenchmarkError(f"The sink did not receive {path} whole and in order.")
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def _mb(outcome: dict[str, Any]) -> str:
    return f"{outcome['peak_bytes'] / MB:.1f}"
