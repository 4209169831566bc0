"""The arguments, without side effects: the man pages are built from this parser.

Only the standard library is imported here, so that a wheel can be built, and ``--help`` shown, without anything else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from cirron_spool import __version__

_EPILOG = (
    "exit codes: 0 nothing is left to do; 1 batches are left and a person must look; 2 wrong usage or an unusable "
    "configuration; 3 not authenticated; 4 temporary, run it again later; 130 and 143 ended by SIGINT and SIGTERM."
)


_COMMANDS = {
    "cirron": "cirron spool inspect, flush, clear and quarantine",
    "cirron-spool": "inspect, flush, clear, quarantine and receive",
}


class UsageError(Exception):
    """The arguments are wrong; the message is one line that says what to do."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line each and leave the exit to the caller."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message}. See {self.prog} --help.")


def build_parser(prog: str = "cirron-spool") -> argparse.ArgumentParser:
    """The parser of ``cirron-spool``, or of ``cirron``, whose commands stand below ``cirron spool``."""
    parser = Parser(
        prog=prog,
        description="Show, upload and empty the spool that the Cirron Python SDK writes while a run is profiled.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cirron-spool {__version__}")
    if prog == "cirron":
        groups = _subparsers(parser)
        spool = groups.add_parser(
            "spool",
            help="manage the local spool",
            description=parser.description,
            epilog=_EPILOG,
            allow_abbrev=False,
        )
        _add_commands(_subparsers(spool), receive=False)
    else:
        _add_commands(_subparsers(parser), receive=True)
    return parser


def _subparsers(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    return parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)


