"""The command line: which command, its options, and how it ends."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from benchmarks import report, spools
from benchmarks.errors import BenchmarkError
from benchmarks.session import Command, Findings, Session

COMMANDS = {
    "throughput": "deliver spools: both disk strategies beside the floor and Node (the default)",
    "lateness": "how late a 1 ms ticker is in the event loop that runs the flush",
    "memory": "peak resident memory of flushes of many and of large batches",
    "startup": "how long inspect takes to start, and to list 100,000 batches",
    "window": "what several requests in flight bring",
    "tune": "which settings are best on this machine and link",
    "goals": "everything that the project's goals speak of, in one run",
}


def build_parser(command: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    listed = "\n".join(f"  {name:<11} {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks" + ("" if command == "throughput" else f" {command}"),
        description=f"{COMMANDS[command].capitalize()}.",
        epilog=f"commands:\n{listed}\n\n`python -m benchmarks COMMAND --help` shows a command's own options."
        if command == "throughput"
        else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", metavar="FILE", help="write every figure as JSON; - for stdout")
    parser.add_argument("--quiet", action="store_true", help="do not show what is being done")
    module(command).configure(parser)
    return parser


def module(command: str) -> Any:
    """The module of a command; imported when it is needed, so that usage errors are quick."""
    return import_module(f"benchmarks.commands.{command}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    0: measured (whether or not a goal was reached). 1: something has no figure, and a line says why. 2: wrong usage.
    130 and 143: ended by SIGINT or SIGTERM, with everything cleaned up.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given.pop(0) if given and given[0] in COMMANDS else "throughput"
    options = build_parser(command).parse_args(given)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(command, options)
    except BenchmarkError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(command: str, options: argparse.Namespace) -> int:
    run: Command = module(command).run
    with Session(options) as session:
        findings = run(session)
        session.show(report.goals_text(findings.goals))
    if options.json:
        report.write_json(options.json, _document(command, options, findings))
    return 1 if findings.failed else 0


def _document(command: str, options: argparse.Namespace, findings: Findings) -> dict[str, Any]:
    """The document for ``--json``; what was asked for is in it, but no path."""
    asked = {name: value for name, value in vars(options).items() if name not in ("json", "quiet")}
    for name in ("where", "spool", "directory"):
        if name in asked:
            asked[name] = _without_paths(asked[name])
    return report.document(command, asked, findings.goals, **findings.body)


def _without_paths(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_paths(each) for each in value]
    known = (*spools.SHAPES, "tmpfs", "disk", None)
    return value if value in known else "own"


def _terminate(number: int, frame: object) -> None:
    del frame
    raise SystemExit(128 + number)
