"""All goals: run the other commands in turn, then print each goal with its value."""

from __future__ import annotations

import argparse

from benchmarks import cli, options
from benchmarks.session import Session

FULL = (
    ("throughput", "--spool typical,tiny --latency-ms 0,1 --repeat 7"),
    (
        "throughput",
        "--spool typical,tiny --batches 200 --latency-ms 20 --repeat 3 --contenders floor,thread,inline",
    ),
    ("throughput", "--spool big,huge --latency-ms 0 --repeat 3"),
    ("lateness", ""),
    ("memory", ""),
    ("window", ""),
    ("many", ""),
    ("watch", ""),
    ("startup", ""),
)
# For a look: the figures are noisier, and fixed costs weigh more.
QUICK = (
    ("throughput", "--spool typical,tiny --latency-ms 0,1 --repeat 3"),
    (
        "throughput",
        "--spool typical,tiny --batches 200 --latency-ms 20 --repeat 1 --contenders floor,thread,inline",
    ),
    ("throughput", "--spool big,huge --latency-ms 0 --repeat 1"),
    ("lateness", "--repeat 2"),
    ("memory", "--counts 1000,20000 --repeat 1"),
    ("window", "--repeat 1"),
    ("many", "--spools 40 --batches 20"),
    ("watch", "--idle-seconds 10 --hours 24"),
    ("startup", "--repeat 3"),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--quick", action="store_true", help="fewer runs and batches, for a look")
    parser.add_argument(
        "--only",
        type=options.words,
        default=[],
        metavar="COMMANDS",
        help="some of the commands, with commas (default: all)",
    )


def run(session: Session) -> None:
    """Run the plan; each command shows its own tables."""
    asked = session.options
    plan = QUICK if asked.quick else FULL
    known = list(dict(plan))
    only = options.choose(asked.only or known, known, "command")
    for command, arguments in plan:
        if command in only:
            session.show(f"\n== {command} {arguments}".rstrip())
            session.options = cli.build_parser(command).parse_args(arguments.split())
            cli.module(command).run(session)
    session.options = asked
