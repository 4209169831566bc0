"""The README and docs/ tell the truth: examples are run, and files, flags and exit codes are looked up."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

import cirron_spool
from cirron_spool import errors
from cirron_spool.cli.arguments.build import build_parser
from support.cli import spawn
from support.pages import PORT, World, blocks, ended, receiving
from support.spools import sdk_batches
from support.terminal import run_pty

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(cirron_spool.__file__).parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
TEXT = "\n".join(PAGES.values())

# Flags of other programs, and of this project's scripts, that the pages name.
FOREIGN_FLAGS = {"--strict", "--quick", "--from"}


def section(page: str, title: str) -> str:
    """The text below a heading of a page, up to the next one of its level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGES[page], re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no section {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in ``text``, without heads and rules."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    rules = [number for number, row in enumerate(found) if set("".join(row)) <= set("-:")]
    return [row for number, row in enumerate(found) if number not in rules and number + 1 not in rules]


def spool(work: Path) -> None:
    """The spool of the README's examples, written by the real SDK."""
    sdk_batches(work / ".cirron" / "spool", 3, seed=8, spans=(6, 62))


def cut_spool(work: Path) -> None:
    """Run 42's: a power cut has left its second batch half-written."""
    directory = work / "runs" / "42" / ".cirron" / "spool"
    second = sdk_batches(directory, 3, seed=28, spans=(6, 62))[1]
    os.truncate(directory / second.name, 4096)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    # The sizes that the README shows hold the length of the SDK's version.
    monkeypatch.setattr("cirron.core.flush._sdk_version", lambda: "0.3.0")
    return World(tmp_path)


def dialogues(page: str) -> Iterator[tuple[str, str]]:
    """Each command of a page's console blocks, with the output that the page shows below it."""
    for block in blocks("console", PAGES[page]):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown


def steady(text: str) -> str:
    """``text`` without the one thing that no run repeats: when a batch was rejected."""
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<when>", text)


@pytest.mark.thorough
@pytest.mark.parametrize("page", [page for page in PAGES if blocks("console", PAGES[page])])
def test_every_console_line_does_what_is_shown_below_it(world: World, page: str) -> None:
    spool(world.work)
    cut_spool(world.work)
    with ExitStack() as background:
        for command, shown in dialogues(page):
            if command.startswith("export "):
                pairs = (word.partition("=") for word in shlex.split(world.here(command))[1:])
                world.env.update({name: value for name, _, value in pairs})
                got = ""
            elif command.endswith(" &"):
                # A free port in place of the README's, which then is that one in all that follows.
                line = command.removesuffix(" &").replace(f"--port {PORT}", "--port 0")
                receiver = background.enter_context(ended(world.start(f"exec {line}")))
                got = receiver.wait_for_text("\n")
                port = re.search(r":(\d+),", got)
                assert port is not None, got
                world.port = port[1]
            elif "(y/N) " in shown:
                question, _, rest = shown.partition("(y/N) ")
                answer = rest.partition("\n")[0]
                done = run_pty(
                    ["/bin/sh", "-c", world.here(command)],
                    cwd=world.work,
                    home=world.home,
                    env=world.env,
                    columns=200,
                    answers=[("(y/N) ", f"{answer}\n")],
                )
                assert question.startswith("? "), question
                got = done.text.replace("\r\n", "\n")
            else:
                with world.start(world.here(command)) as running:
                    got = running.finish().stdout
            assert steady(world.there(got)) == steady(shown), f"after: $ {command}"


def test_the_pages_show_every_command() -> None:
    shown = [command for page in PAGES for command, _ in dialogues(page)]
    subjects = {line.split()[1] for line in shown if line.startswith("cirron-spool ")}
    assert {"inspect", "flush", "clear", "quarantine", "receive"} <= subjects
    assert any(line.startswith("cirron spool ") for line in shown)


def is_missing(package: str) -> bool:
    """Whether a package that a block imports is not installed."""
    return find_spec(package) is None


PYTHON_BLOCKS = {
    f"{page}-{number}": code
    for page, text in PAGES.items()
    for number, code in enumerate(blocks("python", text), 1)
}


@pytest.mark.parametrize("block", PYTHON_BLOCKS)
def test_every_python_block_runs_and_prints_what_its_arrows_say(world: World, block: str) -> None:
    code = PYTHON_BLOCKS[block]
    if missing := [
        name for name in re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE) if is_missing(name)
    ]:
        pytest.skip(f"{missing[0]} is not installed")
    spool(world.work)
    sdk_batches(world.work / "runs" / "42" / ".cirron" / "spool", 3, seed=28, spans=(6, 62))
    with receiving(world):
        program = [sys.executable, "-c", code]
        with spawn(program, cwd=world.work, home=world.home, env=world.env) as running:
            done = running.finish()
    promised = re.findall(r"# → (.*)$", code, re.MULTILINE)
    assert promised, "a block without an arrow proves nothing"
    if block.startswith("docs/how-to/"):  # other packages print as well
        assert (done.returncode, [line for line in done.lines if line in promised]) == (0, promised), (
            done.stderr
        )
    else:
        assert (done.returncode, done.stderr, done.lines) == (0, "", promised)


def test_the_exit_codes_are_those_of_the_report_and_the_signals() -> None:
    codes = {int(row[0]) for row in rows(section("docs/configuration.md", "Exit codes"))}
    known = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert codes == known | {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}


