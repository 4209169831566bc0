"""The help of each command: examples that hold, ``-h`` and ``help`` everywhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from cirron_spool import __version__
from cirron_spool.cli import main
from cirron_spool.cli.arguments.build import build_parser, parse
from cirron_spool.cli.arguments.parser import Example, Parser
from support.fork_server import run_cli

PROGRAMS = ("cirron-spool", "cirron")


def commands(parser: Parser) -> Iterator[Parser]:
    """Each command and group below ``parser``, and itself."""
    yield parser
    for below in parser.commands.values():
        yield from commands(below)


ALL = [command for program in PROGRAMS for command in commands(build_parser(program))]
EXAMPLES = [pytest.param(example, id=example.command) for command in ALL for example in command.examples]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_right_command_line(example: Example) -> None:
    substituted = re.search(r"\$\((.*)\)", example.command)
    words = shlex.split(substituted[1] if substituted else example.command)
    end = min((words.index(mark) for mark in (">", "<") if mark in words), default=len(words))
    program, *arguments = words[:end]
    assert parse(program, arguments).run not in ("help", "version")


def test_each_command_and_group_has_an_example() -> None:
    assert [command.prog for command in ALL if not command.examples] == []


def shown(command: Parser, capfd: pytest.CaptureFixture[str], *more: str) -> str:
    """What a command prints for an option that only shows something. No process starts."""
    program, *words = command.prog.split()
    run = main.cirron if program == "cirron" else main.cirron_spool
    try:
        code: object = run([*words, *more])
    except SystemExit as end:
        code = end.code
    out, err = capfd.readouterr()
    assert (code, err) == (0, "")
    return out


@pytest.fixture
def no_other_cirron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``cirron`` alone would become the next one on PATH, and this process with it."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.thorough
@pytest.mark.usefixtures("no_other_cirron")
@pytest.mark.parametrize("command", ALL, ids=lambda command: command.prog)
def test_each_command_and_group_tells_its_version(command: Parser, capfd: pytest.CaptureFixture[str]) -> None:
    for option in ("-V", "--version"):
        # Alone, cirron adds the version of the next cirron on PATH.
        assert shown(command, capfd, option).splitlines()[0] == f"cirron-spool {__version__}"


@pytest.mark.usefixtures("no_other_cirron")
@pytest.mark.parametrize("command", ALL, ids=lambda command: command.prog)
def test_each_form_of_help_is_the_same(command: Parser, capfd: pytest.CaptureFixture[str]) -> None:
    program, *words = command.prog.split()
    asked = shown(build_parser(program), capfd, "help", *words)
    assert asked.startswith(f"usage: {command.prog} ")
    assert asked == shown(command, capfd, "-h") == shown(command, capfd, "--help")


@pytest.mark.parametrize("form", ["--help", "-h", "help"])
def test_each_form_of_help_shows_the_examples(form: str) -> None:
    args = ("help", "flush") if form == "help" else ("flush", form)
    done = run_cli(*args)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "\nexamples:\n  cirron-spool flush\n      send the spool of the run in this folder\n" in done.stdout
    )


@pytest.mark.parametrize("command", ALL, ids=lambda command: command.prog)
def test_no_help_is_wider_than_a_terminal(command: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = command.format_help()
    assert [line for line in shown.splitlines() if len(line) > 80] == []
