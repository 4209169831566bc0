"""The parser of each program, and the parsed arguments.

It imports only the standard library, for the build of a wheel and a fast ``--help``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from cirron_spool import __version__
from cirron_spool.cli.arguments.auth import add_auth
from cirron_spool.cli.arguments.completion import add_completion
from cirron_spool.cli.arguments.config import add_config
from cirron_spool.cli.arguments.examples import add_examples
from cirron_spool.cli.arguments.flush import add_flush
from cirron_spool.cli.arguments.options import EXIT_CODES
from cirron_spool.cli.arguments.parser import Parser, did_you_mean, listed, usage_error
from cirron_spool.cli.arguments.quarantine import add_quarantine
from cirron_spool.cli.arguments.receipts import add_receipts
from cirron_spool.cli.arguments.receive import add_receive
from cirron_spool.cli.arguments.spool import add_clear, add_inspect
from cirron_spool.cli.arguments.status import add_status
from cirron_spool.cli.arguments.traces import add_traces

# The commands of ``cirron`` that this package implements.
OWN_WORDS = ("spool", "traces", "auth", "status", "config")
_OTHER_WORDS = (
    "Any other command (such as deploy) is handed over, with all its options, to the next cirron on PATH."
)


def build_parser(prog: str = "cirron-spool") -> Parser:
    """The parser of ``cirron-spool``, or of ``cirron`` with the commands below ``cirron spool``."""
    parser = Parser(
        prog=prog,
        description="Show, upload and empty the spool that the Cirron Python SDK writes while a run is profiled.",
        epilog=EXIT_CODES,
    )
    if prog == "cirron":
        spool = parser.add_command(
            "spool", help="manage the local spool", description=parser.description, epilog=EXIT_CODES
        )
        _add_commands(spool, receive=False)
        parser.epilog = f"{_OTHER_WORDS} {EXIT_CODES}"
    else:
        _add_commands(parser, receive=True)
    # Beside the spool, in both programs.
    add_traces(parser)
    add_auth(parser)
    add_status(parser)
    add_config(parser)
    if prog == "cirron-spool":
        add_completion(parser)
    add_examples(parser)
    _add_version(parser, shown=True)
    return parser


def _add_version(parser: Parser, *, shown: bool) -> None:
    """Add ``--version`` to a parser and to all parsers below it."""
    parser.add_argument(
        "-V",
        "--version",
        action="version",
        version=f"cirron-spool {__version__}",
        help="show the version and exit" if shown else argparse.SUPPRESS,
    )
    for name, command in parser.commands.items():
        _add_version(command, shown=name == "spool")


def _add_commands(group: Parser, *, receive: bool) -> None:
    add_inspect(group)
    add_flush(group)
    add_clear(group)
    add_quarantine(group)
    add_receipts(group)
    if receive:
        add_receive(group)


def parse(prog: str, arguments: Sequence[str], whereabouts: Callable[[], str] = str) -> argparse.Namespace:
    """The parsed arguments. ``run`` is the command, or ``help`` with its ``text``, or ``version``. Raises UsageError.

    ``whereabouts`` is the last line of the help of ``cirron``. ``--help`` and ``--version`` behind a command
    print, and raise SystemExit(0).
    """
    parser = build_parser(prog)
    rest = list(arguments)
    wants_help = False
    while parser.commands and rest:
        word = rest.pop(0)
        if word in parser.commands:
            parser = parser.commands[word]
        elif word in ("help", "-h", "--help"):
            wants_help = True
        elif word in parser.options:
            return argparse.Namespace(run="version", prog=parser.prog)
        elif word != "--":
            raise parser.unknown_command(word, rest)
    if wants_help or parser.commands or rest == ["help"]:
        text = parser.format_help().rstrip()
        if parser.prog == "cirron":
            text = f"{text}\n{whereabouts()}"
        if wants_help or rest:
            return argparse.Namespace(run="help", text=text)
        raise usage_error(parser, f"No command was given. There are: {listed(list(parser.commands))}.", text)
    return parser.read(rest)


def suggestion(words: Sequence[str]) -> str:
    """Suggest a command for the unknown ``cirron WORDS…``: a sentence, or empty."""
    spool = build_parser("cirron").commands["spool"]
    below = did_you_mean(words[0], spool.commands, f"{spool.prog} ")
    return below or did_you_mean(words[0], OWN_WORDS, "cirron ")