def _add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], *, receive: bool) -> None:
    _add_inspect(commands)
    _add_flush(commands)
    _add_clear(commands)
    _add_quarantine(commands)
    if receive:
        _add_receive(commands)


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "inspect",
        help="list spool files with sizes and timestamps",
        description="List the batches in the spool, oldest first, without reading them. Works offline.",
        allow_abbrev=False,
    )
    _add_dir(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(run="inspect")


def _add_flush(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "flush",
        help="upload buffered batches to the platform",
        description=(
            "Upload every batch, oldest first, and delete each one after its own acknowledgement. A batch that cannot "
            "be delivered ends the flush and stays; running it again goes on where it ended."
        ),
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    _add_dir(parser)
    server = parser.add_argument_group("server and credentials")
    server.add_argument(
        "--api-url", metavar="URL", help="the platform's API (default: CIRRON_API_ENDPOINT or apiUrl)"
    )
    server.add_argument(
        "--token-file",
        metavar="FILE",
        help="read the token from FILE, - for standard input (default: CIRRON_API_KEY)",
    )
    server.add_argument(
        "--timeout",
        metavar="MS",
        type=_whole(1),
        dest="timeout_ms",
        help="silence limit in ms (default: 30000)",
    )
    server.add_argument(
        "--retries", metavar="N", type=_whole(0), help="attempts after the first, per batch (default: 3)"
    )
    server.add_argument(
        "--no-verify", action="store_false", dest="verify", help="do not ask first whether the token is valid"
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
    failures.add_argument("--keep-going", action="store_true", help="pass by a batch that is out of retries")
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--in-flight",
        metavar="N",
        type=_whole(1),
        default=1,
        help="batches posted at a time (default: 1, strict order; with more a newer one may arrive before an older)",
    )
    speed.add_argument(
        "--prefetch",
        metavar="N",
        type=_whole(1),
        dest="prefetch_batches",
        help="batches held ready (default: 64)",
    )
    speed.add_argument(
        "--prefetch-bytes",
        metavar="BYTES",
        type=_whole(1),
        help="compressed bytes held ready (default: 4194304)",
    )
    speed.add_argument(
        "--chunk-bytes",
        metavar="BYTES",
        type=_whole(1),
        help="read and compress so much at a time (default: 262144)",
    )
    speed.add_argument(
        "--in-loop-bytes",
        metavar="BYTES",
        type=_whole(0),
        help="files up to this need no thread while the disk is quick; 0: all need one (default: 32768)",
    )
    speed.add_argument(
        "--gzip-library",
        metavar="NAME",
        help="auto, isal, zlib-ng or zlib (default: auto, the fastest installed)",
    )
    speed.add_argument(
        "--gzip-level",
        metavar="N",
        type=_whole(0),
        help="compression level (default: the library's fast one)",
    )
    output = parser.add_argument_group("output")
    forms = output.add_mutually_exclusive_group()
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


def _add_clear(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "clear",
        help="delete local spool files",
        description="Delete every batch in the spool, after asking. Works offline.",
        allow_abbrev=False,
    )
    _add_dir(parser)
    parser.add_argument("--force", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run="clear")


def _add_quarantine(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "quarantine",
        help="handle batches that flush --quarantine set aside",
        description="Handle the batches that the platform rejected and that flush --quarantine set aside.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    listed = actions.add_parser("list", help="show them and why they were rejected", allow_abbrev=False)
    _add_dir(listed)
    listed.add_argument("--json", action="store_true", help="print one JSON object")
    retried = actions.add_parser(
        "retry", help="move them back into the spool for the next flush", allow_abbrev=False
    )
    _add_dir(retried)
    retried.add_argument("names", nargs="*", metavar="NAME", help="only these batches (default: all)")
    cleared = actions.add_parser("clear", help="delete them, after asking", allow_abbrev=False)
    _add_dir(cleared)
    cleared.add_argument("--force", action="store_true", help="do not ask")
    cleared.add_argument("names", nargs="*", metavar="NAME", help="only these batches (default: all)")
    parser.set_defaults(run="quarantine")


def _add_receive(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "receive",
        help="run a small ingest server that stores what it receives",
        description=(
            "Receive batches as the platform does, acknowledge each once it is durable, and store it as the SDK wrote "
            "it. The store is itself a spool, which inspect and flush accept."
        ),
        allow_abbrev=False,
    )
    parser.add_argument("--store", metavar="DIR", required=True, help="where to store the batches")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)"
    )
    parser.add_argument(
        "--port",
        metavar="N",
        type=_whole(0, 65535),
        default=8787,
        help="port, 0 for any free one (default: 8787)",
    )
    parser.add_argument(
        "--token", help="accept only this token (default: CIRRON_RECEIVE_TOKEN, or any token)"
    )
    parser.add_argument(
        "--max-bytes", metavar="BYTES", type=_whole(1), default=None, help="largest batch, compressed or not"
    )
    parser.add_argument(
        "--latency-ms", metavar="MS", type=_whole(0), default=0, help="delay each answer by so much"
    )
    parser.add_argument(
        "--bandwidth",
        metavar="BYTES",
        type=_whole(1),
        default=None,
        help="read request bodies no faster than this a second",
    )
    parser.add_argument("--verbose", action="store_true", help="print a line for each batch")
    parser.set_defaults(run="receive")


def _add_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dir",
        metavar="PATH",
        help="the spool directory (default: $CIRRON_OUTPUT_DIR/spool or ./.cirron/spool)",
    )


class _whole:  # noqa: N801  # argparse names the type in its error: "invalid whole number value"
    """A whole number within bounds, as an argparse type."""

    def __init__(self, least: int, most: int = 2**63) -> None:
        self._least = least
        self._most = most
        self.__name__ = (
            f"whole number (from {least})" if most == 2**63 else f"whole number (from {least} to {most})"
        )

    def __call__(self, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 19):
            raise ValueError(text)
        number = int(text)
        if not self._least <= number <= self._most:
            raise ValueError(text)
        return number


def parse(prog: str, arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed arguments. Raises UsageError; ``--help`` and ``--version`` print and raise SystemExit(0)."""
    if not arguments or list(arguments) == ["spool"]:
        raise UsageError(f"No command was given. There are: {_COMMANDS[prog]}. See {prog} --help.")
    return build_parser(prog).parse_args(arguments)
