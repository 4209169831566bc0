"""argparse with errors in plain words: one line that names the next step."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

from cirron_spool.cli.arguments.values import Reader

# Groups of options that exclude each other.
_EXCLUSIVE = (("--json", "--json-events"), ("--quiet", "--verbose"))
# The start of a long-lived token. Errors do not show an argument with it.
LONG_LIVED = "sk-"
NOT_AN_ARGUMENT = (
    "A token does not belong on the command line, where other users can read it. "
    "Give it on standard input: cirron auth login --with-token < token.txt."
)
# Longer arguments are cut in an error line.
_SHOWN_CHARS = 60


class UsageError(Exception):
    """The arguments are wrong; the message is one line that names the next step. ``help`` is a help text to show."""

    def __init__(self, message: str, help: str = "") -> None:  # noqa: A002  # argparse's word for it
        super().__init__(message)
        self.help = help


def usage_error(parser: argparse.ArgumentParser, message: str, help: str = "") -> UsageError:  # noqa: A002  # as above
    """The error with ``message`` and the command that shows the help. ``help`` is a text to show."""
    return UsageError(f"{message} See {parser.prog} --help.", help)


class Example(NamedTuple):
    """A command line, and its purpose in a few words."""

    command: str
    purpose: str


class Value(argparse.Action):
    """An option with one value.

    It is given at most once, or collects its values in the list ``several``. ``example`` is a valid value for error
    messages. ``place`` is the kind of path for completions, ``words`` are words for completions.
    ``takes_dash``: the file ``-`` is a standard stream.
    """

    def __init__(
        self,
        option_strings: Sequence[str],
        dest: str,
        *,
        read: Reader | None = None,
        example: str = "",
        place: Literal["", "file", "directory"] = "",
        words: Sequence[str] = (),
        several: str = "",
        takes_dash: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(option_strings, dest, **more)
        self.several = several
        self.read = read
        self.example = example
        self.place = place
        self.takes_dash = takes_dash
        self.words = words or getattr(read, "words", ())

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep the value. Raises UsageError."""
        if option_string is not None and not self.several:
            given = namespace.__dict__.setdefault("given", set())
            if self.dest in given:
                raise usage_error(parser, f"{option_string} was given twice. Give it once.")
            given.add(self.dest)
        if self.place and values == "":  # an unset variable in a script
            name = option_string or str(self.metavar)
            raise usage_error(parser, f"{name} needs the path of a {self.place}, and it is empty.")
        if self.place == "file" and values == "-" and not self.takes_dash:
            name = option_string or str(self.metavar)
            raise usage_error(parser, f"{name} needs the path of a file. For a file named -, give ./-.")
        value = values
        if self.read is not None and values is not None:
            try:
                value = self.read(values)
            except ValueError:
                name = option_string or str(self.metavar)
                before = option_string or parser.prog
                raise usage_error(
                    parser,
                    f"{name} needs {self.read.wants}, for example {before} {self.example}. "
                    f"It cannot be {_shown(values)}.",
                ) from None
        if self.several:
            setattr(namespace, self.several, [*getattr(namespace, self.several), value])
        if self.several != self.dest:
            setattr(namespace, self.dest, value)


