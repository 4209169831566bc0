"""The time of ``cirron-spool inspect`` on an empty spool and on many batches, beside Node and bare listings."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine, options, records, report
from benchmarks.compare import MB
from benchmarks.errors import BenchmarkError, last_line
from benchmarks.session import Session
from cirron_spool.spool.names import format_batch_name

# The console script of the package, for any kind of installation.
_COMMAND = "import sys; from cirron_spool.cli.main import cirron_spool; sys.exit(cirron_spool())"
_BARE_LISTING = "import os, sys; sorted((e.name, e.stat().st_size) for e in os.scandir(sys.argv[1]))"
_NODE_LISTING = """
const { readdirSync, promises } = require("node:fs");
const folder = process.argv[1];
Promise.all(readdirSync(folder).sort().map(async (name) => [name, (await promises.stat(folder + "/" + name)).size]));
"""
_FILE_BYTES = 500
_FIRST_NS = 1_776_486_598_051_509_000


@dataclass(frozen=True)
class Time:
    """One run: seconds, and the peak of resident memory."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass
class Command:
    """A command line and its runs."""

    name: str
    words: list[str]
    runs: list[Time] = field(default_factory=list)

    def median(self, figure: str) -> float:
        """The median of a field of :class:`Time`."""
        return float(statistics.median(getattr(run, figure) for run in self.runs))


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    options.add_common(parser, repeat=9)
    parser.add_argument(
        "--files",
        type=options.positive,
        default=100_000,
        metavar="N",
        help="batches to list (default: 100000)",
    )


def run(session: Session) -> None:
    """Time the commands in turn."""
    files = session.options.files
    empty, full = session.workspace.new_folder("empty"), session.workspace.new_folder("full")
    session.say(f"writing {files:,} files")
    for index in range(files):
        name = format_batch_name(_FIRST_NS + index * 1_000_000_000, records.new_id())
        (full / name).write_bytes(b" " * _FILE_BYTES)
    inspect = [sys.executable, "-c", _COMMAND, "inspect", "--dir"]
    start = [
        Command("cirron-spool inspect, an empty spool", [*inspect, str(empty)]),
        Command("python -c pass", [sys.executable, "-c", "pass"]),
    ]
    listing = [
        Command("cirron-spool inspect --json", [*inspect, str(full), "--json"]),
        Command("scandir, stat, sort in Python", [sys.executable, "-c", _BARE_LISTING, str(full)]),
    ]
    node = machine.node()
    if node is not None:
        start.append(Command("node -e 0", [node, "-e", "0"]))
        listing.append(Command("readdir, stat, sort in Node", [node, "-e", _NODE_LISTING, str(full)]))
    _time_all(session, start)
    _time_all(session, listing)
    session.show(
        f"\non {session.workspace.file_system}\n{_text(start)}\n\n{files:,} batches\n{_text(listing)}"
    )
    _record(session, "inspect: times node -e 0", start, 2, "seconds")
    _record(session, "listing: times a bare listing", listing, 1, "seconds")
    _record(session, "listing: times memory of node", listing, 2, "peak_bytes")


def _time_all(session: Session, commands: list[Command]) -> None:
    for round_ in range(session.options.repeat + 1):
        for command in commands:
            session.say(f"{command.name}: run {round_} of {session.options.repeat}")
            taken = _time(session.workspace.folder, command)
            if round_:  # the first round fills the caches
                command.runs.append(taken)


def _time(folder: Path, command: Command) -> Time:
    stopwatch = str(machine.REPOSITORY / "benchmarks" / "stopwatch.py")
    done = subprocess.run(
        [sys.executable, "-I", "-S", stopwatch, *command.words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=folder,
        env=machine.child_environment(folder),
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"{command.name} failed: {last_line(done.stderr)}")
    return Time(**json.loads(done.stdout))


def _text(commands: list[Command]) -> str:
    rows = [["command", "ms", "min..max", "CPU ms", "peak MB"]]
    for command in commands:
        seconds = [run.seconds * 1000 for run in command.runs]
        spread = f"{min(seconds):.1f}..{max(seconds):.1f}"
        cpu, peak = command.median("cpu_seconds") * 1000, command.median("peak_bytes") / MB
        rows.append([command.name, f"{statistics.median(seconds):.1f}", spread, f"{cpu:.1f}", f"{peak:.1f}"])
    return report.table(rows)


def _record(session: Session, name: str, commands: list[Command], peer: int, figure: str) -> None:
    """Record the first command's figure as a multiple of a peer's, where the peer ran."""
    if peer < len(commands):
        session.record(f"startup {name}", commands[0].median(figure) / commands[peer].median(figure))
