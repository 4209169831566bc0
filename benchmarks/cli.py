"""The command line: commands, options, exit codes, and the JSON document."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import goals, machine, spools
from benchmarks.errors import BenchmarkError
from benchmarks.session import Session

COMMANDS = {
    "throughput": "the time of a flush, beside the floor and Node (the default)",
    "lateness": "the lateness of a 1 ms ticker in the event loop of a flush",
    "memory": "the peak memory of flushes of many batches and of large ones",
    "startup": "the time of inspect on an empty spool and on 100,000 batches",
    "cluster": "the gain of several spools at once, on one machine and on Dask",
    "window": "the gain of several requests in flight",
    "link": 'in_flight="auto" beside fixed numbers, over links',
    "many": "many spools, one and several at a time; discovery and memory of an archive",
    "watch": "an idle watch, its delay beside the SDK, and a simulated week of it",
    "tune": "the best settings for this machine and link",
    "goals": "all goals of the project, with measured values",
}
SCHEMA = 2


def module(command: str) -> Any:
    """The module of a command, imported at its use: usage errors are quick."""
    return import_module(f"benchmarks.commands.{command}")


def build_parser(command: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    listed = "\n".join(f"  {name:<11} {help_}" for name, help_ in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks" + ("" if command == "throughput" else f" {command}"),
        description=f"Measure {COMMANDS[command]}.",
        epilog=f"commands:\n{listed}\n\n`python -m benchmarks COMMAND --help` shows the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures as JSON; - for stdout")
    module(command).configure(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Exit codes: 0 measured, or all goals passed; 1 a figure is missing, or a goal failed; 2 wrong usage; 130 and 143
    ended by SIGINT and SIGTERM.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given.pop(0) if given and given[0] in COMMANDS else "throughput"
    options = build_parser(command).parse_args(given)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with Session(options) as session:
            session.show(machine.one_line())
            module(command).run(session)
            every = command == "goals"
            judged = goals.judge(session.figures, missing=every)
            session.show(goals.as_text(judged))
        if options.json:
            _write_json(options.json, _document(command, session, options, judged))
    except (BenchmarkError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return int(session.failed or (every and not all(each["passed"] for each in judged)))


def _document(
    command: str, session: Session, options: argparse.Namespace, judged: list[dict[str, Any]]
) -> dict[str, Any]:
    asked = {name: _without_paths(value) for name, value in vars(options).items() if name != "json"}
    return {
        "schema": SCHEMA,
        "command": command,
        "machine": machine.facts(),
        "options": asked,
        "figures": session.figures,
        "goals": judged,
        "cells": session.cells,
        **session.details,
    }


def _without_paths(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_paths(each) for each in value]
    named = isinstance(value, str) and (value in spools.SHAPES or not Path(value).is_dir())
    return value if named or not isinstance(value, str) else "own"


def _write_json(target: str, document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")


def _terminate(number: int, frame: object) -> None:
    del frame
    raise SystemExit(128 + number)