class Parser(argparse.ArgumentParser):
    """A command with its options, or a group of ``commands``.

    ``takes_names``: options may stand between its names. ``hides_arguments``: an unexpected argument may be a token.
    ``examples`` stand at the end of the help and in the man page.
    ``summary`` is the line in the help of the group.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(**{**more, "allow_abbrev": False, "exit_on_error": False})
        self.register("action", None, Value)
        self.register("action", "store", Value)
        self._add_command: Callable[..., Parser] | None = None
        self.commands: dict[str, Parser] = {}
        self.takes_names = False
        self.hides_arguments = False
        self.examples: tuple[Example, ...] = ()
        self.summary = ""

    def make_group(self, dest: str = "command", metavar: str = "COMMAND") -> Callable[..., Parser]:
        """Make this parser a group. The name of the chosen command becomes the attribute ``dest``."""
        below = self.add_subparsers(
            title="commands", dest=dest, metavar=metavar, required=True, parser_class=Parser
        )
        self._add_command, self.commands = below.add_parser, below.choices
        return self._add_command

    def add_command(self, name: str, *, help: str, **more: Any) -> Parser:  # noqa: A002  # argparse's word for it
        """Add a command to this group, and return its parser. ``help`` is its line in the group's help."""
        add = self._add_command or self.make_group()
        command = add(name, help=help, **more)
        command.summary = help
        return command

    def format_help(self) -> str:
        """The help, with the examples at its end."""
        shown = super().format_help()
        if not self.examples:
            return shown
        lines = [f"  {command}\n      {purpose}" for command, purpose in self.examples]
        return "\n".join([shown, "examples:", *lines, ""])

    def error(self, message: str) -> NoReturn:
        """Raise ArgumentError. Before Python 3.13, argparse calls this despite ``exit_on_error``."""
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
        """The options by their names. argparse has no documented way to list them."""
        return self._option_string_actions

    @property
    def values(self) -> list[Value]:
        """The options and positional arguments with a value. argparse has no documented way to list them."""
        return [action for action in self._actions if isinstance(action, Value)]

    def _explain(self, error: argparse.ArgumentError, arguments: Sequence[str]) -> UsageError:
        """The error as a sentence, made from the kind of the option, not from argparse's text."""
        names = (error.argument_name or "").split("/")
        typed = [each.partition("=")[0] for each in arguments]
        name = max([each for each in names if each in typed and each.startswith("--")] or names, key=len)
        action = self.options.get(name)
        if action is None:  # an option is missing, or its name is mistyped
            for argument in arguments:
                if argument.startswith("-") and argument.partition("=")[0] not in self.options:
                    return self._unknown(argument)
            needed = [_requirement(name, action) for name, action in self.options.items() if action.required]
            return usage_error(self, f"{self.prog} needs {' and '.join(needed)}." if needed else f"{error}.")
        if isinstance(action, Value):
            return usage_error(
                self,
                f"{name} needs a value, as in {_with_value(name, action)}. "
                f"A value that begins with a dash is joined to it: {name}=-x.",
            )
        given = self._flags_in(arguments)
        for pair in _EXCLUSIVE:
            if set(pair) <= given:
                return usage_error(self, f"{pair[0]} and {pair[1]} exclude each other. Choose one.")
        return usage_error(self, f"{name} takes no value.")

    def _flags_in(self, arguments: Sequence[str]) -> set[str]:
        """All names of the flags in ``arguments``; ``-qv`` is two."""
        flags: set[str] = set()
        for argument in arguments:
            shorts = [f"-{letter}" for letter in argument[1:]] if argument[:1] == "-" != argument[1:2] else ()
            for flag in (argument, *shorts):
                if flag in self.options:
                    flags.update(self.options[flag].option_strings)
        return flags

    def _unknown(self, argument: str) -> UsageError:
        if argument.startswith("-"):
            name = argument.partition("=")[0]
            return usage_error(self, f"There is no option {_shown(name)}.{did_you_mean(name, self.options)}")
        if self.hides_arguments or argument.startswith(LONG_LIVED):
            return usage_error(self, NOT_AN_ARGUMENT)
        place = next((option for option in ("--dir", "--store") if option in self.options), None)
        advice = (
            f" For a directory, use {place} DIR: {place} {_quoted(argument)}." if place is not None else ""
        )
        return usage_error(self, f"Unexpected argument {_shown(argument)}.{advice}")

    def _below(self) -> Iterator[Parser]:
        for parser in self.commands.values():
            yield parser
            yield from parser._below()  # noqa: SLF001  # of the same class

    def unknown_command(self, word: str, rest: Sequence[str]) -> UsageError:
        """The error for an unknown command ``word`` of this group, with the ``rest`` of the arguments."""
        if word.startswith("-"):
            option = word.partition("=")[0]
            below = next((parser for parser in self._below() if option in parser.options), None)
            if below is not None:
                shown = _with_value(option, below.options[option])
                return usage_error(self, f"{option} goes after the command, as in {below.prog} {shown}.")
            return self._unknown(word)
        names = list(self.commands)
        meant = did_you_mean(word, [*self.options, "help", *names]) or did_you_mean(" ".join(rest[:1]), names)
        return usage_error(
            self, f"There is no command {_shown(word)}.{meant or f' There are: {listed(names)}.'}"
        )


def _shown(text: str) -> str:
    return f"'{text[:_SHOWN_CHARS]}…'" if len(text) > _SHOWN_CHARS else f"'{text}'"


def _quoted(text: str) -> str:
    from shlex import quote  # late import: only for errors

    return quote(text)


def _with_value(name: str, action: argparse.Action) -> str:
    return f"{name} {getattr(action, 'example', '') or action.metavar or ''}".rstrip()


def _requirement(name: str, action: argparse.Action) -> str:
    """A missing option: the values that it takes, and an example."""
    read = getattr(action, "read", None)
    wants = f" ({read.wants})" if read is not None else ""
    return f"{name}{wants}, for example {_with_value(name, action)}"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def did_you_mean(word: str, names: Iterable[str], before: str = "") -> str:
    """A question with the closest of ``names``, or empty.

    Leading dashes are ignored. A single name with the prefix ``word`` is the closest.
    """
    from difflib import get_close_matches  # late import: only for errors

    bare = {name.lstrip("-"): name for name in names}
    typed = word.lower().lstrip("-")
    close = [name for name in bare if typed and name.startswith(typed)]
    if len(close) != 1:
        close = get_close_matches(typed, bare, n=1)
    return f" Did you mean {before}{bare[close[0]]}?" if close else ""
