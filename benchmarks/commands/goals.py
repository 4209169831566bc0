"""Everything that the project's goals speak of, in one run: the other commands, one after another, and one table."""

from __future__ import annotations

import argparse
from importlib import import_module

from benchmarks import cli, options
from benchmarks.session import Findings, Session

# The command, and its arguments. On tmpfs; where a disk stands beside it, no goal is judged by it.
FULL = (
    ("throughput", "--spool typical,tiny --latency-ms 0,1 --repeat 7"),
    (
        "throughput",
        "--spool typical,tiny --batches 200 --latency-ms 20 --repeat 3 --contenders floor,thread,inline",
    ),
    ("throughput", "--spool big,huge --latency-ms 0 --repeat 3"),
    ("lateness", "--repeat 5"),
    ("memory", "--repeat 3"),
    ("window", "--spool typical --repeat 3"),
    ("startup", ""),
)
# The same shapes with fewer runs and batches: a look of some minutes, with noisier figures.
QUICK = (
    ("throughput", "--spool typical,tiny --latency-ms 0,1 --repeat 3 --contenders floor,thread,inline"),
    (
        "throughput",
        "--spool typical,tiny --batches 100 --latency-ms 20 --repeat 1 --contenders floor,thread,inline",
    ),
    ("lateness", "--repeat 2"),
    ("memory", "--counts 1000,20000 --repeat 1"),
    ("window", "--batches 400 --in-flight 8,16 --repeat 1"),
    ("startup", "--repeat 3"),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "--quick", action="store_true", help="fewer runs and batches: a look, not a measurement"
    )
    parser.add_argument(
        "--only",
        type=options.words,
        default=[],
        metavar="COMMANDS",
        help="only these of the commands, with commas (default: all)",
    )


def run(session: Session) -> Findings:
    """Run the plan; what the single commands show is shown as they go."""
    asked = session.options
    plan = QUICK if asked.quick else FULL
    only = options.chosen(
        asked.only or [command for command, _ in plan], {each for each, _ in plan}, "command"
    )
    together = Findings()
    parts = []
    for command, arguments in plan:
        if command not in only:
            continue
        session.show(f"\n== {command} {arguments}".rstrip())
        session.options = cli.build_parser(command).parse_args(arguments.split())
        found: Findings = import_module(f"benchmarks.commands.{command}").run(session)
        parts.append({"command": command, "arguments": arguments, **found.body})
        together.goals += found.goals
        together.failed |= found.failed
        if command == "throughput":
            together.cells += found.cells
    session.options = asked
    together.body["parts"] = parts
    reached = sum(goal.reached for goal in together.goals)
    session.show(f"\n== goals: {reached} of {len(together.goals)} reached")
    return together
