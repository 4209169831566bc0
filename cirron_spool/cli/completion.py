"""``completion``: print the completion script of a shell."""

from __future__ import annotations

import argparse
import os

import shtab

from cirron_spool.cli.arguments.build import build_parser
from cirron_spool.cli.arguments.parser import Parser
from cirron_spool.cli.console import Console
from cirron_spool.cli.signals import Signals
from cirron_spool.errors import EXIT_OK, ConfigError

_PLACES = {"file": shtab.FILE, "directory": shtab.DIRECTORY}


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Print the script that the arguments name; return the exit code."""
    del signals
    shell = options.shell or os.path.basename(os.environ.get("SHELL", ""))
    if shell not in shtab.SUPPORTED_SHELLS:
        raise ConfigError("Name the shell: cirron-spool completion bash, zsh or fish.")
    console.data([script(options.program, shell)])
    return EXIT_OK


def script(program: str, shell: str) -> str:
    """The script that completes ``program`` in ``shell``."""
    parser = build_parser(program)
    _prepare(parser)
    return shtab.complete(parser, shell).rstrip()


def _prepare(parser: Parser) -> None:
    """Set shtab's documented attributes: the values that are files, directories or words, and one line a command."""
    for action in parser.values:
        if action.place:
            action.complete = _PLACES[action.place]  # type: ignore[attr-defined]  # shtab's attribute
        if action.words:
            action.choices = action.words
    for command in parser.commands.values():
        command.description = command.summary
        _prepare(command)
