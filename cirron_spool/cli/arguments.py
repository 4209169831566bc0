"""The arguments of every command, without side effects: the man pages are built from this parser.

Only the standard library is imported, so that a wheel can be built and ``--help`` shown without anything else.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cirron_spool import __version__
from cirron_spool.cli.parser import Parser, did_you_mean, listed, usage_error
from cirron_spool.cli.values import Whole, size_value, time_value

if TYPE_CHECKING:
    # The result of add_subparsers() has no public type.
    _Commands = argparse._SubParsersAction["Parser"]  # noqa: SLF001  # no public name


_EPILOG = (
    "exit codes: 0 nothing is left to do; 1 batches are left and a person must look; 2 wrong usage or an unusable "
    "configuration; 3 not authenticated; 4 temporary, run it again later; 129, 130 and 143 ended by SIGHUP, SIGINT and "
    "SIGTERM."
)


_OTHER_WORDS = (
    "Any other command (auth, status, config, traces) is handed over, with all its options, to the next cirron on "
    "PATH."
)


def build_parser(prog: str = "cirron-spool") -> Parser:
    """The parser of ``cirron-spool``, or of ``cirron``, whose commands stand below ``cirron spool``."""
    parser = Parser(
        prog=prog,
        description="Show, upload and empty the spool that the Cirron Python SDK writes while a run is profiled.",
        epilog=_EPILOG,
    )
    _add_version(parser)
    if prog == "cirron":
        spool = _group(parser).add_parser(
            "spool", help="manage the local spool", description=parser.description, epilog=_EPILOG
        )
        _add_version(spool)
        _add_commands(_group(spool), receive=False)
        parser.epilog = f"{_OTHER_WORDS} {_EPILOG}"
    else:
        _add_commands(_group(parser), receive=True)
    return parser


def _add_version(parser: Parser) -> None:
    parser.add_argument(
        "-V",
        "--version",
        action="version",
        version=f"cirron-spool {__version__}",
        help="show the version and exit",
    )


def _group(parser: Parser, dest: str = "command", metavar: str = "COMMAND") -> _Commands:
    """Make ``parser`` a group, to which commands can be added."""
    commands = parser.add_subparsers(dest=dest, metavar=metavar, required=True, parser_class=Parser)
    parser.commands = commands.choices
    return commands


def _add_commands(commands: _Commands, *, receive: bool) -> None:
    _add_inspect(commands)
    _add_flush(commands)
    _add_clear(commands)
    _add_quarantine(commands)
    if receive:
        _add_receive(commands)


def _add_inspect(commands: _Commands) -> None:
    parser = commands.add_parser(
        "inspect",
        help="list spool files with sizes and timestamps",
        description="List the batches in the spool, oldest first, without reading them. Works offline.",
    )
    _add_dir(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(run="inspect")


def _add_flush(commands: _Commands) -> None:
    parser = commands.add_parser(
        "flush",
        help="upload buffered batches to the platform",
        description=(
            "Upload every batch, oldest first, and delete each one after its own acknowledgement. A batch that cannot "
            "be delivered ends the flush and stays; running it again goes on where it ended."
        ),
        epilog=_EPILOG,
    )
    _add_dir(parser)
    server = parser.add_argument_group("server and credentials")
    server.add_argument(
        "--api-url",
        metavar="URL",
        example="https://api.cirron.com",
        help="the platform's API (default: CIRRON_API_ENDPOINT or apiUrl)",
    )
    server.add_argument(
        "--token-file",
        metavar="FILE",
        example="token.txt",
        help="read the token from FILE, - for standard input (default: CIRRON_API_KEY)",
    )
    server.add_argument(
        "--timeout",
        metavar="TIME",
        read=time_value(1),
        example="30s",
        dest="timeout_ms",
        help="silence limit, such as 30s or 2m; a number alone is in ms (default: 30000)",
    )
    server.add_argument(
        "--retries",
        metavar="N",
        read=Whole(0, 100),
        example="3",
        help="attempts after the first, per batch (default: 3)",
    )
    server.add_argument(
        "--no-verify", action="store_false", dest="verify", help="do not verify the token before the flush"
    )
    server.add_argument(
        "--allow-http",
        action="store_true",
        default=None,
        help="send credentials over plain http (closed networks)",
    )
    failures = parser.add_argument_group("failures")
    failures.add_argument(
        "--quarantine", action="store_true", help="set rejected batches aside in .cirron/quarantine and go on"
    )
    failures.add_argument(
        "--keep-going", action="store_true", help="skip a batch whose retries are used up, and go on"
    )
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--in-flight",
        metavar="N",
        read=Whole(1, 64),
        example="8",
        default=1,
        help="batches uploaded at the same time; with more than 1, a newer one may arrive first (default: 1)",
    )
    speed.add_argument(
        "--prefetch",
        metavar="N",
        read=Whole(1),
        example="64",
        dest="prefetch_batches",
        help="batches held ready (default: 64)",
    )
    speed.add_argument(
        "--prefetch-bytes",
        metavar="SIZE",
        read=size_value(1),
        example="4M",
        help="compressed bytes held ready, such as 4M (default: 4194304)",
    )
    speed.add_argument(
        "--chunk-bytes",
        metavar="SIZE",
        read=size_value(1),
        example="256K",
        help="bytes read and compressed at a time (default: 262144)",
    )
    speed.add_argument(
        "--disk-work",
        metavar="PLACE",
        example="thread",
        help="inline reads and deletes small files in the event loop, thread all in a thread (default: inline)",
    )
    speed.add_argument(
        "--gzip-library",
        metavar="NAME",
        example="isal",
        help="auto, isal, zlib-ng or zlib (default: auto, the fastest installed)",
    )
    speed.add_argument(
        "--gzip-level",
        metavar="N",
        read=Whole(0),
        example="1",
        help="compression level (default: the library's fast one)",
    )
    output = parser.add_argument_group("output")
    forms = output.add_mutually_exclusive_group()  # as in _EXCLUSIVE
    forms.add_argument("--json", action="store_true", help="print one JSON object at the end")
    forms.add_argument(
        "--json-events", action="store_true", help="print one JSON object a line as things happen"
    )
    loudness = output.add_mutually_exclusive_group()
    loudness.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    loudness.add_argument(
        "--verbose", action="store_true", help="print a line to standard error for each event"
    )
    parser.set_defaults(run="flush")


def _add_clear(commands: _Commands) -> None:
    parser = commands.add_parser(
        "clear",
        help="delete local spool files",
        description="Delete every batch in the spool, after asking. Works offline.",
    )
    _add_dir(parser)
    parser.add_argument("--force", action="store_true", help="delete without asking")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run="clear")


def _add_quarantine(commands: _Commands) -> None:
    parser = commands.add_parser(
        "quarantine",
        help="handle batches that flush --quarantine set aside",
        description="Handle the batches that the platform rejected and that flush --quarantine set aside.",
    )
    actions = _group(parser, "action", "ACTION")
    list_parser = actions.add_parser("list", help="show them and why they were rejected")
    _add_dir(list_parser)
    list_parser.add_argument("--json", action="store_true", help="print one JSON object")
    retried = actions.add_parser("retry", help="move them back into the spool for the next flush")
    _add_dir(retried)
    retried.add_argument("--json", action="store_true", help="print one JSON object")
    retried.add_argument("names", nargs="*", metavar="NAME", help="only these batches (default: all)")
    cleared = actions.add_parser("clear", help="delete them, after asking")
    _add_dir(cleared)
    cleared.add_argument("--force", action="store_true", help="delete without asking")
    cleared.add_argument("--json", action="store_true", help="print one JSON object")
    cleared.add_argument("names", nargs="*", metavar="NAME", help="only these batches (default: all)")
    retried.takes_names = cleared.takes_names = True
    for name, action in actions.choices.items():
        action.set_defaults(run="quarantine", action=name)


def _add_receive(commands: _Commands) -> None:
    parser = commands.add_parser(
        "receive",
        help="run a small ingest server that stores what it receives",
        description=(
            "Receive batches as the platform does, acknowledge each once it is durable, and store it as the SDK wrote "
            "it. The store is itself a spool, which inspect and flush accept."
        ),
    )
    parser.add_argument(
        "--store", metavar="DIR", example="received", required=True, help="where to store the batches"
    )
    parser.add_argument(
        "--host",
        example="127.0.0.1",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine)",
    )
    parser.add_argument(
        "--port",
        metavar="N",
        read=Whole(0, 65535),
        example="8787",
        default=8787,
        help="port, 0 for any free one (default: 8787)",
    )
    parser.add_argument(
        "--token",
        example="sk-try-it",
        help="accept only this token (default: CIRRON_RECEIVE_TOKEN, or any token)",
    )
    parser.add_argument(
        "--max-bytes",
        metavar="SIZE",
        read=size_value(1),
        example="512M",
        help="largest batch, compressed or not",
    )
    parser.add_argument(
        "--latency-ms",
        metavar="TIME",
        read=time_value(0),
        example="20",
        default=0,
        help="delay of each answer; a number alone is in ms",
    )
    parser.add_argument(
        "--bandwidth",
        metavar="SIZE",
        read=size_value(1, suffix="/s"),
        example="1M",
        help="bytes of request bodies read in a second, such as 1M (default: no limit)",
    )
    parser.add_argument("--verbose", action="store_true", help="print a line for each batch")
    parser.set_defaults(run="receive")


def _add_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dir",
        metavar="PATH",
        example="runs/42/.cirron/spool",
        help="the spool directory (default: $CIRRON_OUTPUT_DIR/spool or ./.cirron/spool)",
    )


def parse(prog: str, arguments: Sequence[str], whereabouts: Callable[[], str] = str) -> argparse.Namespace:
    """The parsed arguments. ``run`` is the command, or ``help`` with its ``text``, or ``version``. Raises UsageError.

    ``whereabouts`` is the last line of the help of ``cirron``. ``--help`` behind a command prints, and raises
    SystemExit(0).
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
    return below or did_you_mean(words[0], ["spool"], "cirron ")