def test_the_errors_have_the_exit_codes_that_are_shown() -> None:
    shown = {
        row[0].strip("`"): int(row[1])
        for row in rows(section("docs/library.md", "Errors"))
        if row[0].endswith("Error`")
    }
    made: dict[str, Callable[[], cirron_spool.CirronSpoolError]] = {
        "ConfigError": lambda: cirron_spool.ConfigError(""),
        "SpoolError": lambda: cirron_spool.SpoolError(""),
        "NotAuthenticatedError": cirron_spool.NotAuthenticatedError,
        "AuthInvalidError": cirron_spool.AuthInvalidError,
        "AuthRejectedError": lambda: cirron_spool.AuthRejectedError(""),
        "SignInError": lambda: cirron_spool.SignInError(""),
        "TokenRenewalError": lambda: cirron_spool.TokenRenewalError(""),
        "ResourceError": lambda: cirron_spool.ResourceError(""),
        "ClusterError": lambda: cirron_spool.ClusterError(""),
        "SpoolBusyError": lambda: cirron_spool.SpoolBusyError(""),
    }
    assert shown == {name: make().exit_code for name, make in made.items()}
    # Bases are for catching; every other error of ours is in the table.
    public = {name for name in cirron_spool.__all__ if name.endswith("Error")}
    assert set(shown) == public - {"CirronSpoolError", "AuthError"}


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Every long option of a parser and of the commands below it."""
    for action in parser._actions:
        yield from (name for name in action.option_strings if name.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from options(below)


def test_every_flag_that_is_named_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)  # the benchmarks are in the checkout only
    from benchmarks import cli

    ours = {flag for prog in ("cirron", "cirron-spool") for flag in options(build_parser(prog))}
    measuring = {flag for command in cli.COMMANDS for flag in options(cli.build_parser(command))}
    # A benchmark's line may have the benchmarks' flags, and any other text only the commands'. The harnesses' own flags
    # stand on one page. A how-to has the flags of many programs.
    pages = {page: text for page, text in PAGES.items() if page != "docs/reliability.md"}
    text = "\n".join(
        "\n".join(re.findall(r"cirron(?:-spool)? [^`|;&\n]*", text))
        if page.startswith("docs/how-to/")
        else text
        for page, text in pages.items()
    )
    lines = re.findall(r"python -m benchmarks[^`\n]*", text)
    flag = r"(?<![\w-])--[a-z][a-z-]*"
    assert {name for line in lines for name in re.findall(flag, line)} <= measuring
    rest = re.sub(r"python -m benchmarks[^`\n]*", "", text)
    named = set(re.findall(flag, rest))
    assert "--in-flight" in named
    assert named - FOREIGN_FLAGS <= ours


def test_every_environment_variable_of_ours_is_in_the_table() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")))
    # Read by the code: a quoted name. The mark of a hand-over is between two of our own processes.
    read = set(re.findall(r"\"(CIRRON_[A-Z_]+)\"", sources)) - {"CIRRON_SPOOL_HANDED_OVER"}
    assert set(re.findall(r"`(CIRRON_[A-Z_]+)`", PAGES["docs/configuration.md"])) == read


def test_every_module_is_on_the_map_and_the_map_has_no_other() -> None:
    table = PAGES["docs/architecture.md"].partition("| beside |")[0]
    shown = {row[0].strip("`"): set(re.findall(r"`(\w+\.py)`", row[2])) for row in rows(table)}
    there: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        folder = path.relative_to(PACKAGE).parent.as_posix()
        there.setdefault("cirron_spool/" if folder == "." else f"{folder}/", set()).add(path.name)
    assert shown == {
        folder: names if folder == "cirron_spool/" else names - {"__init__.py"}
        for folder, names in there.items()
    }


def test_every_folder_says_its_role_as_the_map_does() -> None:
    table = PAGES["docs/architecture.md"].partition("| beside |")[0]
    roles = {row[0].strip("`"): row[1] for row in rows(table)}
    for path in PACKAGE.glob("**/__init__.py"):
        if path.parent != PACKAGE:
            first_line = path.read_text(encoding="utf-8").split("\n")[0].replace('"""', "")
            role = roles[f"{path.relative_to(PACKAGE).parent.as_posix()}/"]
            assert first_line == f"{role[0].upper()}{role[1:]}.", path


def test_what_is_said_to_be_beside_the_package_is_there() -> None:
    table = PAGES["docs/architecture.md"].partition("| beside |")[2].partition("\n\n")[0]
    for row in rows(f"| beside |{table}"):
        folder = ROOT / row[0].strip("`")
        assert folder.is_dir()
        named = re.findall(r"`([\w.]+/?)`", row[1])
        assert [name for name in named if not (folder / name).exists()] == []
    for script in ("bin/demo", "bin/test", "bin/cirron"):
        assert script in TEXT
        assert os.access(ROOT / script, os.X_OK)


def test_every_message_of_the_troubleshooting_page_is_one_of_ours() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")))
    joined = re.sub(r"\"\s*\n\s*f?\"", "", sources)  # a text in several lines
    messages = [row[0].strip("`") for row in rows(PAGES["docs/troubleshooting.md"])]
    assert len(messages) > 20
    parts = [part.strip(" .") for message in messages for part in message.split("…") if len(part) > 3]
    assert [part for part in parts if part not in joined] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", PAGES[page])
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_the_readme_is_short_and_links_every_page() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 200
    for page in PAGES:
        folder, _, name = page.rpartition("/")
        if folder == "docs":
            assert f"]({page})" in PAGES["README.md"]
        elif folder and name != "README.md":
            assert f"]({name})" in PAGES[f"{folder}/README.md"]


def test_every_page_has_a_chapter_of_the_site() -> None:
    chapters = (ROOT / "bin" / "docs.py").read_text(encoding="utf-8")
    pages = [page.removesuffix(".md") for page in PAGES if page.rpartition("/")[0] == "docs"]
    assert [page for page in pages if f'"{page}"' not in chapters] == []


def test_the_changelog_knows_this_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(cirron_spool.__version__)}\]", changes, re.MULTILINE)
