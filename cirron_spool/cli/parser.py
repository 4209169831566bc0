"""The arguments, without side effects: the man pages are built from this parser.

Only the standard library is imported here, so that a wheel can be built, and ``--help`` shown, without anything else.
argparse reads the options and writes the help. Every error is in words of this module's own.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from cirron_spool import __version__

if TYPE_CHECKING:
    # What add_subparsers() returns has no public type.
    _Commands = argparse._SubParsersAction["Parser"]  # noqa: SLF001

_EPILOG = (
    "exit codes: 0 nothing is left to do; 1 batches are left and a person must look; 2 wrong usage or an unusable "
    "configuration; 3 not authenticated; 4 temporary, run it again later; 129, 130 and 143 ended by SIGHUP, SIGINT and "
    "SIGTERM."
)
_OTHER_WORDS = (
    "Any other command (auth, status, config, traces) is handed over, with all its options, to the next cirron on "
    "PATH."
)

# Options of which a command takes one at most.
_EXCLUSIVE = (("--json", "--json-events"), ("--quiet", "--verbose"))
# Longer texts of a person are cut in an error line.
_SHOWN_CHARS = 60


class UsageError(Exception):
    """The arguments are wrong; the message is one line that says what to do. ``help`` is a help text to show."""

    def __init__(self, message: str, help: str = "") -> None:  # noqa: A002  # argparse's word for it
        super().__init__(message)
        self.help = help


class Reader(Protocol):
    """Makes a value of an option's text; raises ValueError for a text that is none. ``wants`` says what is right."""

    wants: str

    def __call__(self, text: str) -> object:
        """The value."""


class Whole:
    """Reads a whole number within bounds."""

    def __init__(self, least: int, most: int = 2**63) -> None:
        self._least = least
        self._most = most
        self.wants = "a whole number " + (
            f"of {least} or more" if most == 2**63 else f"from {least} to {most}"
        )

    def __call__(self, text: str) -> int:
        """The number."""
        if re.fullmatch("[0-9]{1,19}", text) is None or not self._least <= int(text) <= self._most:
            raise ValueError(text)
        return int(text)


class Measure:
    """Reads a number with one of ``units``, down to the whole; a number alone is in the first unit."""

    def __init__(
        self, units: Mapping[str, int], wants: str, *, least: int, most: int = 2**63, suffix: str = ""
    ) -> None:
        self._units = units
        self._least = least
        self._most = most
        self._suffix = suffix
        self.wants = wants

    def __call__(self, text: str) -> int:
        """The measure in the smallest unit."""
        found = re.fullmatch(
            r"([0-9]{1,19})(?:\.([0-9]{1,9}))? ?([A-Za-z]*)", text.removesuffix(self._suffix)
        )
        if found is None:
            raise ValueError(text)
        whole, fraction, unit = found[1], found[2] or "", found[3]
        if unit not in self._units or (fraction and not unit):
            raise ValueError(text)
        measure = int(whole + fraction) * self._units[unit]
        for _ in fraction:
            measure //= 10
        if not self._least <= measure <= self._most:
            raise ValueError(text)
        return measure


