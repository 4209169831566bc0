"""The generated pages of the documentation site: the commands from the parser, the library from its docstrings."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator

import cirron_spool
from cirron_spool.cli.arguments.build import build_parser
from cirron_spool.cli.arguments.manual import ENVIRONMENT, FILES
from cirron_spool.cli.arguments.parser import Parser

_COMMANDS = """# Command reference

Made from the parser of the command, as `--help` and the man pages are. [commands.md](../commands.md) shows the commands
by example. `cirron spool COMMAND` is the same as `cirron-spool COMMAND` for the commands of the spool.
"""

_LIBRARY = """# Library reference

Made from the docstrings. [library.md](../library.md) explains the library by example. Every name is imported from
`cirron_spool`, but for the integrations.
"""

# The chapter of the names that a module defines; all others are in the first one.
_CHAPTERS = {"": "Functions and classes", "events": "Results and events", "errors": "Errors"}
_INTEGRATIONS = ("lightning", "transformers")


def commands() -> str:
    """The page of all commands of `cirron-spool`, in Markdown."""
    parser = build_parser("cirron-spool")
    parts = [_COMMANDS, *_command(parser, 2)]
    parts += ["## Environment\n", *_terms(ENVIRONMENT.items()), "## Files\n", *_terms(FILES.items())]
    return "\n".join(parts)


def library() -> str:
    """The page of all public names, in Markdown with directives of autodoc."""
    names: dict[str, list[str]] = {chapter: [] for chapter in _CHAPTERS}
    for name in cirron_spool.__all__:
        home = getattr(getattr(cirron_spool, name), "__module__", "").removeprefix("cirron_spool.")
        if not name.startswith("__"):
            names[home if home in names else ""].append(name)
    parts = [_LIBRARY]
    for chapter, title in _CHAPTERS.items():
        module = f"```{{eval-rst}}\n.. py:module:: cirron_spool.{chapter}\n```\n" if chapter else ""
        parts += [f"## {title}\n", module, *(_directive(f"cirron_spool.{name}") for name in names[chapter])]
    parts += ["## Integrations\n"]
    parts += [
        _directive(f"cirron_spool.integrations.{name}.CirronSpoolCallback", is_class=True)
        for name in _INTEGRATIONS
    ]
    return "\n".join(parts)


def _directive(path: str, *, is_class: bool | None = None) -> str:
    """The directive of autodoc for a name of the package; ``is_class`` where the name cannot be imported here."""
    module, _, name = path.rpartition(".")
    if is_class is None:
        is_class = isinstance(getattr(cirron_spool, name), type)
    kind = (
        "autoclass"
        if is_class
        else "autofunction"
        if callable(getattr(cirron_spool, name, None))
        else "autodata"
    )
    members = "   :members:\n" if kind == "autoclass" else ""
    if name.endswith("Error"):
        members += "   :show-inheritance:\n"
    return f"```{{eval-rst}}\n.. {kind}:: {module}.{name}\n{members}```\n"


def _command(parser: Parser, level: int) -> Iterator[str]:
    """The chapter of a command, and those of the commands below it."""
    yield f"{'#' * level} {parser.prog}\n"
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    if parser.description:
        yield f"{_plain(parser.description)}\n"
    yield f"```text\n{usage}\n```\n"
    for group in parser._action_groups:  # noqa: SLF001  # argparse has no other way to them
        yield from _group(group)
    if parser.epilog:
        yield f"{_plain(parser.epilog[:1].upper() + parser.epilog[1:])}\n"
    if parser.examples:
        lines = (f"# {example.purpose}\n{example.command}" for example in parser.examples)
        yield "```sh\n" + "\n".join(lines) + "\n```\n"
    for below in parser.commands.values():
        yield from _command(below, min(level + 1, 4))


def _group(group: argparse._ArgumentGroup) -> Iterator[str]:
    rows = [
        (_name(action), _plain(_help(action)))
        for action in group._group_actions  # noqa: SLF001  # as above
        if action.help not in (None, argparse.SUPPRESS)
    ]
    if not rows or isinstance(group._group_actions[0], argparse._SubParsersAction):  # noqa: SLF001  # as above
        return
    yield f"*{(group.title or '').capitalize()}*\n"
    yield from _terms(rows)


def _name(action: argparse.Action) -> str:
    value = action.metavar if action.metavar is not None else action.dest
    words = " ".join(value) if isinstance(value, tuple) else value
    if not action.option_strings:
        return words
    return ", ".join(action.option_strings) + (f" {words}" if action.nargs != 0 else "")


def _help(action: argparse.Action) -> str:
    return (action.help or "") % {"default": action.default, "prog": "cirron-spool"}


def _terms(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A definition list."""
    for term, text in rows:
        yield f"`{term}`\n: {text}\n"


def _plain(text: str) -> str:
    """A text of the help as Markdown that shows it unchanged."""
    return re.sub(r"([\\`*_<>$\[\]])", r"\\\1", " ".join(text.split()))
