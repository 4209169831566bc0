"""How long ``cirron-spool inspect`` takes to start, to list 100,000 batches, and what it imports for that."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import environment, goals, options, report, shapes, sinks
from benchmarks.errors import BenchmarkError
from benchmarks.goals import MB, Goal
from benchmarks.session import Findings, Session
from benchmarks.spools import Workspace
from cirron_spool.spool.names import format_batch_name

# What the console script that pip installs does, whichever way this checkout is installed.
_COMMAND = "import sys; from cirron_spool.cli.main import cirron_spool; sys.exit(cirron_spool())"
_IMPORTED = """\
import sys
from cirron_spool.cli.main import cirron_spool
code = cirron_spool(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""
# None of these has anything to do with listing or deleting files.
HEAVY = (
    "aiohttp",
    "cirron_spool.flush",
    "cirron_spool.pipeline.ingest",
    "asyncio",
    "anyio",
    "ssl",
    "rich",
    "aiofiles",
)
FORBIDDEN = ("aiohttp", "cirron_spool.flush")

_PEERS = environment.REPOSITORY / "benchmarks" / "peers"
_LISTED_BYTES = 500


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "--files",
        type=options.positive,
        default=100_000,
        metavar="N",
        help="batches to list (default: 100000)",
    )
    options.where(parser)
    options.repeat(parser, default=9)


@dataclass
class Command:
    """A command and what its runs took."""

    name: str
    words: list[str]
    runs: list[Time] = field(default_factory=list)

    def median(self, figure: str) -> float:
        """The median of a field of :class:`Time`."""
        return float(statistics.median(getattr(run, figure) for run in self.runs))


@dataclass(frozen=True)
class Time:
    """One run: seconds of the wall and of the processor, and the most memory resident, in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def run(session: Session) -> Findings:
    """Time the commands, interleaved."""
    asked = session.options
    findings = Findings()
    session.show(environment.one_line())
    python, node = environment.interpreter(), environment.node()
    inspect = [python, "-c", _COMMAND, "inspect", "--dir"]
    for where in asked.where:
        workspace = session.workspace(where)
        empty, full = workspace.fresh("empty"), workspace.fresh("full")
        session.say(f"writing {asked.files:,} files")
        _fill(full, asked.files)

        start = [
            Command("python -c pass", [python, "-c", "pass"]),
            Command("cirron-spool inspect, an empty spool", [*inspect, str(empty)]),
        ]
        listing = [
            Command("scandir + stat + sort in Python", [python, str(_PEERS / "listing.py"), str(full)]),
            Command("cirron-spool inspect --json", [*inspect, str(full), "--json"]),
        ]
        if node is not None:
            start.append(Command("node -e 0", [node, "-e", "0"]))
            listing.append(Command("readdir + stat in Node", [node, str(_PEERS / "listing.mjs"), str(full)]))
        for commands in (start, listing):
            for round_ in range(asked.repeat + 1):
                for command in commands:
                    session.say(f"{command.name}: run {round_} of {asked.repeat}")
                    taken = _time(workspace, command.words)
                    if round_:  # the first one fills the caches
                        command.runs.append(taken)
        session.show(f"\non {workspace.label}\n{_text(start)}\n\n{asked.files:,} files\n{_text(listing)}")
        findings.goals += _goals(start, listing)
        findings.body.setdefault("startup", []).append(
            {
                "file_system": workspace.label,
                "files": asked.files,
                "commands": [_json(command) for command in (*start, *listing)],
            }
        )
        findings.body["imported"] = _show_imports(session, workspace, empty)
    if any(set(FORBIDDEN) & set(found) for found in findings.body["imported"].values()):
        findings.failed = True
    session.show("")
    return findings


def _fill(directory: Path, files: int) -> None:
    content = b" " * _LISTED_BYTES
    for index in range(files):
        name = format_batch_name(1_776_486_598_051_509_000 + index * 1_000_000_000, shapes.new_id())
        (directory / name).write_bytes(content)


def _time(workspace: Workspace, words: Sequence[str]) -> Time:
    stopwatch = environment.REPOSITORY / "benchmarks" / "stopwatch.py"
    command = [environment.interpreter(), "-I", "-S", str(stopwatch), *words]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=workspace.folder,
        env=environment.child_environment(workspace.folder),
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"Cannot time {Path(words[0]).name}: {sinks.last_line(done.stderr)}")
    taken = json.loads(done.stdout)
    if taken.pop("exit_code"):
        raise BenchmarkError(f"{Path(words[0]).name} failed: {sinks.last_line(done.stderr)}")
    return Time(**taken)


def _show_imports(session: Session, workspace: Workspace, empty: Path) -> dict[str, list[str]]:
    """Which of the heavy modules each offline command has imported at its end."""
    found = {}
    for arguments in (["inspect"], ["inspect", "--json"], ["clear", "--force"]):
        done = subprocess.run(
            [environment.interpreter(), "-c", _IMPORTED, *arguments, "--dir", str(empty)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment.child_environment(workspace.folder),
            check=False,
        )
        modules = set(done.stderr.split())
        if done.returncode or "cirron_spool" not in modules:
            raise BenchmarkError(
                f"cirron-spool {arguments[0]} failed: {sinks.last_line(done.stderr.encode())}"
            )
        command = " ".join(arguments)
        found[command] = [module for module in HEAVY if module in modules]
        heavy = ", ".join(found[command]) or "none"
        session.show(f"  {command}: {len(modules)} modules imported; of {', '.join(HEAVY)}: {heavy}")
    return found


def _text(commands: Sequence[Command]) -> str:
    rows = [["command", "ms", "min..max", "CPU ms", "peak MB"]]
    for command in commands:
        seconds = [run.seconds * 1000 for run in command.runs]
        rows.append(
            [
                command.name,
                f"{statistics.median(seconds):.1f}",
                f"{min(seconds):.1f}..{max(seconds):.1f}",
                f"{command.median('cpu_seconds') * 1000:.1f}",
                f"{command.median('peak_bytes') / MB:.1f}",
            ]
        )
    return report.table(rows)


def _goals(start: Sequence[Command], listing: Sequence[Command]) -> list[Goal]:
    found = []
    _, inspect, *node_start = start
    bare, listed, *node_listing = listing
    for node in node_start:
        ratio = inspect.median("seconds") / node.median("seconds")
        found.append(
            Goal("inspect, an empty spool: time of node -e 0", ratio, goals.INSPECT_TIMES_NODE_START, True)
        )
    ratio = listed.median("seconds") / bare.median("seconds")
    found.append(
        Goal("inspect --json, many files: time of a bare listing", ratio, goals.LISTING_TIMES_BARE, True)
    )
    for node in node_listing:
        ratio = listed.median("peak_bytes") / node.median("peak_bytes")
        found.append(
            Goal("inspect --json, many files: memory of Node's", ratio, goals.LISTING_MEMORY_OF_NODE, True)
        )
    return found


def _json(command: Command) -> dict[str, Any]:
    figures = ("seconds", "cpu_seconds", "peak_bytes")
    return {
        "name": command.name,
        "median": {figure: command.median(figure) for figure in figures},
        "runs": [asdict(run) for run in command.runs],
    }