_TIMES = {"": 1, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
# As sizes are shown: 1024-based. "Mb" is left out: it may mean bits.
_SIZES = {"": 1, "B": 1} | {
    prefix + unit: 1024**power
    for power, letter in enumerate("kmgt", start=1)
    for prefix, units in ((letter, ("", "B", "iB", "b", "ib")), (letter.upper(), ("", "B", "iB")))
    for unit in units
}


def _time(least: int) -> Measure:
    wants = f"a time from {least}ms to 24h, with a unit (ms, s, m or h; milliseconds without one)"
    return Measure(_TIMES, wants, least=least, most=24 * _TIMES["h"])


def _size(least: int, suffix: str = "") -> Measure:
    wants = f"a size of {least} or more, with a unit (K, M or G; bytes without one)"
    return Measure(_SIZES, wants, least=least, suffix=suffix)


def _wrong(parser: argparse.ArgumentParser, message: str, help: str = "") -> UsageError:  # noqa: A002  # as above
    return UsageError(f"{message} See {parser.prog} --help.", help)


class Value(argparse.Action):
    """An option with one value, which is given once at most. ``example`` is a right value, for an error's line."""

    def __init__(
        self,
        option_strings: Sequence[str],
        dest: str,
        *,
        read: Reader | None = None,
        example: str = "",
        **more: Any,
    ) -> None:
        super().__init__(option_strings, dest, **more)
        self.read = read
        self.example = example

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep the value. Raises UsageError."""
        if option_string is not None:
            given = namespace.__dict__.setdefault("given", set())
            if self.dest in given:
                raise _wrong(parser, f"{option_string} was given twice. Give it once.")
            given.add(self.dest)
        value = values
        if self.read is not None:
            try:
                value = self.read(values)
            except ValueError:
                raise _wrong(
                    parser,
                    f"{option_string} needs {self.read.wants}, for example {option_string} {self.example}. "
                    f"It cannot be {_shown(values)}.",
                ) from None
        setattr(namespace, self.dest, value)


class Parser(argparse.ArgumentParser):
    """A command with its options, or a group of ``commands``. ``takes_names``: options may stand between its names."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**{**more, "allow_abbrev": False, "exit_on_error": False})
        self.register("action", None, Value)
        self.register("action", "store", Value)
        self.commands: dict[str, Parser] = {}
        self.takes_names = False

    def error(self, message: str) -> NoReturn:
        """Raise ArgumentError: before Python 3.13 argparse comes here in spite of ``exit_on_error``."""
        raise argparse.ArgumentError(None, message)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options of one command, which has no commands below it. Raises UsageError."""
        try:
            options, surplus = (
                self.parse_known_intermixed_args(arguments)
                if self.takes_names
                else self.parse_known_args(arguments)
            )
        except argparse.ArgumentError as error:
            raise self._explain(error, arguments) from None
        for argument in surplus:
            if argument != "--":
                raise self._unknown(argument)
        return options

    @property
    def options(self) -> dict[str, argparse.Action]:
        """The options by their names. argparse has no documented way to ask for them."""
        return self._option_string_actions

    def _explain(self, error: argparse.ArgumentError, arguments: Sequence[str]) -> UsageError:
        """The error in plain words. Which error it is follows from the option's kind, not from its text."""
        name = (error.argument_name or "").partition("/")[0]
        action = self.options.get(name)
        if action is None:  # an option is missing, perhaps since its name was mistyped
            for argument in arguments:
                if argument.startswith("-") and argument.partition("=")[0] not in self.options:
                    return self._unknown(argument)
            needed = [_with_value(name, action) for name, action in self.options.items() if action.required]
            return _wrong(self, f"{self.prog} needs {' and '.join(needed)}." if needed else f"{error}.")
        if isinstance(action, Value):
            return _wrong(
                self,
                f"{name} needs a value, as in {_with_value(name, action)}. "
                f"A value that begins with a dash is joined to it: {name}=-x.",
            )
        for pair in _EXCLUSIVE:
            if set(pair) <= set(arguments):
                return _wrong(self, f"{pair[0]} and {pair[1]} exclude each other. Choose one.")
        return _wrong(self, f"{name} takes no value.")

    def _unknown(self, argument: str) -> UsageError:
        if argument.startswith("-"):
            name = argument.partition("=")[0]
            return _wrong(self, f"There is no option {_shown(name)}.{_did_you_mean(name, self.options)}")
        place = next((option for option in ("--dir", "--store") if option in self.options), None)
        advice = (
            f" For a directory, use {place} DIR: {place} {_quoted(argument)}." if place is not None else ""
        )
        return _wrong(self, f"Unexpected argument {_shown(argument)}.{advice}")

    def _below(self) -> Iterator[Parser]:
        for parser in self.commands.values():
            yield parser
            yield from parser._below()  # noqa: SLF001  # of the same class

    def unknown_command(self, word: str, rest: Sequence[str]) -> UsageError:
        """The error for a ``word`` that is no command of this group; ``rest`` follows it."""
        if word.startswith("-"):
            option = word.partition("=")[0]
            below = next((parser for parser in self._below() if option in parser.options), None)
            if below is not None:
                shown = _with_value(option, below.options[option])
                return _wrong(self, f"{option} stands behind the command, as in {below.prog} {shown}.")
            return self._unknown(word)
        names = list(self.commands)
        meant = _did_you_mean(word, [*self.options, "help", *names]) or _did_you_mean(
            " ".join(rest[:1]), names
        )
        return _wrong(self, f"There is no command {_shown(word)}.{meant or f' There are: {_listed(names)}.'}")


def _shown(text: str) -> str:
    return f"'{text[:_SHOWN_CHARS]}…'" if len(text) > _SHOWN_CHARS else f"'{text}'"


def _quoted(text: str) -> str:
    from shlex import quote  # only for those who mistyped

    return quote(text)


def _with_value(name: str, action: argparse.Action) -> str:
    return f"{name} {getattr(action, 'example', '') or action.metavar or ''}".rstrip()


def _listed(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _did_you_mean(word: str, names: Iterable[str], before: str = "") -> str:
    """A question, or nothing. Dashes are no likeness: every option has them."""
    from difflib import get_close_matches  # only for those who mistyped

    bare = {name.lstrip("-"): name for name in names}
    close = get_close_matches(word.lower().lstrip("-"), bare, n=1)
    return f" Did you mean {before}{bare[close[0]]}?" if close else ""


def build_parser(prog: str = "cirron-spool") -> Parser:
    """The parser of ``cirron-spool``, or of ``cirron``, whose commands stand below ``cirron spool``."""
    parser = Parser(
        prog=prog,
        description="Show, upload and empty the spool that the Cirron Python SDK writes while a run is profiled.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "-V",
        "--version",
        action="version",
        version=f"cirron-spool {__version__}",
        help="show the version and exit",
    )
    if prog == "cirron":
        spool = _group(parser).add_parser(
            "spool", help="manage the local spool", description=parser.description, epilog=_EPILOG
        )
        _add_commands(_group(spool), receive=False)
        parser.epilog = f"{_OTHER_WORDS} {_EPILOG}"
    else:
        _add_commands(_group(parser), receive=True)
    return parser


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
        read=_time(1),
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
        read=_size(1),
        example="4M",
        help="compressed bytes held ready, such as 4M (default: 4194304)",
    )
    speed.add_argument(
        "--chunk-bytes",
        metavar="SIZE",
        read=_size(1),
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
    listed = actions.add_parser("list", help="show them and why they were rejected")
    _add_dir(listed)
    listed.add_argument("--json", action="store_true", help="print one JSON object")
    retried = actions.add_parser("retry", help="move them back into the spool for the next flush")
    _add_dir(retried)
    retried.add_argument("names", nargs="*", metavar="NAME", help="only these batches (default: all)")
    cleared = actions.add_parser("clear", help="delete them, after asking")
    _add_dir(cleared)
    cleared.add_argument("--force", action="store_true", help="delete without asking")
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
        "--max-bytes", metavar="SIZE", read=_size(1), example="512M", help="largest batch, compressed or not"
    )
    parser.add_argument(
        "--latency-ms",
        metavar="TIME",
        read=_time(0),
        example="20",
        default=0,
        help="delay of each answer; a number alone is in ms",
    )
    parser.add_argument(
        "--bandwidth",
        metavar="SIZE",
        read=_size(1, suffix="/s"),
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
            return argparse.Namespace(run="version")
        elif word != "--":
            raise parser.unknown_command(word, rest)
    if wants_help or parser.commands or rest == ["help"]:
        text = parser.format_help().rstrip()
        if parser.prog == "cirron":
            text = f"{text}\n{whereabouts()}"
        if wants_help or rest:
            return argparse.Namespace(run="help", text=text)
        raise _wrong(parser, f"No command was given. There are: {_listed(list(parser.commands))}.", text)
    return parser.read(rest)


def suggestion(words: Sequence[str]) -> str:
    """What ``cirron WORDS…``, of which there is nothing, may have meant: a sentence, or nothing."""
    spool = build_parser("cirron").commands["spool"]
    below = _did_you_mean(words[0], spool.commands, f"{spool.prog} ")
    return below or _did_you_mean(words[0], ["spool"], "cirron ")
